"""What installed packages offer through entry points."""

from functools import cache
from typing import TYPE_CHECKING, Any

from irsplit.base.lazy import LazyModule

if TYPE_CHECKING:
    from importlib import metadata
else:
    metadata = LazyModule("importlib.metadata")


def entry_points(group: str) -> "list[metadata.EntryPoint]":
    """The entry points of a group, each once, in order of name and value."""
    # A package that is found twice on the path lists the same entry point twice.
    points: list[metadata.EntryPoint] = _installed().select(group=group)
    found = {(point.name, point.value): point for point in points}
    return [point for _, point in sorted(found.items())]


@cache
def _installed() -> Any:
    """What `select` chooses from. Made once in a process: every installed package has a file to be read for it."""
    return metadata.entry_points()
