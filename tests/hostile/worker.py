"""Reads the mutants of one target in this process, which is bounded and talks to `runner`.

    python -m hostile.worker TARGET SEED COUNT START [MODULE]

A JSON line on standard output before each mutant, and one after it. What the reader itself prints
goes to standard error.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from hostile.target import Target, targets

PACKAGES = ("irsplit", "passes", "runtime", "hostile")
"""Whose lines name the place of an escape."""


class TimeUp(BaseException):
    """Not an Exception: a reader that catches all of those does not catch it."""


def outcome(target: Target, mutant: Any, folder: Path) -> tuple[str, str]:
    """`accepted`, `refused` or `escape`, and of an escape what it was and where."""
    try:
        with _bounded(target.seconds), warnings.catch_warnings():
            warnings.simplefilter("error")
            # Of other packages, and of when the garbage collector happens to run.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            target.read(mutant, folder)
    except target.refusals:
        return "refused", ""
    except TimeUp:
        return "escape", f"took longer than {target.seconds:g} s"
    except BaseException as error:
        return "escape", f"{type(error).__name__}: {str(error)[:200]} ({_place(error)})"
    return "accepted", ""


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raises TimeUp when the block takes longer."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeUp

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _place(error: BaseException) -> str:
    """The innermost line of the project that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if set(PACKAGES) & set(Path(frame.filename).parts)]
    frame = (ours or frames)[-1]
    return f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"


def limit_memory(extra: int) -> None:
    """No more address space than `extra` bytes above today's, no larger file, no core."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (extra, extra))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    name, seed, count, start, *module = sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:]
    # Whatever prints, engines written in C++ included, must not print between the lines.
    with os.fdopen(os.dup(1), "w", buffering=1) as report:
        os.dup2(2, 1)
        (target,) = (target for target in targets(name, *module) if target.name == name)
        mutants = islice(enumerate(target.mutants(seed, count)), start, None)
        first = next(mutants, None)
        limit_memory(target.memory)
        while first is not None:
            index, mutant = first
            report.write(json.dumps({"begin": index}) + "\n")
            with tempfile.TemporaryDirectory(
                prefix="mutant-", ignore_cleanup_errors=True
            ) as folder:
                kind, what = outcome(target, mutant, Path(folder))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            shown = mutant_text(mutant) if kind == "escape" else ""
            report.write(
                json.dumps({"end": index, "kind": kind, "what": what, "shown": shown, "peak": peak})
                + "\n"
            )
            first = next(mutants, None)
        report.write(json.dumps({"done": True}) + "\n")


def mutant_text(mutant: Any) -> str:
    """The first bytes of a mutant."""
    if isinstance(mutant, bytes | bytearray | memoryview):
        return f"{len(mutant)} bytes: {bytes(mutant[:24]).hex(' ')}"
    text = repr(mutant)
    return text if len(text) <= 120 else f"{text[:120]}..."


if __name__ == "__main__":
    main()
