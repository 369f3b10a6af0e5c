"""The frame format in numpy: executable specification, fallback without the extension, and twin of the C core in tests.

Reads like FORMAT.md, gives the same bytes as the C core, and refuses with the same status.
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

HEADER = struct.Struct("<4sBBH8sQ")  # magic, version, flags, check, digest, size
_VERSION = 1
_TRAILER_SIZE = 4
_STORED = 0x80000000
_SIZE_LIMIT = 1 << 62

Array = NDArray[np.generic]
Shape = tuple[int, ...]


def _header_check(header: bytes) -> int:
    crc = crc32c(header[:6] + b"\0\0" + header[8:])
    return (crc ^ crc >> 16) & 0xFFFF


def frame_size(data: bytes | memoryview) -> int:
    """Size of the whole frame from the first bytes of a stream."""
    if len(data) < HEADER.size:
        raise StatusError(Status.TRUNCATED)
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


def _count(spec: TensorSpec, shape: Shape) -> int:
    """Elements of a tensor; raises when its bytes cannot be addressed."""
    if math.prod(dim or 1 for dim in shape) * spec.storage.itemsize > _SIZE_LIMIT:
        raise StatusError(Status.SIZE)
    count = math.prod(shape)
    if spec.quantization is not None and spec.quantization.outliers and count > 0xFFFFFFFF:
        raise StatusError(Status.SIZE)
    return count


class _Reader:
    def __init__(self, frame: memoryview) -> None:
        self._frame = frame
        self.offset = 0

    @property
    def left(self) -> int:
        return len(self._frame) - self.offset

    def take(self, size: int) -> memoryview:
        if size > self.left:
            raise StatusError(Status.CORRUPT)
        self.offset += size
        return self._frame[self.offset - size : self.offset]

    def take_u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def take_chunk(self, size: int) -> tuple[bool, memoryview]:
        """Whether the chunk is stored, and its payload; `size` is that of its elements."""
        head = self.take_u32()
        stored, coded = bool(head & _STORED), head & ~_STORED
        payload = self.take(coded)
        if coded != size if stored else coded >= size:
            raise StatusError(Status.CORRUPT)
        return stored, payload


class ReferenceCodec:
    """One opened boundary. Arrays are row-major, of the storage types and ranks that the boundary names."""

    def __init__(self, boundary: FrameSchema) -> None:
        self._boundary = boundary
        self._hooks = Hooks(boundary)
        self._models = [
            RansModel.from_bytes(spec.parameters) if spec.codec == "static-rans" else None
            for spec in boundary.tensors
        ]

    def encode(self, arrays: Sequence[Array]) -> bytes:
        specs = self._boundary.tensors
        dims: list[int] = []
        for spec, array in zip(specs, arrays, strict=True):
            if len(array.shape) != len(spec.shape):
                raise StatusError(Status.SHAPE)
            for dim, size in zip(spec.shape, array.shape, strict=True):
                if size >= SYMBOLIC or dim not in (None, size):
                    raise StatusError(Status.SHAPE)
            dims += [size for dim, size in zip(spec.shape, array.shape, strict=True) if dim is None]
        body = bytearray(HEADER.size) + struct.pack(f"<{len(dims)}I", *dims)
        for index, (spec, array) in enumerate(zip(specs, arrays, strict=True)):
            self._write_section(index, spec, array, body)
        size = len(body) + _TRAILER_SIZE
        header = HEADER.pack(b"IRSF", _VERSION, 0, 0, self._boundary.digest[:8], size)
        check = _header_check(header)
        body[: HEADER.size] = HEADER.pack(
            b"IRSF", _VERSION, 0, check, self._boundary.digest[:8], size
        )
        return bytes(body) + struct.pack("<I", crc32c(body))

    def _write_section(self, index: int, spec: TensorSpec, array: Array, body: bytearray) -> None:
        if spec.dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
            raise StatusError(Status.VALUE)
        if spec.quantization is not None:
            integers, outliers = quantize(spec, array)
            if spec.quantization.outliers:
                body += struct.pack("<I", len(outliers))
                for position in outliers:
                    body += struct.pack("<I", position) + array.ravel()[position].tobytes()
            array = integers.reshape(array.shape)
        if spec.codec == "raw":
            body += bytes(-len(body) % min(spec.wire_size, 8)) + array.tobytes()
            return
        chunks = self._zstandard_chunks(index, spec, array)
        if (model := self._models[index]) is not None:
            chunks = _static_chunks(model, spec, array)
        for chunk, coded in chunks:
            if len(coded) < len(chunk):
                body += struct.pack("<I", len(coded)) + coded
            else:
                body += struct.pack("<I", len(chunk) | _STORED) + chunk

    def _zstandard_chunks(
        self, index: int, spec: TensorSpec, array: Array
    ) -> Iterator[tuple[bytes, bytes]]:
        """Chunks as they are and coded."""
        data, size = array.tobytes(), spec.chunk * spec.wire_size
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            yield chunk, self._hooks.compress(index, chunk)

    def _check_frame(self, frame: memoryview) -> None:
        size = frame_size(frame)
        if HEADER.unpack_from(frame)[4] != self._boundary.digest[:8]:
            raise StatusError(Status.BOUNDARY)
        if size != len(frame):
            raise StatusError(Status.TRUNCATED if size > len(frame) else Status.SIZE)
        if size < HEADER.size + 4 * self._boundary.symbol_count + _TRAILER_SIZE:
            raise StatusError(Status.TRUNCATED)
        if crc32c(frame[:-4]) != int.from_bytes(frame[-4:], "little"):
            raise StatusError(Status.CHECKSUM)

    def shapes(self, frame: memoryview) -> list[Shape]:
        """Shapes of the frame's tensors, after all checks that do not need the payload."""
        self._check_frame(frame)
        dims = iter(struct.unpack_from(f"<{self._boundary.symbol_count}I", frame, HEADER.size))
        shapes: list[Shape] = []
        for spec in self._boundary.tensors:
            shape = tuple(next(dims) if dim is None else dim for dim in spec.shape)
            if any(dim == SYMBOLIC for dim in shape):
                raise StatusError(Status.CORRUPT)
            _count(spec, shape)
            shapes.append(shape)
        return shapes

    def decode(self, frame: memoryview, out: Sequence[Array]) -> None:
        for shape, array in zip(self.shapes(frame), out, strict=True):
            if array.shape != shape:
                raise StatusError(Status.SHAPE)
        reader = _Reader(frame[:-_TRAILER_SIZE])
        reader.take(HEADER.size + 4 * self._boundary.symbol_count)
        for index, (spec, array) in enumerate(zip(self._boundary.tensors, out, strict=True)):
            self._read_section(index, spec, array, reader)
        if reader.left:
            raise StatusError(Status.CORRUPT)

    def _read_section(self, index: int, spec: TensorSpec, array: Array, reader: _Reader) -> None:
        outliers: memoryview | None = None
        if spec.quantization is not None and spec.quantization.outliers:
            count = reader.take_u32()
            if count > outlier_limit(array.size):
                raise StatusError(Status.CORRUPT)
            outliers = reader.take(count * (4 + spec.storage.itemsize))
        if (model := self._models[index]) is not None:
            data = _read_static(model, spec, array.shape, reader)
        else:
            data = self._read_data(index, spec, array.size * spec.wire_size, reader)
        if spec.quantization is not None:
            array[...] = dequantize(spec, np.frombuffer(data, np.uint8), array.shape)
        else:
            array[...] = np.frombuffer(data, spec.storage).reshape(array.shape)
        if outliers is not None:
            _place_outliers(spec, outliers, array)
        if spec.dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
            raise StatusError(Status.CORRUPT)

    def _read_data(
        self, index: int, spec: TensorSpec, size: int, reader: _Reader
    ) -> bytes | memoryview:
        if spec.codec == "raw":
            if any(reader.take(-reader.offset % min(spec.wire_size, 8))):
                raise StatusError(Status.CORRUPT)
            return reader.take(size)
        data = bytearray()
        while len(data) < size:
            part = min(spec.chunk * spec.wire_size, size - len(data))
            stored, payload = reader.take_chunk(part)
            data += payload if stored else self._hooks.decompress(index, payload, part)
        return bytes(data)


def _static_chunks(
    model: RansModel, spec: TensorSpec, array: Array
) -> Iterator[tuple[bytes, bytes]]:
    """Chunks as they are, in pixel order, and coded."""
    geo = geometry(array.shape, model.channel_axis)
    pixels = pixel_order(array, geo) if array.size else array.reshape(0, model.channels)
    step = spec.chunk // model.channels
    for first in range(0, len(pixels), step):
        part = pixels[first : first + step]
        symbols, sizes, rest = split(model.elements, spec, part)
        head = b""
        if model.elements.kind != "bytes":
            bits = pack_bits(sizes, rest)
            head = struct.pack("<I", len(bits)) + bits
        yield part.tobytes(), head + encode_chunk(model, symbols, first, geo)


def _read_static(model: RansModel, spec: TensorSpec, shape: Shape, reader: _Reader) -> bytes:
    """Elements in memory order."""
    wire = spec.storage if spec.quantization is None else np.dtype(np.uint8)
    pixels = np.empty((math.prod(shape) // model.channels, model.channels), wire)
    if pixels.size == 0:
        return b""
    geo = geometry(shape, model.channel_axis)
    step = spec.chunk // model.channels
    for first in range(0, len(pixels), step):
        part = pixels[first : first + step]
        stored, payload = reader.take_chunk(part.nbytes)
        if stored:
            part[...] = np.frombuffer(payload, wire).reshape(part.shape)
        else:
            part[...] = _decode_part(model, spec, payload, len(part), first, geo)
    return tensor_order(pixels, geo, shape).tobytes()


def _decode_part(
    model: RansModel, spec: TensorSpec, payload: memoryview, count: int, first: int, geo: Geometry
) -> Array:
    bits = memoryview(b"")
    if model.elements.kind != "bytes":
        size = int.from_bytes(payload[:4], "little")
        if len(payload) < 4 or size > len(payload) - 4:
            raise StatusError(Status.CORRUPT)
        bits, payload = payload[4 : 4 + size], payload[4 + size :]
    symbols = decode_chunk(model, payload, count, first, geo)
    return join(model.elements, spec, symbols, bits)


def _place_outliers(spec: TensorSpec, entries: memoryview, array: Array) -> None:
    layout = np.dtype([("index", "<u4"), ("value", spec.storage)])
    found = np.frombuffer(entries, layout)
    positions = found["index"].astype(np.int64)
    if positions.size and (positions[-1] >= array.size or np.any(np.diff(positions) <= 0)):
        raise StatusError(Status.CORRUPT)
    array.reshape(-1)[positions] = found["value"]
