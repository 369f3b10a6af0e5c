"""The installed dialects: ours and those of other packages, found by name or by a file's ending."""

from functools import cache
from pathlib import Path

from irsplit.base.entry_points import entry_points, load
from irsplit.base.errors import IrsplitError, ModelError
from irsplit.dialects.base import Dialect
from irsplit.ir import Model

ENTRY_POINTS = "irsplit.dialects"


@cache
def dialect(name: str) -> Dialect:
    """The dialect called `name`. Raises IrsplitError when none or several packages offer it, naming them."""
    points = {point.value: point for point in entry_points(ENTRY_POINTS) if point.name == name}
    if not points:
        raise IrsplitError(
            f"there is no dialect '{name}'; installed dialects: {', '.join(_names())}"
        )
    if len(points) > 1:
        raise IrsplitError(
            f"two dialects are named '{name}': {' and '.join(sorted(points))}; uninstall one"
        )
    return load(next(iter(points.values())), "dialect")


def dialect_of(path: Path) -> Dialect:
    """The dialect of a model file by its ending. Raises ModelError when the file is missing or of no known kind."""
    try:
        if not path.exists():
            raise ModelError(f"{path}: no such file")
        if path.is_dir():
            raise ModelError(f"{path}: is a folder; give a model file")
    except OSError as error:  # a name that is too long, a folder that is locked
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    names = _names()
    # An ending is nearly always the dialect's name: try that first, and load the others only when it is not.
    for name in sorted(names, key=lambda name: f".{name}" != path.suffix.lower()):
        if path.suffix.lower() in dialect(name).extensions:
            return dialect(name)
    raise ModelError(
        f"{path}: unknown kind of model file '{path.suffix}'; irsplit reads {', '.join(names)}"
    )


def read_model(path: Path | str) -> Model:
    """The model in a file, of the dialect that its extension names; its weights stay in the file.

    Raises ModelError for a file that is none, UnsupportedError for what irsplit refuses rather than loses.
    """
    source = Path(path)
    return dialect_of(source).read(source)


def _names() -> list[str]:
    return sorted({point.name for point in entry_points(ENTRY_POINTS)})
