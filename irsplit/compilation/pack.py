"""One file of each side of a bundle: a ZIP with its members stored and aligned, so that it is mapped, never unpacked.

Only `irsplit.runtime.bundle.store` reads it; any ZIP tool does, too, and gives the folder of that side back.
"""

from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import BundleError
from irsplit.ir.printer import PLACES
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.packing import write_packed
from irsplit.runtime.bundle.store import PACKED, check_name


def pack(bundle: Path | str, folder: Path | str) -> list[Path]:
    """Write NAME.device.irsb and NAME.server.irsb of a bundle into `folder`; of one that has one side, that one.

    The same bundle gives the same bytes. Each file appears whole or not at all. Raises BundleError for a bundle that
    is not whole, and for what cannot be written.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    if not _is_name(manifest.name):
        raise BundleError(
            f"{bundle}: its name {manifest.name!r:.80} is none of a file; compile the bundle again"
        )
    sides = {place: _files(manifest, place) for place in PLACES}
    if not any(sides.values()):
        raise BundleError(f"{bundle}: has no files of any side; copy the bundle whole")
    written: list[Path] = []
    for place, names in sides.items():
        if names:
            path = Path(folder) / f"{manifest.name}.{place}{PACKED}"
            write_file(path, lambda file, names=names: write_packed(manifest, names, file))
            written.append(path)
    return written


def _is_name(name: str) -> bool:
    """Whether files in a folder may be called so: the name of a bundle may come from a stranger."""
    try:
        check_name(name)
    except ValueError:
        return False
    return "/" not in name


def _files(manifest: Manifest, place: str) -> list[str]:
    """The files of a side, none when it is not here. Raises BundleError when it is not whole."""
    names = [name for name in manifest.files if name.startswith(f"{place}/")]
    if any(manifest.store.holds(name) for name in names):
        return [name for name in names if manifest.path(name)]
    return []
