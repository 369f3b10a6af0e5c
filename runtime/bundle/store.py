"""Where the files of a bundle lie: in a folder, or inside of the one file that `irsplit pack` makes of a side.

A packed side is a ZIP whose members are stored, each at a multiple of 64 bytes. It is mapped, never unpacked.
"""

import io
import mmap
import stat
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from irsplit.base.atomic_files import MANIFEST
from irsplit.base.digests import Content
from irsplit.base.errors import BundleError
from irsplit.base.reading import reading
from irsplit.runtime.run.engines import MappedModel, ModelFile

PACKED = ".irsb"
"""How the names of packed sides end."""
ALIGNMENT = 64
LOCAL_HEAD = struct.Struct("<4s5H3I2H")
"""Of a ZIP member: signature, version, flags, method, time, date, CRC-32, two sizes, lengths of name and extra."""
_LOCAL_MAGIC = b"PK\3\4"

_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError)
"""What zipfile raises for a file that is none, or that wants a feature which zipfile lacks."""


MOST_FILES = 4096
"""Files that a build of a bundle may have: each is a file on the disk, whatever its size."""
_LONGEST_NAME, _LONGEST_PART = 1024, 255
"""In bytes: of a name inside of a bundle, and of what stands between two slashes of it."""


def check_name(name: object) -> str:
    """A name from a manifest, a patch or a packed side. Raises ValueError unless it stays inside of the bundle.

    It has the same meaning on every system: relative, with slashes, without "..", control characters and what is
    longer than file systems take.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r:.80} is no name of a file")
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts):
        raise ValueError(f"{name!r:.80} is no name of a file in a bundle")
    if (
        len(name.encode()) > _LONGEST_NAME
        or "\\" in name
        or any(ord(sign) < 32 or ord(sign) == 127 for sign in name)
    ):
        raise ValueError(f"{name!r:.80} is no name of a file in a bundle")
    return name


class Store(Protocol):
    """Files of one build of a bundle, by their paths in the manifest."""

    root: Path
    """The folder or the packed file: what errors name."""

    def holds(self, file: str) -> bool: ...

    def size(self, file: str) -> int:
        """In bytes. Raises BundleError for a file that is not here."""
        ...

    def open(self, file: str) -> io.BufferedReader:
        """To read and seek in. Raises BundleError for a file that is not here."""
        ...

    def model(self, file: str) -> ModelFile:
        """What an engine opens. Raises BundleError for a file that is not here."""
        ...

    def content(self, file: str) -> Content:
        """What a digest is made of. Raises BundleError for a file that is not here."""
        ...

    def check_same(self) -> None:
        """Raise BundleError when another build has taken the place of this one since the store was opened."""
        ...


def open_store(bundle: Path) -> Store:
    """The files of a bundle's folder or of a packed side. Raises BundleError for what is neither."""
    if not bundle.exists():
        raise BundleError(
            f"{bundle}: no such bundle; make one with 'irsplit compile MODEL -o {bundle}'"
        )
    return PackedSide(bundle) if is_packed(bundle) else BundleFolder(bundle)


def is_bundle(path: Path) -> bool:
    """Whether a path is meant to be a bundle rather than a model: a folder, or a packed side by its name."""
    return path.is_dir() or is_packed(path)


def is_packed(path: Path) -> bool:
    """Whether a path, there or not, is meant to be a packed side."""
    return path.suffix == PACKED and not path.is_dir()


class BundleFolder:
    def __init__(self, folder: Path) -> None:
        self.root = folder
        if not (folder / MANIFEST).is_file():
            raise BundleError(
                f"{folder}: not a bundle, it has no {MANIFEST}; make one with 'irsplit compile'"
            )
        self._identity = self._identify()

    def path(self, file: str) -> Path:
        """Raises BundleError for a file outside of the folder or one that is missing."""
        path = self.root / file
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
            is_file = path.is_file()
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # a name too long, links in a circle, a NUL
            raise BundleError(
                f"{self.root / MANIFEST}: {file!r:.80}: {error}; compile the bundle again"
            ) from error
        if not inside:
            raise BundleError(
                f"{self.root / MANIFEST}: '{file}' is outside of the bundle; compile it again"
            )
        if not is_file:
            raise BundleError(
                f"{path}: missing from the bundle; copy the folder of this side whole"
            )
        return path

    def holds(self, file: str) -> bool:
        try:
            return (self.root / file).is_file()
        except (
            OSError,
            ValueError,
        ):  # a name that is too long, or a folder that may not be looked into
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
        # A bundle is replaced whole, and so its manifest is.
        if self._identify() != self._identity:
            raise BundleError(f"{self.root}: was replaced while it was in use; open it again")

    def _identify(self) -> tuple[int, ...]:
        try:
            status = (self.root / MANIFEST).stat()
        except OSError:
            return ()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class PackedSide:
    """The file stays mapped, so it is this build's even when another file takes its name."""

    def __init__(self, path: Path) -> None:
        self.root = path
        if not path.is_file():  # a pipe would be waited for, a device has no end
            raise BundleError(f"{path}: is no file; give a packed side that 'irsplit pack' wrote")
        problem, remedy = "is no packed side of a bundle", "make it with 'irsplit pack'"
        boundary = reading(path, problem, remedy, BundleError, also=_ZIP_ERRORS)
        with boundary, path.open("rb") as file, zipfile.ZipFile(file) as archive:
            self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            infos = archive.infolist()
            self._check_sizes(infos)
            self._members = {info.filename: self._member(info) for info in infos}
            count = len(infos)
        if len(self._members) != count or MANIFEST not in self._members:
            raise BundleError(
                f"{path}: is no packed side, its names are not a bundle's; make it with 'irsplit pack'"
            )

    def _check_sizes(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        """Raise ValueError for more members than a bundle has, or for members that share their bytes."""
        if len(infos) > MOST_FILES + 1:
            raise ValueError(f"{len(infos)} members, a bundle has at most {MOST_FILES} files")
        if sum(info.file_size for info in infos) > len(self._data):
            raise ValueError("its members overlap")

    def _member(self, info: zipfile.ZipInfo) -> memoryview:
        """The bytes of a member. Raises ValueError for one that `irsplit pack` does not write."""
        check_name(info.filename)
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ValueError(f"'{info.filename}' is a link or a device for whoever unpacks it")
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.flag_bits & 1
            or info.compress_size != info.file_size
        ):
            raise ValueError(f"'{info.filename}' is compressed or encrypted")
        magic, *_, name_size, extra_size = LOCAL_HEAD.unpack_from(self._data, info.header_offset)
        start = info.header_offset + LOCAL_HEAD.size
        begin = start + name_size + extra_size
        if (
            magic != _LOCAL_MAGIC
            or bytes(self._data[start : start + name_size]) != info.filename.encode()
        ):
            raise ValueError(f"'{info.filename}' is not where the directory says")
        if begin % ALIGNMENT or info.file_size > len(self._data) - begin:
            raise ValueError(
                f"'{info.filename}' is not at a multiple of {ALIGNMENT} bytes, or ends too late"
            )
        return self._data[begin : begin + info.file_size]

    def holds(self, file: str) -> bool:
        return file in self._members

    def size(self, file: str) -> int:
        return len(self._view(file))

    def open(self, file: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._view(file)), 1 << 20)

    def model(self, file: str) -> ModelFile:
        folder = f"{PurePosixPath(file).parent}/"
        names = (name for name in self._members if name.startswith(folder) and name != file)
        beside = {name.removeprefix(folder): self._members[name] for name in names}
        return MappedModel(PurePosixPath(file).name, self._view(file), beside)

    def content(self, file: str) -> Content:
        return self._view(file)

    def check_same(self) -> None:
        """It cannot change: the file is mapped."""

    def _view(self, file: str) -> memoryview:
        if file not in self._members:
            raise BundleError(
                f"{self.root}: '{file}' is not in this side; give the other one, or the bundle's folder"
            )
        return self._members[file]


class _Reader(io.RawIOBase):
    """A mapped span as a file: io.BytesIO would copy it whole."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
