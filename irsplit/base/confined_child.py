"""The process behind `confined.py`: loads the program in argv[1], limits itself, answers.

It runs as a script and is never imported. It stands alone, because a bare interpreter finds nothing
of irsplit, and imports only what is loaded already or is a few functions in C: `signal` and
`typing` would take three times as long as the start of the interpreter.
"""

import _signal  # pyright: ignore[reportMissingImports] - no stubs know it
import resource
import sys
from os import _exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OUT_OF_MEMORY = 77


def main(path: str, *arguments: str) -> None:
    """Answer one request: limits and request come by standard input, the answer goes to output."""
    program: dict[str, Any] = {"__name__": "program", "__file__": path}
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), program)
    if "load" in program:
        program["load"](*arguments)

    memory, seconds, wall = map(int, sys.stdin.buffer.readline().split())
    request = sys.stdin.buffer.read()
    _bound(memory, seconds, wall)

    try:
        answer = program["answer"](request, *arguments)
    except MemoryError:
        _exit(_OUT_OF_MEMORY)

    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    # Without the interpreter's clean-up, which would take longer than the work.
    _exit(0)


def _bound(memory: int, seconds: int, wall: int) -> None:
    """Set limits that the kernel enforces, whatever a library does.

    Args:
        memory: Bytes of memory beyond those that the loaded program has.
        seconds: CPU time beyond what loading took.
        wall: Seconds until the process is ended in any case.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    end = round(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (end, end + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _signal.alarm(wall)

    mapped = _mapped()
    if mapped:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))


def _mapped() -> int:
    """Bytes of address space of this process; 0 on systems that neither tell nor limit it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
