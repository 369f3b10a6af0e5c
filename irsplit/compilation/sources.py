"""Where this machine has the model that a bundle was compiled from.

A bundle names its source by file name and digest alone, so that the same model gives the same
bundle wherever it lies. An index beside the user's caches remembers the path, and lets
`irsplit verify BUNDLE` find the model again.
"""

import contextlib
import os
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import BundleError
from irsplit.base.reading import read_text
from irsplit.runtime.bundle.manifest import Manifest, file_digest


def remember(model: Path, sha256: str) -> None:
    """Note where the model with this digest lies.

    Nothing happens where the cache cannot be written.
    """
    with contextlib.suppress(BundleError):
        write_file(_index() / sha256, lambda file: file.write(str(model.resolve()).encode()))


def find(manifest: Manifest, path: Path | None = None) -> Path:
    """Find the source model of a bundle.

    Args:
        manifest: The bundle's.
        path: Where the model lies; by default it is looked for at the remembered place, and by
            its name near the bundle.

    Raises:
        BundleError: No file there has the digest in the manifest, or a data file beside the model
            has another one.
    """
    bundle = manifest.folder
    file, sha256 = manifest.raw["source"]["file"], manifest.raw["source"]["sha256"]
    if path is not None:
        if not path.is_file():
            raise BundleError("no such file", where=str(path))
        if file_digest(path) != sha256:
            raise BundleError(
                f"is not the model that {bundle} was compiled from",
                where=str(path),
                remedy=f"give {file}",
            )
        _check_data(path, manifest)
        return path

    candidates = _remembered(_index() / sha256)
    candidates += [folder / file for folder in (bundle, bundle.resolve().parent, Path.cwd())]
    for candidate in candidates:
        if candidate.is_file() and file_digest(candidate) == sha256:
            _check_data(candidate, manifest)
            return candidate
    raise BundleError(
        f"its source model {file} is not where it was",
        where=str(bundle),
        remedy="say where it is with `model`",
    )


def _remembered(index: Path) -> list[Path]:
    """Where the model was; nothing when it was never noted, or the note is damaged."""
    try:
        text = read_text(index)
    except (OSError, ValueError):
        return []
    return [Path(text)] if text and "\0" not in text else []


def _check_data(model: Path, manifest: Manifest) -> None:
    """Raise BundleError for a changed data file: the graph says nothing of weights in those."""
    # The first source file is the model itself.
    for entry in manifest.raw.get("provenance", {}).get("source_files", [])[1:]:
        path = model.parent / entry["file"]
        expected = entry.get("sha256")  # older bundles have none
        if expected is not None and (not path.is_file() or file_digest(path) != expected):
            raise BundleError(
                f"is not the data file that {manifest.folder} was compiled from",
                where=str(path),
                remedy="put it back or compile again",
            )


def _index() -> Path:
    """The folder of the notes, one file per digest."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "irsplit" / "sources"
