"""Run a function again and again, each time killed at the next operation on files: what is left?

    python tests/dying.py MODULE:FUNCTION FOLDER ARGUMENT...

It runs the function in the `FOLDER` of each attempt and prints one line an attempt; the module is
imported once, attempts are forks of that process.
"""

import importlib
import os
import sys
from collections.abc import Callable

KILLED = 77
_CHANGES = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "ctypes.dlsym",
)


def attempt(work: Callable[[], object], folder: str, fatal: int) -> int:
    """Exit code of a fork that works and dies at its operation number `fatal` in `folder`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES or (event != "ctypes.dlsym" and folder not in str(arguments[0])):
            return
        if (
            event == "open"
            and isinstance(arguments[2], int)
            and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        seen += 1
        if seen == fatal:
            os._exit(KILLED)

    sys.addaudithook(hook)
    work()
    os._exit(0)


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    pattern, arguments = sys.argv[2], sys.argv[3:]
    work = getattr(importlib.import_module(module), name)
    for fatal in range(1, 1000):
        folder = pattern.format(fatal)
        code = attempt(
            lambda folder=folder: work(*(word.format(folder) for word in arguments)), folder, fatal
        )
        print(fatal, code, flush=True)
        if code != KILLED:
            sys.exit(code)


if __name__ == "__main__":
    main()
