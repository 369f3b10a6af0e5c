"""One file for each side of a bundle: a ZIP with its members stored and aligned.

Such a file is mapped, never unpacked: `irsplit.runtime.bundle.store` reads it. Any ZIP tool reads
it too, and gives back the folder of that side.
"""

from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import BundleError
from irsplit.ir.printer import PLACES
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.packing import write_packed
from irsplit.runtime.bundle.store import PACKED, check_name


def pack(bundle: Path | str, folder: Path | str) -> list[Path]:
    """Pack each side of a bundle into one file, as `irsplit pack` does.

    Args:
        bundle: The bundle's folder.
        folder: Where NAME.device.irsb and NAME.server.irsb go. Each file appears whole or not at
            all; the same bundle gives the same bytes.

    Returns:
        The files, the device's first; one file where the bundle has one side only.

    Raises:
        BundleError: The bundle is not whole, or a file cannot be written.

    Example:
        >>> [path.name for path in pack("build/digits", "build/packed")]
        ['digits.device.irsb', 'digits.server.irsb']
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    if not _is_file_name(manifest.name):
        raise BundleError(
            f"its name {manifest.name!r:.80} is none of a file",
            where=str(bundle),
            remedy="compile the bundle again",
        )
    sides = {placement: _files(manifest, placement) for placement in PLACES}
    if not any(sides.values()):
        raise BundleError(
            "has no files of any side", where=str(bundle), remedy="copy the bundle whole"
        )

    written: list[Path] = []
    for placement, names in sides.items():
        if names:
            path = Path(folder) / f"{manifest.name}.{placement}{PACKED}"
            write_file(path, lambda file, names=names: write_packed(manifest, names, file))
            written.append(path)
    return written


def _is_file_name(name: str) -> bool:
    """Whether a file may have this name, which a stranger may have chosen."""
    try:
        check_name(name)
    except ValueError:
        return False
    return "/" not in name


def _files(manifest: Manifest, placement: str) -> list[str]:
    """The files of a side; none when the side is not here.

    Raises:
        BundleError: Some of its files are here, and some are not.
    """
    names = [name for name in manifest.files if name.startswith(f"{placement}/")]
    if not any(manifest.store.holds(name) for name in names):
        return []
    return [name for name in names if manifest.path(name)]
