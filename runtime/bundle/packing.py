"""Writes a packed side: one side of a bundle as one file, which `store` reads."""

import shutil
import zipfile
from collections.abc import Sequence
from typing import IO

from irsplit.base.atomic_files import MANIFEST
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import ALIGNMENT, LOCAL_HEAD

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_PADDING = 0xD935
"""Identifier of an extra field that only pads: two bytes with the alignment, then zeros."""
_ZIP64_FIELD = 20
"""Bytes of the extra field that zipfile writes before ours for a large member."""
_BLOCK = 1 << 20


def write_packed(manifest: Manifest, names: Sequence[str], file: IO[bytes]) -> None:
    """Write a ZIP file whose members are stored and aligned. The same files give the same bytes.

    Args:
        manifest: A bundle in a folder. Its manifest becomes the first member.
        names: The bundle's files to pack, by their paths in the bundle.
        file: Where to write, from its current position on.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST, *names):
            path = manifest.path(name)
            info = zipfile.ZipInfo(name, _NO_TIME)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o100644 << 16
            info.file_size = path.stat().st_size
            info.extra = _padding(file.tell(), info)
            with path.open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, _BLOCK)


def _padding(offset: int, info: zipfile.ZipInfo) -> bytes:
    """The extra field that moves a member's contents to a multiple of ALIGNMENT.

    Args:
        offset: Where the member's local header begins.
        info: The member.
    """
    identifier, alignment = _PADDING.to_bytes(2, "little"), ALIGNMENT.to_bytes(2, "little")
    # zipfile uses its own field from this size on.
    before = _ZIP64_FIELD if info.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0
    smallest = len(identifier) + 2 + len(alignment)

    contents = offset + LOCAL_HEAD.size + len(info.filename.encode()) + before + smallest
    zeros = -contents % ALIGNMENT
    size = len(alignment) + zeros
    return identifier + size.to_bytes(2, "little") + alignment + bytes(zeros)
