"""What installed packages offer through entry points."""

from functools import cache
from typing import TYPE_CHECKING, Any

from irsplit.base.errors import IrsplitError
from irsplit.base.lazy import LazyModule
from irsplit.base.reading import reason

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


def load(point: "metadata.EntryPoint", kind: str) -> Any:
    """What an entry point of another package stands for.

    Raises IrsplitError, naming both, for whatever the package's module raises when it is imported.
    """
    try:
        return point.load()
    except Exception as error:
        text = f"the {kind} '{point.name}' of {point.value} cannot be loaded: {reason(error)}; uninstall or mend it"
        raise IrsplitError(text) from error


@cache
def _installed() -> Any:
    """What `select` chooses from. Made once in a process: every installed package has a file to be read for it."""
    return metadata.entry_points()
