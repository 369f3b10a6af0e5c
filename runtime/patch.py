"""A new build of a bundle out of an old one and a patch (`irsplit.delta` writes them).

    magic "IRSP", version, CRC-32 of all that follows, beginning of the old build's digest (zeros: none is needed),
    SHA-256 of the new manifest, size of the header (u32), header, blocks of bytes, byte planes

The header is a line of JSON, which says for each file that is made how, and the sizes of what follows; then the new
manifest without what the result tells by itself (digests of the files that are made, and of boundaries). All of it is
compressed by zstandard, the header with the old manifest as what came before. Files are made in blocks, so that memory
does not grow with them; the digest of the manifest verifies everything.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import RawIOBase
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from irsplit.errors import BundleError
from irsplit.progress import Progress, Steps, silent
from irsplit.runtime.boundary import Boundary
from irsplit.runtime.folders import (
    MANIFEST,
    make_durable,
    make_durable_name,
    new_folder,
    scratch_folder,
    write_file,
)
from irsplit.runtime.manifest import Manifest, manifest_text
from irsplit.runtime.packing import write_packed
from irsplit.runtime.store import is_packed

HEAD = struct.Struct("<4sBI8s32sI")
CHECKED_FROM = 9
"""Bytes of a patch before those that its CRC is of."""
MAGIC = b"IRSP"
VERSION = 2
NAME_SIZE = 8
"""Bytes of the old build's digest."""

BLOCK = 1 << 20
"""Bytes of weights, or of a copy, that are in memory at a time."""
REST_BLOCK, REST_AROUND = 4 << 20, 2 << 20
"""Other bytes: so many are compressed at a time, with the old ones at the same place and so many around as known."""
PLANE_WINDOW_LOG = 20
_HEADER_LIMIT = 1 << 28
_LARGEST_FILE = 1 << 34
_WINDOW_LIMIT = 1 << 25

Block = bytes | memoryview
Bytes = NDArray[np.uint8]
KINDS = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the new file that stand for as many of the old one: equal to them, or coded against them."""

    old: int
    new: int
    length: int
    width: int
    coding: str
    """"same", "xor", "integers" or "floats"."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Byte number `index` of all coded elements of one width; its values take `bits` bits each before zstandard."""

    width: int
    index: int
    bits: int
    size: int


def apply_delta(old: Path | None, patch: Path, new: Path, *, progress: Progress = silent) -> Manifest:
    """As `apply_patch`, for a patch in a file."""
    try:
        with patch.open("rb") as file:
            return apply_patch(old, file, str(patch), new, progress=progress)
    except OSError as error:
        raise BundleError(f"{patch}: {error.strerror}") from error


def apply_patch(old: Path | None, file: BinaryIO, patch: str, new: Path, *, progress: Progress = silent) -> Manifest:
    """Make bundle `new` of bundle `old` and a patch; it appears whole or not at all, even when the power fails.

    Either may be a packed side, by its name. `patch` is what errors call it. A patch that holds the whole build needs
    no old one. Raises BundleError when it is damaged or for another build, or a result does not have its digest.
    """
    head = _read_head(file, patch)
    before = Manifest.load(old) if old is not None and head.old else None
    mine = "" if before is None else before.digest[: 2 * NAME_SIZE]
    if head.old != mine:
        raise BundleError(f"{patch}: is for build {head.old}, {old} is {mine or 'none'}; get another patch")
    try:
        with _new_packed(new) if is_packed(new) else new_folder(new) as build:
            _Rebuild(before, file, head, build).run(progress)
            make_durable(build)
        make_durable_name(new)
    except (KeyError, TypeError, ValueError, IndexError, struct.error, zstandard.ZstdError) as error:
        raise BundleError(f"{patch}: impossible contents ({error}); get it again") from error
    return Manifest.load(new)


@contextmanager
def _new_packed(path: Path) -> Generator[Path]:
    """A temporary folder that is packed into `path` when the block ends well."""
    with scratch_folder(path) as build:
        yield build
        manifest = Manifest.load(build)
        names = [name for name in manifest.files if manifest.store.holds(name)]
        if len({name.partition("/")[0] for name in names}) != 1:
            raise BundleError(f"{path}: the patch makes both sides; make one with --place, or give a folder")
        write_file(path, lambda file: write_packed(manifest, names, file), durable=True)


@dataclass(frozen=True, slots=True)
class _Head:
    old: str
    """Beginning of the old build's digest, "" when none is needed."""
    manifest: str
    """SHA-256 of the new manifest."""
    header_size: int


def _read_head(file: BinaryIO, patch: str) -> _Head:
    """Raises BundleError for what is no patch, or damaged."""
    data = file.read(HEAD.size)
    if len(data) < HEAD.size or not data.startswith(MAGIC):
        raise BundleError(f"{patch}: is no patch; make one with 'irsplit delta'")
    _, version, crc, old, manifest, size = HEAD.unpack(data)
    if version != VERSION:
        raise BundleError(
            f"{patch}: is of version {version}, this release reads {VERSION}; make it with the same release"
        )
    found = zlib.crc32(data[CHECKED_FROM:])
    for block in _blocks_of(file):
        found = zlib.crc32(block, found)
    if found != crc:
        raise BundleError(f"{patch}: damaged; get it again")
    return _Head(old.hex() if any(old) else "", manifest.hex(), size)


class _Rebuild:
    """Makes the files of the new build in a folder."""

    def __init__(self, before: Manifest | None, file: BinaryIO, head: _Head, build: Path) -> None:
        self._before = before
        self._head = head
        self._build = build
        file.seek(HEAD.size)
        known = b"" if before is None else _read(before, MANIFEST)
        words, _, manifest = _expand_header(file.read(head.header_size), known).partition(b"\n")
        self._header: dict[str, Any] = json.loads(words)
        self._manifest: dict[str, Any] = json.loads(manifest)
        self._files: dict[str, str] = self._manifest["files"]
        rests = [size for recipe in self._header["made"].values() if recipe[0] == "coded" for size in recipe[2]]
        self._rests = _sections(file, HEAD.size + head.header_size, rests)
        planes = [Plane(*row) for row in self._header["planes"]]
        sections = _sections(file, HEAD.size + head.header_size + sum(rests), [plane.size for plane in planes])
        self._planes = {(p.width, p.index): _PlaneReader(s, p.bits) for p, s in zip(planes, sections, strict=True)}

    def run(self, progress: Progress) -> None:
        names = [name for name in self._files if name.startswith(self._header["place"])]
        steps = Steps(progress, len(names))
        for name in names:
            steps.begin(name)
            self._make(name)
        for item in self._manifest["boundaries"]:
            found = next(path for name in item["descriptor"].values() if (path := self._build / name).is_file())
            item["digest"] = Boundary.from_bytes(found.read_bytes()).digest.hex()
        text = manifest_text(self._manifest).encode()
        if hashlib.sha256(text).hexdigest() != self._head.manifest:
            if self._before is not None:
                self._before.check_files()
            raise BundleError("the result is not the build that the patch was made for; get the patch again")
        (self._build / MANIFEST).write_bytes(text)

    def _make(self, name: str) -> None:
        path = self._build / name
        if not path.resolve().is_relative_to(self._build.resolve()):
            raise ValueError(f"a file '{name}' outside of the bundle")
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = self._header["made"].get(name)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for block in self._copied(name) if recipe is None else self._blocks(name, recipe):
                digest.update(block)
                file.write(block)
        if recipe is None and digest.hexdigest() != self._files[name]:
            raise BundleError(f"{name}: differs from what the patch was made for; check the old bundle")
        self._files[name] = digest.hexdigest()

    def _copied(self, name: str) -> Iterator[Block]:
        if self._before is None:
            raise ValueError(f"'{name}' is to be copied from nothing")
        with self._before.store.open(name) as file:
            yield from _blocks_of(file)

    def _blocks(self, name: str, recipe: list[Any]) -> Iterator[Block]:
        kinds: dict[str, Callable[..., Iterator[Block]]] = {
            "as": self._as_another,
            "boundary": self._boundary,
            "coded": partial(self._coded_as, name),
        }
        return kinds[recipe[0]](*recipe[1:])

    def _as_another(self, name: str) -> Iterator[Block]:
        """The same as a file that was made before."""
        if name not in self._files:
            raise ValueError(f"no file '{name}'")
        with (self._build / name).open("rb") as file:
            yield from _blocks_of(file)

    def _boundary(self, index: int) -> Iterator[Block]:
        """The descriptor of an old boundary that crosses in the new build just so."""
        if self._before is None:
            raise ValueError("a boundary of nothing")
        yield descriptor_of(self._before.boundaries[index], self._manifest["digest"])

    def _coded_as(
        self, name: str, has_old: bool, rests: Sequence[int], rest_size: int, spans: list[int]
    ) -> Iterator[Block]:
        """A file by its recipe in the patch."""
        return self._coded(name if has_old else "", len(rests), rest_size, unpacked(spans))

    def _coded(self, base: str, rests: int, rest_size: int, spans: Sequence[Span]) -> Iterator[Block]:
        """The new file in order: spans, and between them the other bytes."""
        size = 0 if self._before is None or not base else self._before.store.size(base)
        new_size = rest_size + sum(span.length for span in spans)
        if not 0 <= new_size <= _LARGEST_FILE or any(not _fits(span, size) for span in spans):
            raise ValueError("a span or a size that no file has")
        if self._before is None or not base:
            yield from self._coded_from(None, rests, rest_size, new_size, spans)
            return
        with self._before.store.open(base) as old:
            yield from self._coded_from(Contents(old, size), rests, rest_size, new_size, spans)

    def _coded_from(
        self, old: "Contents | None", rests: int, rest_size: int, new_size: int, spans: Sequence[Span]
    ) -> Iterator[Block]:
        others = _Bytes(self._rest_blocks(old, rests, rest_size, spans))
        end = 0
        for span in spans:
            yield from others.take(span.new - end)
            for offset in range(0, span.length, BLOCK):
                assert old is not None  # a span fits in it
                before = old.read(span.old + offset, min(BLOCK, span.length - offset))
                yield before if span.coding == "same" else self._restored(span, before)
            end = span.new + span.length
        yield from others.take(new_size - end)

    def _restored(self, span: Span, before: bytes) -> bytes:
        kind = KINDS[span.width]
        count = len(before) // span.width
        coded = np.empty((count, span.width), np.uint8)
        for index in range(span.width):
            coded[:, index] = self._planes[span.width, index].take(count)
        return restored(span.coding, np.frombuffer(before, kind), coded.reshape(-1).view(kind)).tobytes()

    def _rest_blocks(self, old: "Contents | None", count: int, size: int, spans: Sequence[Span]) -> Iterator[Block]:
        known = None if old is None else OldRest(old, spans)
        if count != -(-size // REST_BLOCK):
            raise ValueError(f"{count} blocks for {size} bytes")
        for index in range(count):
            section = next(self._rests).read()
            around = b"" if known is None else known.around(index)
            yield expand(section, around, min(REST_BLOCK, size - index * REST_BLOCK))


def _blocks_of(file: BinaryIO) -> Iterator[Block]:
    """The rest of a file."""
    while block := file.read(BLOCK):
        yield block


@dataclass(frozen=True)
class Contents:
    """An open file, read where it is asked: a map of it would count as this process' memory."""

    file: BinaryIO
    size: int

    def read(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        data = self.file.read(length)
        if len(data) != length:
            raise ValueError(f"{length} bytes at {offset} of {self.size}")
        return data


@dataclass(frozen=True)
class OldRest:
    """The bytes of an old file outside of all spans, as one sequence."""

    old: Contents
    spans: Sequence[Span]

    @cached_property
    def _gaps(self) -> list[tuple[int, int]]:
        """Offset and length."""
        gaps: list[tuple[int, int]] = []
        end = 0
        for span in sorted(self.spans, key=lambda span: span.old):
            if span.old > end:
                gaps.append((end, span.old - end))
            end = max(end, span.old + span.length)
        return [*gaps, (end, self.old.size - end)]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(length for _, length in self._gaps))

    def around(self, index: int) -> bytes:
        """What is known when block `index` of the new rest is coded."""
        first, last = index * REST_BLOCK - REST_AROUND, (index + 1) * REST_BLOCK + REST_AROUND
        parts: list[bytes] = []
        for (offset, length), end in zip(self._gaps, self._ends, strict=True):
            begin = max(first, end - length)
            if begin < min(last, end):
                parts.append(self.old.read(offset + begin - (end - length), min(last, end) - begin))
        return b"".join(parts)


@dataclass
class _Bytes:
    """Blocks as one sequence to take bytes off."""

    blocks: Iterator[Block]
    left: memoryview = field(default_factory=lambda: memoryview(b""))

    def take(self, count: int) -> Iterator[Block]:
        if count < 0:
            raise ValueError("spans that overlap")
        while count:
            if not self.left:
                self.left = memoryview(next(self.blocks, b""))
                if not self.left:
                    raise ValueError("other bytes end too early")
            part, self.left = self.left[:count], self.left[count:]
            count -= len(part)
            yield part


class _PlaneReader:
    """Takes values off a plane in the order in which they were added."""

    def __init__(self, section: "_Section", bits: int) -> None:
        if bits not in (4, 8):
            raise ValueError(f"values of {bits} bits")
        self._nibbles = bits == 4
        self._left: Bytes = np.empty(0, np.uint8)
        self._reader = decompressor(max_window_size=1 << PLANE_WINDOW_LOG).stream_reader(section)  # pyright: ignore[reportArgumentType] it is only read

    def take(self, count: int) -> Bytes:
        if not self._nibbles:
            return self._read(count)
        parts = [self._left[:count]]
        wanted = count - len(parts[0])
        self._left = self._left[count:]
        if wanted:
            values = nibbles(self._read(-(-wanted // 2)))
            parts.append(values[:wanted])
            self._left = values[wanted:]
        return np.concatenate(parts)

    def _read(self, count: int) -> Bytes:
        data = self._reader.read(count)
        if len(data) != count:
            raise ValueError("a plane ends too early")
        return np.frombuffer(data, np.uint8)


class _Section(RawIOBase):
    """A part of a file that others read, too."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _sections(file: BinaryIO, offset: int, sizes: Sequence[int]) -> Iterator[_Section]:
    for size in sizes:
        if not 0 <= size <= _LARGEST_FILE:
            raise ValueError(f"a part of {size} bytes")
        yield _Section(file, offset, size)
        offset += size


def _expand_header(data: bytes, known: bytes) -> bytes:
    """Its size is not written anywhere."""
    reader = decompressor(known).stream_reader(data)
    header = bytearray()
    while block := reader.read(BLOCK):
        header += block
        if len(header) > _HEADER_LIMIT:
            raise ValueError("a header larger than any")
    return bytes(header)


def _fits(span: Span, size: int) -> bool:
    whole = span.length % span.width == 0 if span.width in KINDS else False
    return whole and span.length > 0 and 0 <= span.old <= size - span.length and span.coding in CODINGS


def _read(manifest: Manifest, name: str) -> bytes:
    with manifest.store.open(name) as file:
        return file.read()


# What both sides agree on.

CODINGS = ("same", "xor", "integers", "floats")


def packed(spans: Sequence[Span]) -> list[int]:
    """Spans as few and small numbers: distances to where the span before ends, in the new file and beyond it in the
    old one, length, width, coding."""
    numbers: list[int] = []
    new = old = 0
    for span in spans:
        gap = span.new - new
        numbers += [gap, span.old - old - gap, span.length, span.width, CODINGS.index(span.coding)]
        new, old = span.new + span.length, span.old + span.length
    return numbers


def unpacked(numbers: Sequence[int]) -> list[Span]:
    """The inverse of `packed`. Raises ValueError or IndexError for what it does not give."""
    spans: list[Span] = []
    new = old = 0
    for first in range(0, len(numbers), 5):
        gap, shift, length, width, coding = numbers[first : first + 5]
        spans.append(Span(old + gap + shift, new + gap, length, width, CODINGS[coding]))
        new, old = new + gap + length, old + gap + shift + length
    return spans


def coded(coding: str, old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """New bits against the old ones, as unsigned numbers: small where little has changed."""
    if coding == "xor":
        return old ^ new
    a, b = (ordered(old), ordered(new)) if coding == "floats" else (old, new)
    d = b - a
    return (d << np.array(1, d.dtype)) ^ (np.array(0, d.dtype) - (d >> np.array(8 * d.itemsize - 1, d.dtype)))


def restored(coding: str, old: NDArray[Any], difference: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `coded`."""
    if coding == "xor":
        return old ^ difference
    one = np.array(1, old.dtype)
    d = (difference >> one) ^ (np.array(0, old.dtype) - (difference & one))
    return ordered(ordered(old) + d, backwards=True) if coding == "floats" else old + d


def ordered(bits: NDArray[Any], backwards: bool = False) -> NDArray[Any]:
    """Bit patterns of floats as integers in the order of the floats, and back."""
    top = np.array(1, bits.dtype) << np.array(8 * bits.itemsize - 1, bits.dtype)
    negative = bits < top if backwards else bits >= top
    return np.where(negative, ~bits, bits ^ top)


def nibbles(data: Bytes) -> Bytes:
    """Two values of 4 bits a byte, the lower one first."""
    return np.stack((data & np.uint8(15), data >> np.uint8(4)), axis=1).reshape(-1)


def descriptor_of(old: Boundary, digest: str) -> bytes:
    """The descriptor of a boundary in a build with another digest."""
    return replace(old, bundle_digest=bytes.fromhex(digest)).to_bytes()


def decompressor(known: bytes = b"", max_window_size: int = _WINDOW_LIMIT) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(
        dict_data=dictionary(known), max_window_size=max_window_size, format=zstandard.FORMAT_ZSTD1_MAGICLESS
    )


def dictionary(known: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if known else None


def expand(data: bytes, known: bytes, size: int) -> bytes:
    """At most `size` bytes, which are allocated at once. Raises ZstdError for more."""
    return decompressor(known).decompress(data, max_output_size=size)
