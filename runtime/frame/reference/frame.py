"""The frame format in numpy, to be read next to FORMAT.md.

It is the executable specification, the fallback without the C extension, and the twin of the C core
in tests: it gives the same bytes, and refuses with the same status.
"""

import math
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.codecs import Hooks
from irsplit.runtime.frame.descriptor import SYMBOLIC, FrameSchema, TensorSpec
from irsplit.runtime.frame.rans_model import Geometry, RansModel, geometry
from irsplit.runtime.frame.reference.crc32c import crc32c
from irsplit.runtime.frame.reference.elements import (
    join,
    pack_bits,
    pixel_order,
    split,
    tensor_order,
)
from irsplit.runtime.frame.reference.quantize import dequantize, outlier_limit, quantize
from irsplit.runtime.frame.reference.static_rans import decode_chunk, encode_chunk
from irsplit.runtime.frame.status import Status, StatusError

HEADER = struct.Struct("<4sBBH8sQ")
"""Magic, version, flags, check of the header, beginning of the boundary's digest, size."""
_VERSION = 1
_TRAILER_SIZE = 4
"""Bytes of the checksum at the end."""
_STORED = 0x80000000
"""The bit of a chunk's head that says that its elements are not coded."""
_SIZE_LIMIT = 1 << 62

Array = NDArray[np.generic]
Shape = tuple[int, ...]


def _header_check(header: bytes) -> int:
    """16 bits of the CRC of a header, whose own field for them counts as zero."""
    crc = crc32c(header[:6] + b"\0\0" + header[8:])
    return (crc ^ crc >> 16) & 0xFFFF


def frame_size(data: bytes | memoryview) -> int:
    """Size of a whole frame in bytes, from its header.

    Raises:
        StatusError: The data do not begin with the header of a frame.
    """
    if len(data) < HEADER.size:
        raise StatusError(Status.TRUNCATED)

    # The check comes before the version, so that a damaged version is told as damage.
    header = bytes(data[: HEADER.size])
    magic, version, flags, check, _, size = HEADER.unpack(header)
    if magic != b"IRSF":
        raise StatusError(Status.MAGIC)
    if check != _header_check(header):
        raise StatusError(Status.CHECKSUM)
    if version != _VERSION or flags:
        raise StatusError(Status.VERSION)
    if size < HEADER.size + _TRAILER_SIZE:
        raise StatusError(Status.SIZE)
    return size


def _check_size(spec: TensorSpec, shape: Shape) -> None:
    """Raise StatusError SIZE for a tensor whose bytes or outliers cannot be addressed.

    Args:
        spec: The tensor in its boundary.
        shape: Its shape in this frame.
    """
    # A dimension of 0 counts as 1, so that it does not hide a large one.
    if math.prod(dim or 1 for dim in shape) * spec.storage.itemsize > _SIZE_LIMIT:
        raise StatusError(Status.SIZE)

    # The indices of outliers have 32 bits.
    outliers = spec.quantization is not None and spec.quantization.outliers
    if outliers and math.prod(shape) > 0xFFFFFFFF:
        raise StatusError(Status.SIZE)


class _Reader:
    """Takes fields off a frame; StatusError CORRUPT when it ends too early."""

    def __init__(self, frame: memoryview) -> None:
        self._frame = frame
        self.offset = 0

    @property
    def left(self) -> int:
        """Bytes that are not taken."""
        return len(self._frame) - self.offset

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        if size > self.left:
            raise StatusError(Status.CORRUPT)
        self.offset += size
        return self._frame[self.offset - size : self.offset]

    def take_u32(self) -> int:
        """The next number of 32 bits."""
        return int.from_bytes(self.take(4), "little")

    def take_chunk(self, size: int) -> tuple[bool, memoryview]:
        """The next chunk: whether it is stored, and its payload.

        Args:
            size: Bytes of its elements. A coded chunk is smaller than that, a stored one is not.
        """
        head = self.take_u32()
        stored, payload_size = bool(head & _STORED), head & ~_STORED
        payload = self.take(payload_size)
        if payload_size != size if stored else payload_size >= size:
            raise StatusError(Status.CORRUPT)
        return stored, payload


class ReferenceCodec:
    """A boundary that is opened for coding in numpy.

    Arrays are row-major, of the storage types and ranks that the boundary names.
    """

    def __init__(self, boundary: FrameSchema) -> None:
        self._boundary = boundary
        self._hooks = Hooks(boundary)
        self._models = [
            RansModel.from_bytes(spec.parameters) if spec.codec == "static-rans" else None
            for spec in boundary.tensors
        ]

    # A frame is a header, the sizes of all open dimensions, one section a tensor, and a checksum.

    def encode(self, arrays: Sequence[Array]) -> bytes:
        """Encode one array for each tensor of the boundary.

        Raises:
            StatusError: An array does not fit its tensor, or holds what cannot travel.
        """
        dims: list[int] = []
        for spec, array in zip(self._boundary.tensors, arrays, strict=True):
            dims += _open_dims(spec, array.shape)

        body = bytearray(HEADER.size) + struct.pack(f"<{len(dims)}I", *dims)
        for index, array in enumerate(arrays):
            self._write_section(index, array, body)

        size = len(body) + _TRAILER_SIZE
        body[: HEADER.size] = self._header(size)
        return bytes(body) + struct.pack("<I", crc32c(body))

    def _header(self, size: int) -> bytes:
        digest = self._boundary.digest[:8]
        unchecked = HEADER.pack(b"IRSF", _VERSION, 0, 0, digest, size)
        return HEADER.pack(b"IRSF", _VERSION, 0, _header_check(unchecked), digest, size)

    def _write_section(self, index: int, array: Array, body: bytearray) -> None:
        """Append one tensor: its outliers, then its elements in the codec's form."""
        spec, model = self._boundary.tensors[index], self._models[index]
        if spec.dtype == "bool" and _has_no_bools(array):
            raise StatusError(Status.VALUE)

        if spec.quantization is not None:
            integers, outliers = quantize(spec, array)
            if spec.quantization.outliers:
                _write_outliers(array, outliers, body)

            array = integers.reshape(array.shape)

        if spec.codec == "raw":
            # Elements begin at a multiple of their size, so that they can be read in place.
            body += bytes(-len(body) % min(spec.wire_size, 8)) + array.tobytes()
        elif model is not None:
            _write_chunks(_static_chunks(model, spec, array), body)
        else:
            _write_chunks(self._hooked_chunks(index, array), body)

    def _hooked_chunks(self, index: int, array: Array) -> Iterator[tuple[bytes, bytes]]:
        """Chunks of a tensor as they are and coded, by zstandard or another package's codec."""
        spec = self._boundary.tensors[index]
        data, size = array.tobytes(), spec.chunk * spec.wire_size
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            yield chunk, self._hooks.compress(index, chunk)

    def _check_frame(self, frame: memoryview) -> None:
        """Check everything that holds for a whole frame: header, digest, size, checksum."""
        size = frame_size(frame)
        if HEADER.unpack_from(frame)[4] != self._boundary.digest[:8]:
            raise StatusError(Status.BOUNDARY)

        if size != len(frame):
            raise StatusError(Status.TRUNCATED if size > len(frame) else Status.SIZE)
        if size < HEADER.size + 4 * self._boundary.symbol_count + _TRAILER_SIZE:
            raise StatusError(Status.TRUNCATED)

        # Last, because it reads the whole frame.
        if crc32c(frame[:-4]) != int.from_bytes(frame[-4:], "little"):
            raise StatusError(Status.CHECKSUM)

    def shapes(self, frame: memoryview) -> list[Shape]:
        """Shapes of a frame's tensors, after all checks that do not need the payload.

        Raises:
            StatusError: The frame is damaged or belongs to another boundary.
        """
        self._check_frame(frame)
        dims = iter(struct.unpack_from(f"<{self._boundary.symbol_count}I", frame, HEADER.size))
        shapes: list[Shape] = []
        for spec in self._boundary.tensors:
            shape = tuple(next(dims) if dim is None else dim for dim in spec.shape)
            # No tensor with such a dimension is encoded.
            if any(dim == SYMBOLIC for dim in shape):
                raise StatusError(Status.CORRUPT)
            _check_size(spec, shape)
            shapes.append(shape)
        return shapes

    def decode(self, frame: memoryview, out: Sequence[Array]) -> None:
        """Write a frame's tensors into arrays of their shapes.

        Raises:
            StatusError: The frame is damaged or belongs to another boundary, or an array has
                another shape. `out` may then be partly written.
        """
        for shape, array in zip(self.shapes(frame), out, strict=True):
            if array.shape != shape:
                raise StatusError(Status.SHAPE)

        reader = _Reader(frame[:-_TRAILER_SIZE])
        reader.take(HEADER.size + 4 * self._boundary.symbol_count)

        for index, array in enumerate(out):
            self._read_section(index, array, reader)
        if reader.left:
            raise StatusError(Status.CORRUPT)

    def _read_section(self, index: int, array: Array, reader: _Reader) -> None:
        """The inverse of `_write_section`."""
        spec = self._boundary.tensors[index]
        outliers: memoryview | None = None
        if spec.quantization is not None and spec.quantization.outliers:
            outliers = _read_outliers(spec, array.size, reader)

        data = self._read_elements(index, array, reader)
        if spec.quantization is not None:
            array[...] = dequantize(spec, np.frombuffer(data, np.uint8), array.shape)
        else:
            array[...] = np.frombuffer(data, spec.storage).reshape(array.shape)

        if outliers is not None:
            _place_outliers(spec, outliers, array)
        if spec.dtype == "bool" and _has_no_bools(array):
            raise StatusError(Status.CORRUPT)

    def _read_elements(self, index: int, array: Array, reader: _Reader) -> bytes | memoryview:
        """The elements of one tensor in memory order, as the codec gives them."""
        spec, model = self._boundary.tensors[index], self._models[index]
        size = array.size * spec.wire_size
        if model is not None:
            return _read_static(model, spec, array.shape, reader)
        if spec.codec == "raw":
            if any(reader.take(-reader.offset % min(spec.wire_size, 8))):
                raise StatusError(Status.CORRUPT)
            return reader.take(size)

        # All chunks but the last have the same number of elements.
        data = bytearray()
        while len(data) < size:
            chunk_size = min(spec.chunk * spec.wire_size, size - len(data))
            stored, payload = reader.take_chunk(chunk_size)
            if not stored:
                payload = self._hooks.decompress(index, payload, chunk_size)
            data += payload
        return bytes(data)


def _open_dims(spec: TensorSpec, shape: Shape) -> list[int]:
    """The sizes of a tensor's open dimensions. StatusError SHAPE for a shape that misfits."""
    if len(shape) != len(spec.shape):
        raise StatusError(Status.SHAPE)
    dims: list[int] = []
    for dim, size in zip(spec.shape, shape, strict=True):
        if size >= SYMBOLIC or dim not in (None, size):
            raise StatusError(Status.SHAPE)
        if dim is None:
            dims.append(size)
    return dims


def _has_no_bools(array: Array) -> bool:
    """Whether an array of bool holds a byte other than 0 and 1."""
    return bool(array.size) and int(array.view(np.uint8).max()) > 1


def _write_chunks(chunks: Iterator[tuple[bytes, bytes]], body: bytearray) -> None:
    """Append chunks, each as it is or coded, whichever is smaller."""
    for chunk, payload in chunks:
        if len(payload) < len(chunk):
            body += struct.pack("<I", len(payload)) + payload
        else:
            body += struct.pack("<I", len(chunk) | _STORED) + chunk


def _static_chunks(
    model: RansModel, spec: TensorSpec, array: Array
) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of a tensor in pixel order, as they are and coded by static-rans.

    Where elements have remaining bits, these and their size come before the coded symbols.
    """
    geo = geometry(array.shape, model.channel_axis)
    pixels = pixel_order(array, geo) if array.size else array.reshape(0, model.channels)
    step = spec.chunk // model.channels
    for first in range(0, len(pixels), step):
        chunk = pixels[first : first + step]
        symbols, sizes, rest = split(model.elements, spec, chunk)

        head = b""
        if model.elements.kind != "bytes":
            bits = pack_bits(sizes, rest)
            head = struct.pack("<I", len(bits)) + bits
        yield chunk.tobytes(), head + encode_chunk(model, symbols, first, geo)


def _read_static(model: RansModel, spec: TensorSpec, shape: Shape, reader: _Reader) -> bytes:
    """The elements of a tensor in memory order, from chunks of static-rans."""
    wire = spec.storage if spec.quantization is None else np.dtype(np.uint8)
    pixels = np.empty((math.prod(shape) // model.channels, model.channels), wire)
    if pixels.size == 0:
        return b""

    geo = geometry(shape, model.channel_axis)
    step = spec.chunk // model.channels
    for first in range(0, len(pixels), step):
        chunk = pixels[first : first + step]
        stored, payload = reader.take_chunk(chunk.nbytes)
        if stored:
            chunk[...] = np.frombuffer(payload, wire).reshape(chunk.shape)
        else:
            chunk[...] = _decode_chunk(model, spec, payload, len(chunk), first, geo)
    return tensor_order(pixels, geo, shape).tobytes()


def _decode_chunk(
    model: RansModel, spec: TensorSpec, payload: memoryview, count: int, first: int, geo: Geometry
) -> Array:
    """The `count` pixels of a coded chunk: remaining bits first, then the coded symbols."""
    bits = memoryview(b"")
    if model.elements.kind != "bytes":
        size = int.from_bytes(payload[:4], "little")
        if len(payload) < 4 or size > len(payload) - 4:
            raise StatusError(Status.CORRUPT)
        bits, payload = payload[4 : 4 + size], payload[4 + size :]

    symbols = decode_chunk(model, payload, count, first, geo)
    return join(model.elements, spec, symbols, bits)


def _write_outliers(array: Array, positions: NDArray[np.intp], body: bytearray) -> None:
    """Append how many outliers there are, and for each its flat index and its value."""
    body += struct.pack("<I", len(positions))

    flat = array.ravel()
    for position in positions:
        body += struct.pack("<I", position) + flat[position].tobytes()


def _read_outliers(spec: TensorSpec, size: int, reader: _Reader) -> memoryview:
    """The outliers of a tensor of `size` elements, as they lie in the frame."""
    count = reader.take_u32()

    if count > outlier_limit(size):
        raise StatusError(Status.CORRUPT)
    return reader.take(count * (4 + spec.storage.itemsize))


def _place_outliers(spec: TensorSpec, entries: memoryview, array: Array) -> None:
    """Write outliers over the elements restored from integers. Their indices must rise."""
    layout = np.dtype([("index", "<u4"), ("value", spec.storage)])
    outliers = np.frombuffer(entries, layout)
    positions = outliers["index"].astype(np.int64)
    if positions.size and (positions[-1] >= array.size or np.any(np.diff(positions) <= 0)):
        raise StatusError(Status.CORRUPT)
    array.reshape(-1)[positions] = outliers["value"]
