"""Files beside a model that the model names: finds them, and refuses names that lead elsewhere."""

from pathlib import Path

from irsplit.base.errors import ModelError, short


def file_beside(model: Path, name: str, what: str) -> tuple[Path, int]:
    """Find a file in the model's folder or below it.

    Links and `..` are resolved before the check, so neither leads out of the folder.

    Args:
        model: The model file that names the other file.
        name: The name in the model, relative to its folder.
        what: What lies in the file, for error messages.

    Returns:
        The resolved path of the file, and its size in bytes.

    Raises:
        ModelError: The file is missing, outside the folder or not a regular file, or no file can
            have such a name.
    """
    where = f"{model}: {what} lies in '{short(name)}'"
    try:
        folder = model.parent.resolve()
        path = (folder / name).resolve(strict=False)
        if not name or not path.is_relative_to(folder):
            raise ModelError(f"{where}, outside the model's folder; copy the file beside the model")
        if not path.is_file():
            raise ModelError(f"{where}, which is missing; put the file beside the model")
        return path, path.stat().st_size

    # The name is too long (OSError), has a zero byte (ValueError), or links form a ring.
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{where}, which cannot be opened ({reason}); put the file beside the model"
        ) from error
