"""The entry points by which installed packages extend irsplit."""

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
    """The entry points of a group, each once, in order of name and value.

    Args:
        group: The name of the group, such as "irsplit.dialects".
    """
    points: list[metadata.EntryPoint] = _installed().select(group=group)
    # A package that is on the path twice lists each of its entry points twice.
    distinct = {(point.name, point.value): point for point in points}
    return [point for _, point in sorted(distinct.items())]


def load(point: "metadata.EntryPoint", kind: str) -> Any:
    """Import what an entry point refers to.

    Args:
        point: An entry point, usually of another package.
        kind: What it is for, in error messages, such as "dialect".

    Returns:
        The object.

    Raises:
        IrsplitError: The package's module raised something; the error names it and the module.
    """
    try:
        return point.load()
    except Exception as error:
        raise IrsplitError(
            f"the {kind} '{point.name}' of {point.value} cannot be loaded: {reason(error)}",
            remedy="uninstall or mend it",
        ) from error


@cache
def _installed() -> Any:
    """All entry points, read once a process, because each installed package has a file to read."""
    return metadata.entry_points()
