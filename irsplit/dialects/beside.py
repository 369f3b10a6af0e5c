"""Files beside a model that it names: where a name leads, and that it leads nowhere else."""

from pathlib import Path

from irsplit.base.errors import ModelError, short


def file_beside(model: Path, name: str, what: str) -> tuple[Path, int]:
    """The file called `name` in the model's folder, or below, and its size; `what` lies in it, as errors say.

    Links and .. are followed first. Raises ModelError for what is missing, no regular file or outside, and for a name
    that no file can have.
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
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # too long a name; a zero byte; links in a ring
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{where}, which cannot be opened ({reason}); put the file beside the model"
        ) from error
