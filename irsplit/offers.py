"""What installed packages offer through entry points."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def offers(group: str) -> list[EntryPoint]:
    """The entry points of a group, each once, in order of name and value."""
    # A package that is found twice on the path lists the same entry point twice.
    points: list[EntryPoint] = _installed().select(group=group)
    found = {(point.name, point.value): point for point in points}
    return [point for _, point in sorted(found.items())]


@cache
def _installed() -> Any:
    """What `select` chooses from. Made once in a process: every installed package has a file to be read for it."""
    return entry_points()
