"""The format of patches between builds of a bundle, which `irsplit.compilation.delta` writes and `patch` applies.

    magic "IRSP", version, CRC-32 of all that follows, beginning of the old build's digest (zeros: none is needed),
    SHA-256 of the new manifest, size of the header (u32), header, blocks of bytes, byte planes; where the build is
    signed, "IRSS" and the signature (`irsplit.runtime.bundle.signature`), which readers that do not check it pass over

The header is a line of JSON, which says for each file that is made how, and the sizes of what follows; then the new
manifest without what the result tells by itself (digests of the files that are made, and of boundaries). All of it is
compressed by zstandard, the header with the old manifest as what came before. The digest of the manifest verifies
everything.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import RawIOBase
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from irsplit.base.errors import BundleError
from irsplit.runtime.bundle.signature import SIGNATURE_SIZE
from irsplit.runtime.frame.descriptor import FrameSchema

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
LARGEST_HEADER = 1 << 25
LARGEST_FILE = 1 << 34
LARGEST_BUILD = 1 << 36
"""Bytes of all files that a patch makes, and of a patch."""
SIGNED = b"IRSS"
"""What a signature at the end of a patch begins with."""
_WINDOW_LIMIT = 1 << 25

Block = bytes | memoryview
Bytes = NDArray[np.uint8]
CODINGS = ("same", "xor", "integers", "floats")
KINDS = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True)
class WeightSpan:
    """Bytes of the new file that stand for as many of the old one: equal to them, or coded against them."""

    old: int
    new: int
    length: int
    width: int
    coding: str
    """"same", "xor", "integers" or "floats"."""


@dataclass(frozen=True, slots=True)
class BytePlane:
    """Byte number `index` of all coded elements of one width; its values take `bits` bits each before zstandard."""

    width: int
    index: int
    bits: int
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    old: str
    """Beginning of the old build's digest, "" when none is needed."""
    manifest: str
    """SHA-256 of the new manifest."""
    header_size: int
    size: int
    """Bytes of the whole patch."""
    signature: bytes
    """Of the manifest; b"" for a patch that is not signed."""


def read_head(file: BinaryIO, patch: str) -> Head:
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
    for block in blocks_of(file):
        found = zlib.crc32(block, found)
    end = file.tell()
    if found != crc or size > min(end - HEAD.size, LARGEST_HEADER):
        raise BundleError(f"{patch}: damaged; get it again")
    return Head(
        old.hex() if any(old) else "", manifest.hex(), size, end, _read_signature(file, end)
    )


def _read_signature(file: BinaryIO, end: int) -> bytes:
    size = len(SIGNED) + SIGNATURE_SIZE
    file.seek(max(end - size, HEAD.size))
    data = file.read(size)
    return data[len(SIGNED) :] if len(data) == size and data.startswith(SIGNED) else b""


def expand_header(data: bytes, known: bytes) -> bytes:
    """Its size is not written anywhere."""
    header = _expand_at_most(data, known, LARGEST_HEADER)
    if len(header) > LARGEST_HEADER:
        raise ValueError("a header larger than any")
    return header


class Section(RawIOBase):
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


def sections(file: BinaryIO, offset: int, sizes: Sequence[int]) -> Iterator[Section]:
    for size in sizes:
        if not 0 <= size <= LARGEST_FILE:
            raise ValueError(f"a part of {size} bytes")
        yield Section(file, offset, size)
        offset += size


class PlaneReader:
    """Takes values off a plane in the order in which they were added."""

    def __init__(self, section: Section, bits: int) -> None:
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


def blocks_of(file: BinaryIO) -> Iterator[Block]:
    """The rest of a file."""
    while block := file.read(BLOCK):
        yield block


def packed(spans: Sequence[WeightSpan]) -> list[int]:
    """Spans as few and small numbers: distances to where the span before ends, in the new file and beyond it in the
    old one, length, width, coding."""
    numbers: list[int] = []
    new = old = 0
    for span in spans:
        gap = span.new - new
        numbers += [gap, span.old - old - gap, span.length, span.width, CODINGS.index(span.coding)]
        new, old = span.new + span.length, span.old + span.length
    return numbers


def unpacked(numbers: Sequence[int]) -> list[WeightSpan]:
    """The inverse of `packed`. Raises ValueError or IndexError for what it does not give."""
    spans: list[WeightSpan] = []
    new = old = 0
    for first in range(0, len(numbers), 5):
        gap, shift, length, width, coding = numbers[first : first + 5]
        spans.append(WeightSpan(old + gap + shift, new + gap, length, width, CODINGS[coding]))
        new, old = new + gap + length, old + gap + shift + length
    return spans


def fits(span: WeightSpan, size: int) -> bool:
    """Whether a span lies in an old file of `size` bytes."""
    whole = span.length % span.width == 0 if span.width in KINDS else False
    return (
        whole and span.length > 0 and 0 <= span.old <= size - span.length and span.coding in CODINGS
    )


def coded(coding: str, old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """New bits against the old ones, as unsigned numbers: small where little has changed."""
    if coding == "xor":
        return old ^ new
    a, b = (ordered(old), ordered(new)) if coding == "floats" else (old, new)
    d = b - a
    return (d << np.array(1, d.dtype)) ^ (
        np.array(0, d.dtype) - (d >> np.array(8 * d.itemsize - 1, d.dtype))
    )


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
    spans: Sequence[WeightSpan]

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
        first, last = (
            max(index * REST_BLOCK - REST_AROUND, 0),
            (index + 1) * REST_BLOCK + REST_AROUND,
        )
        parts: list[bytes] = []
        for number in range(bisect_right(self._ends, first), len(self._gaps)):
            (offset, length), end = self._gaps[number], self._ends[number]
            start = end - length
            if start >= last:
                break
            begin = max(first, start)
            parts.append(self.old.read(offset + begin - start, min(last, end) - begin))
        return b"".join(parts)


def descriptor_of(old: FrameSchema, digest: str) -> bytes:
    """The descriptor of a boundary in a build with another digest."""
    return replace(old, bundle_digest=bytes.fromhex(digest)).to_bytes()


def expand(data: bytes, known: bytes, size: int) -> bytes:
    """The `size` bytes that were compressed. Raises ZstdError or ValueError for data that has more or fewer."""
    expanded = _expand_at_most(data, known, size)
    if len(expanded) != size:
        raise ValueError(f"a block of other than {size} bytes")
    return expanded


def _expand_at_most(data: bytes, known: bytes, limit: int) -> bytes:
    """What was compressed, but no more than a byte beyond `limit`.

    `ZstdDecompressor.decompress` would allocate what the data say of their size, whatever `max_output_size` is.
    """
    reader = decompressor(known).stream_reader(data)
    expanded = bytearray()
    while len(expanded) <= limit and (block := reader.read(min(BLOCK, limit + 1 - len(expanded)))):
        expanded += block
    return bytes(expanded)


def decompressor(
    known: bytes = b"", max_window_size: int = _WINDOW_LIMIT
) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(
        dict_data=dictionary(known),
        max_window_size=max_window_size,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )


def dictionary(known: bytes) -> zstandard.ZstdCompressionDict | None:
    return (
        zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        if known
        else None
    )
