"""Programs that look into a stranger's file: each in a process of its own, with bounds on its memory and CPU time.

The process is a bare interpreter that runs `confined_child.py`, and takes 10 to 15 ms. Nothing is imported for it here,
and the caller's process is not copied, so that its threads and loaded engines do not matter.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

_CHILD = Path(__file__).with_name("confined_child.py")
OUT_OF_MEMORY = 77
"""The exit code of a program that was refused memory, `confined_child.py` knows it too."""
_WALL_S = 60
"""A process that waits (a machine that swaps) takes no CPU time, and is ended by the clock."""
_CPU_SIGNALS = (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM)


class ConfinedError(Exception):
    """The process did not answer; the text says why: it took too much of something, or crashed."""


class TimeUpError(ConfinedError):
    """The process took more CPU time than it may, or did nothing for too long."""


class Bounds(NamedTuple):
    """What a program may take once it has been loaded, in bytes and in seconds of CPU time."""

    memory: int
    seconds: int


class Confined:
    """A process that loads a program at once and answers one request; a context manager, which ends the process.

    The program is a Python file with a function `answer(request, *arguments)` from bytes to bytes, and perhaps one
    `load(*arguments)` for what takes time and comes from no stranger. Without `packages` it finds the standard library
    alone, and starts three times as fast.
    """

    def __init__(self, program: Path, *arguments: str, packages: bool = False) -> None:
        options = ["-I"] if packages else ["-I", "-S"]
        words = [sys.executable, *options, str(_CHILD), str(program), *arguments]
        given, self._to = os.pipe()
        self._back, returned = os.pipe()
        nowhere = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
        wiring = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, returned, 1), nowhere]
        try:
            self._process = os.posix_spawn(sys.executable, words, os.environ, file_actions=wiring)
        except OSError as error:
            os.close(self._to)
            os.close(self._back)
            raise ConfinedError(f"cannot start {sys.executable}: {error.strerror}") from error
        finally:
            os.close(given)
            os.close(returned)

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
        """What the program makes of the request. Raises ConfinedError."""
        try:
            with os.fdopen(self._to, "wb", buffering=0) as pipe:
                self._to = -1
                _write_all(pipe.fileno(), b"%d %d %d\n" % (*bounds, _WALL_S))
                _write_all(pipe.fileno(), request)
        except BrokenPipeError:
            pass  # it has died; why is told below
        with os.fdopen(self._back, "rb") as pipe:
            self._back = -1
            answer = pipe.read()
        code = self._wait()
        if not code:
            return answer
        if -code in _CPU_SIGNALS:
            raise TimeUpError(f"it takes more than {bounds.seconds} s")
        if code == OUT_OF_MEMORY:
            raise ConfinedError(f"it needs more than {bounds.memory // 1_000_000} MB")
        raise ConfinedError(
            f"it crashes ({signal.Signals(-code).name})" if code < 0 else f"it fails with {code}"
        )

    def _wait(self) -> int:
        process, self._process = self._process, 0
        try:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        except (
            ChildProcessError
        ):  # a caller that ignores SIGCHLD is told nothing; an answer is whole or not there
            return 0


def _write_all(pipe: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]
