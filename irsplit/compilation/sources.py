"""Where this machine has the model that a bundle was compiled from: remembered beside the user's caches.

A bundle names its source by file name and digest alone, so that the same model gives the same bundle wherever it
lies; this index lets `irsplit verify BUNDLE` find it again.
"""

import contextlib
import os
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import BundleError
from irsplit.base.reading import read_text
from irsplit.runtime.bundle.manifest import Manifest, file_digest


def remember(model: Path, sha256: str) -> None:
    """Note where the model with this digest lies. Nothing happens where the cache cannot be written."""
    with contextlib.suppress(BundleError):
        write_file(_index() / sha256, lambda file: file.write(str(model.resolve()).encode()))


def find(manifest: Manifest, given: Path | None = None) -> Path:
    """The source model of a bundle: `given`, the remembered path, or a file of its name near the bundle.

    Raises BundleError when none of them has the digest in the manifest, when a data file beside it has another, and
    for one packed side of a bundle.
    """
    bundle = manifest.folder
    file, sha256 = manifest.raw["source"]["file"], manifest.raw["source"]["sha256"]
    if given is not None:
        if not given.is_file():
            raise BundleError(f"{given}: no such file")
        if file_digest(given) != sha256:
            raise BundleError(
                f"{given}: is not the model that {bundle} was compiled from; give {file}"
            )
        _check_data(given, manifest)
        return given
    remembered = _index() / sha256
    candidates = _remembered(remembered)
    candidates += [folder / file for folder in (bundle, bundle.resolve().parent, Path.cwd())]
    for candidate in candidates:
        if candidate.is_file() and file_digest(candidate) == sha256:
            _check_data(candidate, manifest)
            return candidate
    raise BundleError(
        f"{bundle}: its source model {file} is not where it was; say where with --model PATH"
    )


def _remembered(index: Path) -> list[Path]:
    """Where the model was; nothing when it was never noted, or the note is damaged."""
    try:
        text = read_text(index)
    except (OSError, ValueError):
        return []
    return [Path(text)] if text and "\0" not in text else []


def _check_data(model: Path, manifest: Manifest) -> None:
    """The graph says nothing of weights that lie in files beside it."""
    for entry in manifest.raw.get("provenance", {}).get("source_files", [])[1:]:
        path = model.parent / entry["file"]
        expected = entry.get("sha256")  # older bundles have none
        if expected is not None and (not path.is_file() or file_digest(path) != expected):
            raise BundleError(
                f"{path}: is not the data file that {manifest.folder} was compiled from; put it back or compile again"
            )


def _index() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "irsplit" / "sources"
