"""One file of each side of a bundle: a ZIP with its members stored and aligned, so that it is mapped, never unpacked.

Only `irsplit.runtime.store` reads it; any ZIP tool does, too, and gives the folder of that side back.
"""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from irsplit.errors import BundleError
from irsplit.ir.printer import PLACES
from irsplit.runtime.folders import MANIFEST, write_file
from irsplit.runtime.manifest import Manifest
from irsplit.runtime.store import ALIGNMENT, LOCAL_HEAD, PACKED

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_PADDING = 0xD935
"""Number of an extra field that only pads: two bytes with the alignment, then zeros."""
_BLOCK = 1 << 20


def pack_bundle(bundle: Path, folder: Path) -> list[Path]:
    """Write NAME.device.irsb and NAME.server.irsb of a bundle into `folder`; of one that has one side, that one.

    The same bundle gives the same bytes. Each file appears whole or not at all. Raises BundleError for a bundle that
    is not whole, and for what cannot be written.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    sides = {place: _files(manifest, place) for place in PLACES}
    if not any(sides.values()):
        raise BundleError(f"{bundle}: has no files of any side; copy the bundle whole")
    written: list[Path] = []
    for place, names in sides.items():
        if names:
            path = folder / f"{manifest.name}.{place}{PACKED}"
            write_file(path, lambda file, names=names: _write(manifest, names, file))
            written.append(path)
    return written


def _files(manifest: Manifest, place: str) -> list[str]:
    """The files of a side, none when it is not here. Raises BundleError when it is not whole."""
    names = [name for name in manifest.files if name.startswith(f"{place}/")]
    if any(manifest.store.holds(name) for name in names):
        return [name for name in names if manifest.path(name)]
    return []


def _write(manifest: Manifest, names: Sequence[str], file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST, *names):
            info = zipfile.ZipInfo(name, _NO_TIME)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o100644 << 16
            info.file_size = manifest.path(name).stat().st_size
            info.extra = _padding(file.tell(), info)
            with manifest.path(name).open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, _BLOCK)


def _padding(offset: int, info: zipfile.ZipInfo) -> bytes:
    """The extra field behind which a member whose header lies at `offset` begins at a multiple of ALIGNMENT."""
    smallest = _PADDING.to_bytes(2, "little") + bytes(2) + ALIGNMENT.to_bytes(2, "little")
    zip64 = 20 if info.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0  # zipfile's own field, written before ours
    head = LOCAL_HEAD.size + len(info.filename.encode()) + zip64 + len(smallest)
    zeros = -(offset + head) % ALIGNMENT
    return smallest[:2] + (2 + zeros).to_bytes(2, "little") + smallest[4:] + bytes(zeros)
