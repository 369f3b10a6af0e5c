"""Writes the one file of a bundle's side that `irsplit.runtime.bundle.store` reads."""

import shutil
import zipfile
from collections.abc import Sequence
from typing import IO

from irsplit.base.atomic_files import MANIFEST
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import ALIGNMENT, LOCAL_HEAD

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_PADDING = 0xD935
"""Number of an extra field that only pads: two bytes with the alignment, then zeros."""
_BLOCK = 1 << 20


def write_packed(manifest: Manifest, names: Sequence[str], file: IO[bytes]) -> None:
    """Write the manifest and these files of a bundle's folder: a ZIP, its members stored and aligned.

    The same files give the same bytes.
    """
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
    zip64 = (
        20 if info.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0
    )  # zipfile's own field, written before ours
    head = LOCAL_HEAD.size + len(info.filename.encode()) + zip64 + len(smallest)
    zeros = -(offset + head) % ALIGNMENT
    return smallest[:2] + (2 + zeros).to_bytes(2, "little") + smallest[4:] + bytes(zeros)
