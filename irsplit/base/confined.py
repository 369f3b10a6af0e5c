"""Runs programs that read untrusted files, each in a process with limits on memory and CPU time.

The process is a bare interpreter that runs `confined_child.py`, and starts in 10 to 15 ms. It
imports nothing of irsplit and is no copy of the caller's process, so the caller's threads and
loaded engines do not matter.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

_CHILD = Path(__file__).with_name("confined_child.py")
OUT_OF_MEMORY = 77
"""The exit code of a program that was refused memory; `confined_child.py` has the same number."""
_WALL_S = 60
"""A process that waits takes no CPU time (on a system that swaps), so the clock ends it."""
_CPU_SIGNALS = (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM)


class ConfinedError(Exception):
    """The process did not answer; the text says why: it exceeded a limit, or crashed."""


class TimeUpError(ConfinedError):
    """The process took more CPU time than its limit, or did nothing for too long."""


class Bounds(NamedTuple):
    """What a program may use after it has been loaded: bytes of memory, seconds of CPU time."""

    memory: int
    seconds: int


class Confined:
    """A process that loads a program at once and answers one request.

    It is a context manager, which ends the process.

    Args:
        program: A Python file with a function `answer(request, *arguments)` from bytes to bytes. It
            may also have `load(*arguments)` for work that takes time and does not depend on the
            untrusted request.
        arguments: Passed to both functions.
        packages: Whether the program can import installed packages. Without them it has the
            standard library alone, and starts three times as fast.

    Raises:
        ConfinedError: The process cannot be started.
    """

    def __init__(self, program: Path, *arguments: str, packages: bool = False) -> None:
        options = ["-I"] if packages else ["-I", "-S"]
        words = [sys.executable, *options, str(_CHILD), str(program), *arguments]
        request_end, self._to = os.pipe()
        self._back, answer_end = os.pipe()
        wiring = [
            (os.POSIX_SPAWN_DUP2, request_end, 0),
            (os.POSIX_SPAWN_DUP2, answer_end, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        try:
            self._process = os.posix_spawn(sys.executable, words, os.environ, file_actions=wiring)
        except OSError as error:
            os.close(self._to)
            os.close(self._back)
            raise ConfinedError(f"cannot start {sys.executable}: {error.strerror}") from error
        finally:
            os.close(request_end)
            os.close(answer_end)

    def __enter__(self) -> "Confined":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if it has not ended by itself."""
        for pipe in (self._to, self._back):
            if pipe >= 0:
                os.close(pipe)
        self._to = self._back = -1
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            self._wait()

    def answer(self, request: bytes, bounds: Bounds) -> bytes:
        """Send the request and wait for the answer; may be called once.

        Args:
            request: Passed to the program's `answer`.
            bounds: The limits for this request.

        Returns:
            What the program's `answer` returned.

        Raises:
            TimeUpError: The program took too long.
            ConfinedError: The program needed too much memory, failed or crashed.
        """
        try:
            with os.fdopen(self._to, "wb", buffering=0) as pipe:
                self._to = -1
                _write_all(pipe.fileno(), b"%d %d %d\n" % (*bounds, _WALL_S))
                _write_all(pipe.fileno(), request)
        except BrokenPipeError:
            # The process has ended; its exit code says why.
            pass

        with os.fdopen(self._back, "rb") as pipe:
            self._back = -1
            answer = pipe.read()
        code = self._wait()
        if code:
            raise _reason_of(code, bounds)
        return answer

    def _wait(self) -> int:
        """The exit code of the process."""
        process, self._process = self._process, 0
        try:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        except ChildProcessError:
            # A caller that ignores SIGCHLD gets no exit codes; an answer is whole or missing.
            return 0


def _reason_of(code: int, bounds: Bounds) -> ConfinedError:
    """The error for an exit code; negative ones are signals."""
    if -code in _CPU_SIGNALS:
        return TimeUpError(f"it takes more than {bounds.seconds} s")
    if code == OUT_OF_MEMORY:
        return ConfinedError(f"it needs more than {bounds.memory // 1_000_000} MB")
    if code < 0:
        return ConfinedError(f"it crashes ({signal.Signals(-code).name})")
    return ConfinedError(f"it fails with {code}")


def _write_all(pipe: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]
