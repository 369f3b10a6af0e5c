"""The installed dialects, ours and those of other packages: by name or by a file's extension."""

from functools import cache
from pathlib import Path

from irsplit.base.entry_points import entry_points, load
from irsplit.base.errors import IrsplitError, ModelError
from irsplit.dialects.base import Dialect
from irsplit.ir import Model

ENTRY_POINTS = "irsplit.dialects"


@cache
def dialect(name: str) -> Dialect:
    """Return the dialect called `name`.

    Raises:
        IrsplitError: No package offers the dialect, or several do.
    """
    points = {point.value: point for point in entry_points(ENTRY_POINTS) if point.name == name}
    if not points:
        installed = ", ".join(installed_dialects())
        raise IrsplitError(f"there is no dialect '{name}'; installed dialects: {installed}")
    if len(points) > 1:
        rivals = " and ".join(sorted(points))
        raise IrsplitError(f"two dialects are named '{name}': {rivals}; uninstall one")

    return load(next(iter(points.values())), "dialect")


def installed_dialects() -> list[str]:
    """Names of all dialects, in alphabetical order."""
    return sorted({point.name for point in entry_points(ENTRY_POINTS)})


def dialect_of(path: Path) -> Dialect:
    """Return the dialect of a model file, chosen by the file's extension.

    Raises:
        ModelError: The file is missing, or no dialect has its extension.
    """
    _check_is_file(path)
    extension = path.suffix.lower()
    names = installed_dialects()

    # The extension is nearly always the dialect's name. Ask that dialect first, so that the others
    # need not be loaded.
    for name in sorted(names, key=lambda name: f".{name}" != extension):
        if extension in dialect(name).extensions:
            return dialect(name)
    raise ModelError(
        f"{path}: unknown kind of model file '{path.suffix}'; irsplit reads {', '.join(names)}"
    )


def read_model(path: Path | str) -> Model:
    """Read a model file in the dialect that its extension names. The weights stay in the file.

    Args:
        path: An .onnx or .tflite file, or one of an installed dialect.

    Raises:
        ModelError: The file is missing, damaged or no model.
        UnsupportedError: The file holds something that irsplit could not carry without loss.

    Example:
        >>> model = irsplit.read_model("examples/digits/digits.onnx")
        >>> model.dialect
        'onnx'
    """
    source = Path(path)
    return dialect_of(source).read(source)


def _check_is_file(path: Path) -> None:
    """Raise ModelError unless there is something other than a folder at the path."""
    try:
        if not path.exists():
            raise ModelError(f"{path}: no such file")
        if path.is_dir():
            raise ModelError(f"{path}: is a folder; give a model file")
    except OSError as error:  # the name is too long, or a folder is locked
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path") from error
