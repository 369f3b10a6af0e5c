"""A target whose reader does what each mutant says: what the runner of tests/hostile must see."""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from hostile.target import Target
from irsplit.base.errors import BundleError

BEHAVIOURS = (
    b"refuse",
    b"accept",
    b"raise",
    b"warn",
    b"sleep",
    b"exit",
    b"abort",
    b"allocate",
    b"write",
    b"accept",
)


def mutants(seed: int, count: int) -> Iterator[bytes]:
    assert seed
    yield from BEHAVIOURS[:count]


def read(mutant: bytes, folder: Path) -> None:
    assert list(folder.iterdir()) == []
    (folder / "left behind").write_bytes(mutant)
    match mutant:
        case b"refuse":
            raise BundleError("refused")
        case b"raise":
            raise KeyError("raise")
        case b"warn":
            warnings.warn("warn", stacklevel=1)
        case b"sleep":
            time.sleep(60)
        case b"exit":
            raise SystemExit(3)
        case b"abort":
            os.write(2, b"about to abort\n")
            os.kill(os.getpid(), signal.SIGABRT)
        case b"allocate":
            bytearray(1 << 29)
        case b"write":
            with (folder / "large").open("wb") as file:
                file.truncate(1 << 29)
        case _:
            print("not a line of the protocol")


TARGETS = (Target("self: behaviours", mutants, read, seconds=0.5, memory=1 << 28),)
