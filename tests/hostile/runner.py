"""Runs a target in worker processes: one after another, when a mutant ends one."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from hostile.target import Target
from hostile.worker import mutant_text

TESTS = Path(__file__).parent.parent
GRACE_S = 10.0
"""How long a worker whose time is up may take to say so: C code does not hear the alarm."""
START_S = 300.0
"""How long a worker may take to import everything and make the first mutant."""
MOST_DEATHS = 20
"""Workers that mutants of one target may end before it is given up."""


@dataclass(frozen=True)
class Escape:
    """What a reader did to a mutant instead of accepting or refusing it."""

    index: int
    what: str
    shown: str


@dataclass
class Result:
    """What became of the mutants of a target."""

    name: str
    seed: int
    refused: int = 0
    accepted: int = 0
    escapes: list[Escape] = field(default_factory=list[Escape])
    peak: int = 0
    """Bytes that a worker had resident at most."""
    gave_up: bool = False

    @property
    def tries(self) -> int:
        return self.refused + self.accepted + len(self.escapes)


def fuzz(target: Target, seed: int, count: int, module: str = "") -> Result:
    """Have a target read `count` mutants.

    `module` names where the target is when that is not in this package. Raises RuntimeError when
    the generator of the mutants is at fault, not the reader.
    """
    result = Result(target.name, seed)
    start = deaths = 0
    while True:
        died = _work(target, count, start, result, module)
        if died is None:
            return result
        index, what = died
        shown = mutant_text(next(islice(iter(target.mutants(seed, count)), index, None)))
        result.escapes.append(Escape(index, what, shown))
        start, deaths = index + 1, deaths + 1
        if deaths == MOST_DEATHS:
            result.gave_up = True
            return result


def _work(
    target: Target, count: int, start: int, result: Result, module: str
) -> tuple[int, str] | None:
    """Run one worker from mutant `start` on; the mutant that ended it, and how, or None."""
    command = [
        sys.executable,
        "-m",
        "hostile.worker",
        target.name,
        str(result.seed),
        str(count),
        str(start),
        module,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    with (
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            command, env=environment | {"TMPDIR": folder}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors, cwd=folder, start_new_session=True,
        ) as worker,
    ):  # fmt: skip
        assert worker.stdout is not None
        index: int | None = None
        slow = False
        try:
            for line in _lines(worker.stdout, START_S, target.seconds + GRACE_S):
                if line.get("done"):
                    return None
                if "begin" in line:
                    index = line["begin"]
                else:
                    _count(line, result)
                    index = None
            worker.wait(GRACE_S)
        except TimeoutError:
            slow = True
        finally:
            # Servers and other processes that a reader started are of the worker's session.
            _kill(worker)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
        if index is None:
            raise RuntimeError(
                f"{target.name}: the worker failed between two mutants\n{said[-3000:]}"
            )
        if slow:
            return (
                index,
                f"took longer than {target.seconds + GRACE_S:g} s, in code that hears no signal",
            )
        status = worker.returncode
        how = (
            f"died of {signal.Signals(-status).name}"
            if status < 0
            else f"ended with exit code {status}"
        )
        return index, f"{how}: {said.splitlines()[-1][:200] if said else 'without a word'}"


def _lines(stream: IO[bytes], first_s: float, each_s: float) -> Iterator[dict[str, Any]]:
    """JSON lines until the stream ends. Raises TimeoutError when the next one is late."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        deadline = time.monotonic() + first_s
        while selector.select(max(deadline - time.monotonic(), 0)):
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
            if lines:
                deadline = time.monotonic() + each_s
    raise TimeoutError


def _count(line: dict[str, Any], result: Result) -> None:
    result.peak = max(result.peak, line["peak"])
    if line["kind"] == "escape":
        result.escapes.append(Escape(line["end"], line["what"], line["shown"]))
    elif line["kind"] == "refused":
        result.refused += 1
    else:
        result.accepted += 1


def _kill(worker: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
