"""Make one target of a build file in a process of its own.

The process runs in the folder of the build file, so that names in bundles do not depend on where
that folder lies. It says what happens as events: dictionaries with the name of the event under
"event".
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from irsplit.base.errors import BundleError, IrsplitError
from irsplit.compilation.checks import CheckOptions
from irsplit.compilation.compiler import compile
from irsplit.compilation.depfile import made_from
from irsplit.compilation.options import CompileOptions

Event = dict[str, Any]
"""What a worker or a build says: "fresh", "start", "remark", "output", "verified", "done", or
"error", which has the IrsplitError under "error" or the text under "text"."""

DONE, NOT_HELD, FAILED = 0, 1, 2
"""Exit codes of a target: its bundle is made, does not hold, or could not be made."""


@dataclass(frozen=True, slots=True)
class Job:
    """How one target is made; paths are relative to the folder of the build file."""

    name: str
    model: str
    options: CompileOptions
    calibration: tuple[Path, ...] = ()
    verify: CheckOptions | None = None
    """How its bundle is verified; None without verification."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: its exit code, and the files that the bundle was made from."""

    code: int
    files: tuple[str, ...] = ()


def run_job(job: Job, folder: Path, bundle: Path, report: Callable[[Event], None]) -> Outcome:
    """Make and verify a bundle in a process of its own.

    Args:
        job: What to make.
        folder: The folder of the build file.
        bundle: Where the bundle goes.
        report: Called with every event.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, job, folder.resolve(), bundle))
    process.start()
    sender.close()

    outcome: Outcome | None = None
    with receiver:
        while True:
            try:
                message: Event | Outcome = receiver.recv()
            except EOFError:
                break
            if isinstance(message, Outcome):
                outcome = message
            else:
                report(message)
    process.join()
    if outcome is not None:
        return outcome

    report({"event": "error", "error": BundleError(_death(process.exitcode or 0))})
    return Outcome(FAILED)


def _death(code: int) -> str:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"the process that compiled it ended with {how}"


def _work(sender: Connection, job: Job, folder: Path, bundle: Path) -> None:
    """The worker's whole life."""
    os.chdir(folder)
    sending = threading.Lock()

    def send(message: Event | Outcome) -> None:
        with sending:
            sender.send(message)

    with _output_as_events(send):
        try:
            outcome = _made(job, bundle, send)
        except IrsplitError as error:
            send({"event": "error", "error": error})
            outcome = Outcome(FAILED)
        except Exception:
            # A defect of ours: its trace becomes output.
            traceback.print_exc()
            outcome = Outcome(NOT_HELD)
    send(outcome)


def _made(job: Job, bundle: Path, send: Callable[[Event], None]) -> Outcome:
    """Compile the job's model, and verify its bundle."""
    begun = time.monotonic()
    compiled = compile(job.model, bundle, job.options, calibration=job.calibration)
    for remark in compiled.remarks:
        said = {"pass": remark.pass_name, "warning": remark.warning, "text": remark.text}
        send({"event": "remark", **said})
    digest, seconds = compiled.manifest.digest, round(time.monotonic() - begun, 3)

    if job.verify is not None and not _holds(job.verify, job.model, bundle, send):
        return Outcome(NOT_HELD)
    send({"event": "done", "bundle": str(bundle), "digest": digest, "seconds": seconds})
    files = made_from(compiled, job.options, job.calibration)
    return Outcome(DONE, tuple(str(file) for file in files))


def _holds(checks: CheckOptions, model: str, bundle: Path, send: Callable[[Event], None]) -> bool:
    """Verify a bundle, and say what was found."""
    try:
        outcome = checks.run(bundle, model)
    except IrsplitError as error:
        error.where = f"verify: {error.where}" if error.where else "verify"
        raise
    data = outcome.to_json()
    said = {key: data[key] for key in ("lossless", "calls", "agreement")}
    if outcome.holds:
        send({"event": "verified", **said})
    else:
        send({"event": "error", "text": f"verify: {'; '.join(outcome.failures)}", **said})
    return outcome.holds


@contextmanager
def _output_as_events(send: Callable[[Event], None]) -> Generator[None]:
    """Send what libraries print on standard error as events, line by line.

    What they print on standard output is dropped. File descriptors are redirected, because
    engines print from C.
    """
    source, target = os.pipe()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    before = os.dup(2)
    os.dup2(target, 2)
    os.close(target)

    def forward() -> None:
        with open(source, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                send({"event": "output", "text": line.rstrip("\n")})

    reader = threading.Thread(target=forward)
    reader.start()
    try:
        yield
    finally:
        # The last copy of the pipe's end is closed here, which ends the reader.
        os.dup2(before, 2)
        os.close(before)
        reader.join()
