"""A reader and the mutants that it has to survive, and where all of them are found.

A module of this package makes mutants of one kind and names the readers that take them:

    def mutants(seed: int, count: int) -> Iterator[bytes]:
        random = Random(seed)
        for _ in range(count):
            yield damaged(VALID, random)

    def read_patch(mutant: bytes, folder: Path) -> None:
        (folder / "patch").write_bytes(mutant)
        apply_patch(OLD, folder / "patch", folder / "new")

    TARGETS = (Target("patches: apply", mutants, read_patch),)
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irsplit.base.errors import IrsplitError


@dataclass(frozen=True)
class Target:
    """A reader under attack; all runs in a worker process that is bounded in time and memory.

    Attributes:
        name: `KIND: READER`, as the table of the fuzz run shows it; one of a kind.
        mutants: Called with a seed and a count, gives that many mutants, the same ones for the same
            seed. Iterated lazily, and from the start again after a mutant has ended the worker:
            make each one when it is asked for. Any type will do; of what is not bytes, a report of
            an escape shows the `repr`.
        read: Called with a mutant and an empty folder of its own, which is deleted afterwards. It
            returns when the mutant was accepted, and raises one of `refusals` when it was refused.
            Anything else is an escape: another exception, a warning, a worker that died, and more
            time or memory than allowed. To check what an accepted mutant led to, assert it here.
            Expensive things that all calls share belong in a function with `functools.cache`; a
            worker reads the mutants of one target, one after the other.
        refusals: The exceptions with which this reader may refuse.
        seconds: Wall-clock limit of one read, generous enough for a busy machine.
        memory: Bytes of address space that the worker may have above what it has when the first
            read begins.
        in_tests: Mutants that the tests read, all of them together for a few seconds; fewer for a
            slow reader.
    """

    name: str
    mutants: Callable[[int, int], Iterable[Any]]
    read: Callable[[Any, Path], object]
    refusals: tuple[type[BaseException], ...] = (IrsplitError,)
    seconds: float = 20.0
    memory: int = 1 << 30
    in_tests: int = 100


def targets(only: str = "", module: str = "") -> list[Target]:
    """The targets whose name contains `only`, by name: of one module, or of this package."""
    package = importlib.import_module("hostile")
    ours = [
        info.name
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("test_")
    ]
    found: dict[str, Target] = {}
    for name in [module] if module else [f"hostile.{name}" for name in ours]:
        for target in getattr(importlib.import_module(name), "TARGETS", ()):
            if target.name in found:
                raise ValueError(f"two targets are called {target.name!r}")
            found[target.name] = target
    return [found[name] for name in sorted(found) if only in name]
