"""The format of patches, which `irsplit.compilation.delta` writes and `patch` applies.

A patch is, in this order:

    magic "IRSP", version, CRC-32 of everything that follows
    beginning of the old build's digest (zeros: none is needed)
    SHA-256 of the new manifest
    size of the header (u32)
    header
    blocks of bytes
    byte planes
    "IRSS" and the signature of the new manifest, where the build is signed

The header is a line of JSON that says how each file is made and gives the sizes of what follows.
After that line comes the new manifest, without what the result tells by itself: the digests of
files that are made, and of boundaries. Blocks and planes hold the bytes that the old build lacks.
Everything is compressed by zstandard, the header with the old manifest as its dictionary. The
digest of the new manifest verifies the result. Readers that do not check the signature
(`irsplit.runtime.bundle.signature`) pass over it.
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
"""Offset of the first byte that the CRC covers."""
MAGIC = b"IRSP"
VERSION = 2
NAME_SIZE = 8
"""Bytes of the old build's digest."""

BLOCK = 1 << 20
"""Bytes of weights, or of a copy, that are in memory at a time."""
REST_BLOCK = 4 << 20
"""Bytes outside of all spans that are compressed at a time."""
REST_AROUND = 2 << 20
"""The dictionary of such a block is the old bytes at the same place, and so many on both sides."""
PLANE_WINDOW_LOG = 20
LARGEST_HEADER = 1 << 25
LARGEST_FILE = 1 << 34
LARGEST_BUILD = 1 << 36
"""Largest total of all files that a patch makes, and largest patch, in bytes."""
SIGNED = b"IRSS"
"""Magic before the signature at the end of a patch."""
_WINDOW_LIMIT = 1 << 25

Block = bytes | memoryview
Bytes = NDArray[np.uint8]
CODINGS = ("same", "xor", "integers", "floats")
"""Codings of a span by their number in the format."""
KINDS = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}
"""Types of the elements of a span, by width in bytes."""


@dataclass(frozen=True, slots=True)
class WeightSpan:
    """A run of bytes in a new file that is made from as many bytes of the old one.

    Attributes:
        old: Offset in the old file.
        new: Offset in the new file.
        length: Bytes.
        width: Bytes of an element.
        coding: "same" when the bytes are equal; "xor", "integers" or "floats" when the elements are
            coded as differences.
    """

    old: int
    new: int
    length: int
    width: int
    coding: str


@dataclass(frozen=True, slots=True)
class BytePlane:
    """Byte number `index` of all coded elements of one width, in one compressed stream.

    Attributes:
        width: Bytes of an element.
        index: Which of its bytes, from the lowest.
        bits: Bits of each value before zstandard: 4 or 8.
        size: Compressed size in bytes.
    """

    width: int
    index: int
    bits: int
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """The fixed fields of a patch.

    Attributes:
        old: Beginning of the old build's digest in hexadecimal; "" when none is needed.
        manifest: SHA-256 of the new manifest, in hexadecimal.
        header_size: Compressed bytes of the header.
        size: Bytes of the whole patch.
        signature: Signature of the manifest; empty for a patch that is not signed.
    """

    old: str
    manifest: str
    header_size: int
    size: int
    signature: bytes


def read_head(file: BinaryIO, patch: str) -> Head:
    """Read the fixed fields and verify the checksum of the whole patch.

    Args:
        file: The patch, at its beginning.
        patch: What errors call it.

    Raises:
        BundleError: The file is no patch, is damaged, or is of another version.
    """
    data = file.read(HEAD.size)
    if len(data) < HEAD.size or not data.startswith(MAGIC):
        raise BundleError(f"{patch}: is no patch; make one with 'irsplit delta'")

    _, version, crc, old, manifest, size = HEAD.unpack(data)
    if version != VERSION:
        raise BundleError(
            f"{patch}: is of version {version}, this release reads {VERSION}; "
            "make it with the same release"
        )

    computed = zlib.crc32(data[CHECKED_FROM:])
    for block in blocks_of(file):
        computed = zlib.crc32(block, computed)
    end = file.tell()
    if computed != crc or size > min(end - HEAD.size, LARGEST_HEADER):
        raise BundleError(f"{patch}: damaged; get it again")

    old_name = old.hex() if any(old) else ""
    return Head(old_name, manifest.hex(), size, end, _read_signature(file, end))


def _read_signature(file: BinaryIO, end: int) -> bytes:
    size = len(SIGNED) + SIGNATURE_SIZE
    file.seek(max(end - size, HEAD.size))
    data = file.read(size)
    return data[len(SIGNED) :] if len(data) == size and data.startswith(SIGNED) else b""


def expand_header(data: bytes, raw_dictionary: bytes) -> bytes:
    """Decompress a header, whose size is written nowhere.

    Args:
        data: The compressed header.
        raw_dictionary: The old manifest; empty without one.

    Raises:
        ValueError: The header is larger than any that a patch has.
    """
    header = _expand_at_most(data, raw_dictionary, LARGEST_HEADER)
    if len(header) > LARGEST_HEADER:
        raise ValueError("a header larger than any")
    return header


class Section(RawIOBase):
    """A part of a file as a file of its own, while others read the same file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, buffer: memoryview
    ) -> int:
        self._file.seek(self._position)
        data = self._file.read(min(len(buffer), self._end - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def sections(file: BinaryIO, offset: int, sizes: Sequence[int]) -> Iterator[Section]:
    """Sections of these sizes that follow each other from `offset` on."""
    for size in sizes:
        if not 0 <= size <= LARGEST_FILE:
            raise ValueError(f"a section of {size} bytes")
        yield Section(file, offset, size)
        offset += size


class PlaneReader:
    """Takes values off a plane in the order in which they were added."""

    def __init__(self, section: Section, bits: int) -> None:
        if bits not in (4, 8):
            raise ValueError(f"values of {bits} bits")
        self._nibbles = bits == 4
        # At most one value, when a read ended within a byte of two.
        self._left: Bytes = np.empty(0, np.uint8)
        expander = decompressor(max_window_size=1 << PLANE_WINDOW_LOG)
        # The section is only read, which its type does not say.
        self._reader = expander.stream_reader(section)  # pyright: ignore[reportArgumentType]

    def take(self, count: int) -> Bytes:
        """The next `count` values. Raises ValueError when there are fewer."""
        if not self._nibbles:
            return self._read(count)

        taken = self._left[:count]
        missing = count - len(taken)
        self._left = self._left[count:]
        if not missing:
            return taken

        values = nibbles(self._read(-(-missing // 2)))
        self._left = values[missing:]
        return np.concatenate([taken, values[:missing]])

    def _read(self, count: int) -> Bytes:
        data = self._reader.read(count)
        if len(data) != count:
            raise ValueError("a plane ends too early")
        return np.frombuffer(data, np.uint8)


def blocks_of(file: BinaryIO) -> Iterator[Block]:
    """The rest of a file in blocks."""
    while block := file.read(BLOCK):
        yield block


def packed(spans: Sequence[WeightSpan]) -> list[int]:
    """Spans as numbers that are few and small, five a span.

    The numbers are: the gap behind the span before in the new file, how much larger the gap is in
    the old file, length, width, and number of the coding.
    """
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
    """Whether a span is one of whole elements that lies in an old file of `size` bytes."""
    if span.width not in KINDS or span.coding not in CODINGS:
        return False
    if span.length <= 0 or span.length % span.width:
        return False

    return 0 <= span.old <= size - span.length


def coded(coding: str, old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """Code new bits against old ones, as unsigned integers that are small where little changed.

    "xor" keeps the bits that differ. "integers" takes the difference and moves its sign into the
    lowest bit (zigzag). "floats" does the same for the ranks of the floats in their order.
    """
    if coding == "xor":
        return old ^ new
    if coding == "floats":
        old, new = ordered(old), ordered(new)

    difference = new - old
    one, top = np.array(1, difference.dtype), _top_bit(difference.dtype)
    # All ones for a negative difference, all zeros otherwise.
    sign = np.array(0, difference.dtype) - (difference >> top)
    return (difference << one) ^ sign


def restored(coding: str, old: NDArray[Any], difference: NDArray[Any]) -> NDArray[Any]:
    """The new bits: the inverse of `coded`."""
    if coding == "xor":
        return old ^ difference

    one = np.array(1, old.dtype)
    signed = (difference >> one) ^ (np.array(0, old.dtype) - (difference & one))
    return ordered(ordered(old) + signed, backwards=True) if coding == "floats" else old + signed


def ordered(bits: NDArray[Any], backwards: bool = False) -> NDArray[Any]:
    """The bit patterns of floats as integers in the order of the floats, or `backwards`.

    Negative floats have the top bit set and rise in the wrong direction, so all their bits are
    flipped. Positive ones get the top bit, which places them above.
    """
    top = np.array(1, bits.dtype) << _top_bit(bits.dtype)

    negative = bits < top if backwards else bits >= top
    return np.where(negative, ~bits, bits ^ top)


def _top_bit(dtype: "np.dtype[Any]") -> NDArray[Any]:
    """The number of the highest bit, as an element of the type itself."""
    return np.array(8 * dtype.itemsize - 1, dtype)


def nibbles(data: Bytes) -> Bytes:
    """The two values of 4 bits in each byte, the lower one first."""
    return np.stack((data & np.uint8(15), data >> np.uint8(4)), axis=1).reshape(-1)


@dataclass(frozen=True)
class Contents:
    """An open file, read on demand. A map of it would count as memory of this process."""

    file: BinaryIO
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises ValueError when the file has fewer."""
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
        """Offset and length of every run of bytes outside of spans, in the order of the file."""
        gaps: list[tuple[int, int]] = []
        end = 0
        for span in sorted(self.spans, key=lambda span: span.old):
            if span.old > end:
                gaps.append((end, span.old - end))
            end = max(end, span.old + span.length)
        return [*gaps, (end, self.old.size - end)]

    @cached_property
    def _ends(self) -> list[int]:
        """Where each gap ends in the sequence."""
        return list(accumulate(length for _, length in self._gaps))

    def around(self, index: int) -> bytes:
        """The dictionary for block `index` of the new rest: old bytes at and around its place."""
        first = max(index * REST_BLOCK - REST_AROUND, 0)
        last = (index + 1) * REST_BLOCK + REST_AROUND

        blocks: list[bytes] = []
        for number in range(bisect_right(self._ends, first), len(self._gaps)):
            (offset, length), end = self._gaps[number], self._ends[number]
            start = end - length
            if start >= last:
                break

            begin = max(first, start)
            blocks.append(self.old.read(offset + begin - start, min(last, end) - begin))
        return b"".join(blocks)


def descriptor_of(old: FrameSchema, digest: str) -> bytes:
    """The descriptor of the same boundary in a build with another digest."""
    return replace(old, bundle_digest=bytes.fromhex(digest)).to_bytes()


def expand(data: bytes, raw_dictionary: bytes, size: int) -> bytes:
    """Decompress exactly `size` bytes.

    Args:
        data: The compressed bytes.
        raw_dictionary: Their dictionary; empty without one.
        size: Bytes that must come out.

    Raises:
        ZstdError: The data is not zstandard's.
        ValueError: More or fewer bytes come out.
    """
    expanded = _expand_at_most(data, raw_dictionary, size)
    if len(expanded) != size:
        raise ValueError(f"a block of other than {size} bytes")
    return expanded


def _expand_at_most(data: bytes, raw_dictionary: bytes, limit: int) -> bytes:
    """Decompress no more than one byte beyond `limit`.

    `ZstdDecompressor.decompress` would allocate what the data claim as their size, whatever
    `max_output_size` is.
    """
    reader = decompressor(raw_dictionary).stream_reader(data)
    expanded = bytearray()
    while len(expanded) <= limit:
        block = reader.read(min(BLOCK, limit + 1 - len(expanded)))
        if not block:
            break
        expanded += block
    return bytes(expanded)


def decompressor(
    raw_dictionary: bytes = b"", max_window_size: int = _WINDOW_LIMIT
) -> zstandard.ZstdDecompressor:
    """A decompressor for this format, with a dictionary of plain bytes or none."""
    return zstandard.ZstdDecompressor(
        dict_data=dictionary(raw_dictionary),
        max_window_size=max_window_size,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )


def dictionary(raw_dictionary: bytes) -> zstandard.ZstdCompressionDict | None:
    """Plain bytes as a dictionary; None for no bytes."""
    if not raw_dictionary:
        return None
    return zstandard.ZstdCompressionDict(raw_dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
