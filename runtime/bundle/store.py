"""Access to the files of a bundle, in a folder or in the one file that `irsplit pack` writes.

A packed side is a ZIP file whose members are stored without compression, each at a multiple of 64
bytes. It is mapped into memory and never unpacked.
"""

import io
import mmap
import re
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from irsplit.base.atomic_files import MANIFEST
from irsplit.base.digests import Content
from irsplit.base.errors import BundleError
from irsplit.base.reading import reading

PACKED = ".irsb"
"""The suffix of packed sides."""
ALIGNMENT = 64
"""The contents of every member of a packed side begin at a multiple of so many bytes."""
LOCAL_HEAD = struct.Struct("<4s5H3I2H")
"""Local header of a ZIP member: signature, version, flags, method, time, date, CRC-32, two sizes,
lengths of name and extra field."""
MOST_FILES = 4096
"""Limit on the files of a bundle, since each takes room on the disk whatever its size."""

_LOCAL_MAGIC = b"PK\3\4"
_LONGEST_NAME = 1024
"""Longest name of a file in a bundle, in bytes."""
_LONGEST_COMPONENT = 255
"""Longest component of such a name between two slashes, in bytes."""
_SPECIAL_COMPONENTS = {"", ".", ".."}
_SPECIAL_LETTERS = re.compile(r"[\x00-\x1f\x7f\\]")
"""Control characters, and the separator of another system."""
_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError)
"""What zipfile raises for a file that is no ZIP, or that needs a feature which zipfile lacks."""


@dataclass(frozen=True, slots=True)
class MappedModel:
    """A model file that lies inside of a larger, mapped file.

    Attributes:
        name: The file's name.
        data: Its contents.
        beside: The contents of the other files in its folder, by name: external weights.
    """

    name: str
    data: memoryview
    beside: Mapping[str, memoryview]


ModelFile = Path | MappedModel
"""What an engine opens."""


def check_name(name: object) -> str:
    """Check the name of a file in a manifest, a patch or a packed side.

    A valid name means the same on every system: it is relative, separated by slashes, and without
    "..", control characters, or more letters than file systems take.

    Returns:
        The name itself.

    Raises:
        ValueError: The name is none, or leaves the bundle.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r:.80} is no name of a file")

    components = name.split("/")
    longest = max(len(component.encode()) for component in components)
    too_long = len(name.encode()) > _LONGEST_NAME or longest > _LONGEST_COMPONENT

    # An empty component is a slash at an end or two in a row.
    special = not _SPECIAL_COMPONENTS.isdisjoint(components)
    if too_long or special or _SPECIAL_LETTERS.search(name):
        raise ValueError(f"{name!r:.80} is no name of a file in a bundle")
    return name


class Store(Protocol):
    """The files of one build of a bundle, by their paths in the manifest.

    Every method that takes a file raises BundleError, except `holds`, when the file is missing.
    """

    root: Path
    """The folder or the packed file, which errors name."""

    def holds(self, file: str) -> bool:
        """Whether the file is present."""
        ...

    def size(self, file: str) -> int:
        """Size of the file in bytes."""
        ...

    def open(self, file: str) -> io.BufferedReader:
        """The file, to read and to seek in."""
        ...

    def model(self, file: str) -> ModelFile:
        """The file as an engine opens it."""
        ...

    def content(self, file: str) -> Content:
        """The file as `Digests` reads it."""
        ...

    def check_same(self) -> None:
        """Raise BundleError when another build has replaced this one since the store was opened."""
        ...


def open_store(bundle: Path) -> Store:
    """Open the files of a bundle's folder or of a packed side.

    Raises:
        BundleError: The path is neither.
    """
    if not bundle.exists():
        raise BundleError(
            f"{bundle}: no such bundle; make one with 'irsplit compile MODEL -o {bundle}'"
        )
    return PackedSide(bundle) if is_packed(bundle) else BundleFolder(bundle)


def is_bundle(path: Path) -> bool:
    """Whether a path means a bundle and no model: a folder, or a packed side by its name."""
    return path.is_dir() or is_packed(path)


def is_packed(path: Path) -> bool:
    """Whether a path means a packed side by its name, even if nothing is there."""
    return path.suffix == PACKED and not path.is_dir()


class BundleFolder:
    """A bundle as a folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        if not (folder / MANIFEST).is_file():
            raise BundleError(
                f"{folder}: not a bundle, it has no {MANIFEST}; make one with 'irsplit compile'"
            )

        self._identity = self._identify()

    def path(self, file: str) -> Path:
        """The path of a file. Raises BundleError for one that is missing or outside."""
        path = self.root / file
        manifest = self.root / MANIFEST
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
            is_file = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            # The name is too long or holds a NUL, or links lead in a circle.
            raise BundleError(
                f"{manifest}: {file!r:.80}: {error}; compile the bundle again"
            ) from error

        if not inside:
            raise BundleError(f"{manifest}: '{file}' is outside of the bundle; compile it again")
        if not is_file:
            raise BundleError(
                f"{path}: missing from the bundle; copy the folder of this side whole"
            )
        return path

    def holds(self, file: str) -> bool:
        try:
            return (self.root / file).is_file()
        except (OSError, ValueError):
            # The name is too long, or a folder may not be looked into.
            return False

    def size(self, file: str) -> int:
        return self.path(file).stat().st_size

    def open(self, file: str) -> io.BufferedReader:
        return self.path(file).open("rb")

    def model(self, file: str) -> ModelFile:
        return self.path(file)

    def content(self, file: str) -> Content:
        return self.path(file)

    def check_same(self) -> None:
        # A bundle is replaced as a whole, and so is its manifest.
        if self._identify() != self._identity:
            raise BundleError(f"{self.root}: was replaced while it was in use; open it again")

    def _identify(self) -> tuple[int, ...]:
        """What differs between two manifests at the same path; nothing when there is none."""
        try:
            status = (self.root / MANIFEST).stat()
        except OSError:
            return ()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class PackedSide:
    """One side of a bundle as one mapped file.

    It stays the build that was opened even when another file takes its name.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        # Opening a pipe would wait for a writer, and a device never ends.
        if not path.is_file():
            raise BundleError(f"{path}: is no file; give a packed side that 'irsplit pack' wrote")

        problem, remedy = "is no packed side of a bundle", "make it with 'irsplit pack'"
        damage = reading(path, problem, remedy, BundleError, also=_ZIP_ERRORS)
        with damage, path.open("rb") as file, zipfile.ZipFile(file) as archive:
            self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            infos = archive.infolist()
            self._check_sizes(infos)
            self._members = {info.filename: self._member(info) for info in infos}

        if len(self._members) != len(infos) or MANIFEST not in self._members:
            raise BundleError(
                f"{path}: is no packed side, its names are not a bundle's; "
                "make it with 'irsplit pack'"
            )

    def _check_sizes(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        """Raise ValueError for more members than a bundle has, or for members that overlap."""
        if len(infos) > MOST_FILES + 1:
            raise ValueError(f"{len(infos)} members, a bundle has at most {MOST_FILES} files")

        if sum(info.file_size for info in infos) > len(self._data):
            raise ValueError("its members overlap")

    def _member(self, info: zipfile.ZipInfo) -> memoryview:
        """The bytes of a member. Raises ValueError for one that `irsplit pack` does not write."""
        name = check_name(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"'{name}' is a link or a device for whoever unpacks it")

        # Contents that are stored as they are can be read where they lie.
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored or info.flag_bits & 1:
            raise ValueError(f"'{name}' is compressed or encrypted")

        # The directory of a ZIP file says where a member's local header begins. The contents
        # follow the header, the name and the extra field.
        magic, *_, name_size, extra_size = LOCAL_HEAD.unpack_from(self._data, info.header_offset)
        start = info.header_offset + LOCAL_HEAD.size
        begin = start + name_size + extra_size
        if magic != _LOCAL_MAGIC or bytes(self._data[start : start + name_size]) != name.encode():
            raise ValueError(f"'{name}' is not where the directory says")

        if begin % ALIGNMENT or info.file_size > len(self._data) - begin:
            raise ValueError(
                f"'{name}' is not at a multiple of {ALIGNMENT} bytes, or ends too late"
            )
        return self._data[begin : begin + info.file_size]

    def holds(self, file: str) -> bool:
        return file in self._members

    def size(self, file: str) -> int:
        return len(self._view(file))

    def open(self, file: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._view(file)), 1 << 20)

    def model(self, file: str) -> ModelFile:
        # External weights lie in the folder of their model.
        folder = f"{PurePosixPath(file).parent}/"
        beside: dict[str, memoryview] = {}
        for name, view in self._members.items():
            if name.startswith(folder) and name != file:
                beside[name.removeprefix(folder)] = view

        return MappedModel(PurePosixPath(file).name, self._view(file), beside)

    def content(self, file: str) -> Content:
        return self._view(file)

    def check_same(self) -> None:
        """Do nothing: the file is mapped and cannot be replaced."""

    def _view(self, file: str) -> memoryview:
        if file not in self._members:
            raise BundleError(
                f"{self.root}: '{file}' is not in this side; give the other one, or the bundle's "
                "folder"
            )
        return self._members[file]


class _Reader(io.RawIOBase):
    """A mapped span as a file. `io.BytesIO` would copy all of it."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}

        self._position = max(origins[whence] + offset, 0)
        return self._position

    def readinto(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, buffer: memoryview
    ) -> int:
        block = self._data[self._position : self._position + len(buffer)]
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)
