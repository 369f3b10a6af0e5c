"""What crosses at one cut, and the binary descriptor of it that the C core opens (FORMAT.md)."""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from irsplit.base import dtypes
from irsplit.base.errors import BundleError, UnsupportedError
from irsplit.runtime.frame.codec_plugins import plugin_codecs
from irsplit.runtime.frame.limits import MAX_TENSORS
from irsplit.runtime.frame.reference.crc32c import crc32c
from irsplit.runtime.frame.tensor_spec import (
    CODECS,
    MANTISSA_BITS,
    NAME_LIMIT,
    SYMBOLIC,
    WIDE_INTEGERS,
    QuantizationSpec,
    TensorSpec,
    codec_code,
    codec_names,
    zstandard_level,
    zstandard_parameters,
)

__all__ = [
    "BUNDLE_DIGEST_SIZE",
    "CODECS",
    "DIGEST_SIZE",
    "MANTISSA_BITS",
    "SYMBOLIC",
    "WIDE_INTEGERS",
    "FrameSchema",
    "QuantizationSpec",
    "TensorSpec",
    "codec_code",
    "codec_names",
    "zstandard_level",
    "zstandard_parameters",
]

DIGEST_SIZE = 16
"""Bytes of a boundary's digest."""
BUNDLE_DIGEST_SIZE = 32
"""Bytes of a bundle's digest."""

_HEAD = struct.Struct("<4sBBHII16s32sHHI")
"""Magic, version, flags, count of tensors, size, index, digest, bundle's digest, size of the name,
two reserved fields."""
_RECORD = struct.Struct("<BBBBHHII")
"""Element type, rank, whether quantized, codec, size of the name, reserved field, size of the
parameters, chunk."""
_QUANTIZATION = struct.Struct("<BBBBI")
"""Type of the integers, bits, outliers, axis, count of scales."""
_STEP = struct.Struct("<fi")
"""Scale and zero point."""
_VERSION = 1
_NO_AXIS = 0xFF
_TYPE_NAMES = {code: dtype.name for code, dtype in dtypes.BY_CODE.items()}


@dataclass(frozen=True)
class FrameSchema:
    """The tensors that cross at one cut of one bundle.

    Example:
        schema = FrameSchema(0, "features", (TensorSpec("features", "f32", (1, 16)),))
        assert FrameSchema.from_bytes(schema.to_bytes()) == schema

    Attributes:
        index: The boundary's number in the bundle.
        name: The boundary's name.
        tensors: The tensors in the order in which frames carry them.
        bundle_digest: The digest of the bundle, BUNDLE_DIGEST_SIZE bytes.

    Raises:
        UnsupportedError: There are no tensors, or more than a frame carries.
        ValueError: Index, name or digest do not fit a descriptor.
    """

    index: int
    name: str
    tensors: tuple[TensorSpec, ...]
    bundle_digest: bytes = bytes(BUNDLE_DIGEST_SIZE)

    def __post_init__(self) -> None:
        if not 1 <= len(self.tensors) <= MAX_TENSORS:
            raise UnsupportedError(
                f"boundary {self.name!r}: {len(self.tensors)} tensors; "
                f"a frame carries 1 to {MAX_TENSORS}"
            )

        if len(self.bundle_digest) != BUNDLE_DIGEST_SIZE:
            raise ValueError(
                f"bundle digest of {len(self.bundle_digest)} bytes; give the 32 bytes of a SHA-256"
            )
        if not 0 <= self.index < 1 << 32 or len(self.name.encode()) > NAME_LIMIT:
            raise ValueError(f"boundary {self.index} {self.name!r}: index or name too large")

    def __hash__(self) -> int:
        """Hash of the digest, which is kept: every frame looks up the codec of its boundary."""
        return hash(self.digest)

    @cached_property
    def digest(self) -> bytes:
        """DIGEST_SIZE bytes that change with anything in the schema or in the bundle's digest."""
        return hashlib.sha256(_pack(self, bytes(DIGEST_SIZE))).digest()[:DIGEST_SIZE]

    @cached_property
    def _descriptor(self) -> bytes:
        body = _pack(self, self.digest)
        return body + struct.pack("<I", crc32c(body))

    def to_bytes(self) -> bytes:
        """The descriptor. Equal schemas give equal bytes."""
        return self._descriptor

    @staticmethod
    def from_bytes(descriptor: bytes) -> "FrameSchema":
        """The inverse of `to_bytes`.

        Raises:
            BundleError: The bytes are not what `to_bytes` writes.
        """
        try:
            boundary = _unpack(descriptor)
        except (struct.error, ValueError, UnsupportedError) as error:
            raise BundleError(
                f"damaged boundary descriptor: {error}; compile the bundle again"
            ) from error

        if boundary.to_bytes() != descriptor:
            raise BundleError(
                "damaged boundary descriptor: its digest does not match; compile the bundle again"
            )
        return boundary

    @property
    def symbol_count(self) -> int:
        """How many sizes of open dimensions every frame carries."""
        return sum(tensor.shape.count(None) for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """The description as manifests have it."""
        return {
            "index": self.index,
            "name": self.name,
            "digest": self.digest.hex(),
            "tensors": [tensor.to_json() for tensor in self.tensors],
        }

    def __str__(self) -> str:
        return f"boundary {self.index} {self.name!r} ({self.digest[:8].hex()})"


def _pack(boundary: FrameSchema, digest: bytes) -> bytes:
    """The descriptor without its checksum, with this digest in its head."""
    name = boundary.name.encode()

    # Names and parameters are padded, so that all numbers lie at multiples of 4 bytes.
    body = _padded(name) + b"".join(_pack_tensor(tensor) for tensor in boundary.tensors)
    head = _HEAD.pack(
        b"IRSD",
        _VERSION,
        0,
        len(boundary.tensors),
        _HEAD.size + len(body) + 4,
        boundary.index,
        digest,
        boundary.bundle_digest,
        len(name),
        0,
        0,
    )
    return head + body


def _pack_tensor(spec: TensorSpec) -> bytes:
    """A record of fixed size, then dimensions, quantization, name and parameters."""
    name = spec.name.encode()
    record = _RECORD.pack(
        dtypes.BY_NAME[spec.dtype].code,
        len(spec.shape),
        spec.quantization is not None,
        codec_code(spec.codec),
        len(name),
        0,
        len(spec.parameters),
        spec.chunk,
    )

    sizes = [SYMBOLIC if dim is None else dim for dim in spec.shape]
    dims = struct.pack(f"<{len(sizes)}I", *sizes)
    quantization = b"" if spec.quantization is None else _pack_quantization(spec.quantization)
    return b"".join([record, dims, quantization, _padded(name), _padded(spec.parameters)])


def _pack_quantization(q: QuantizationSpec) -> bytes:
    """A head, then one scale and zero point for each index along the axis."""
    axis = _NO_AXIS if q.axis is None else q.axis
    code = dtypes.BY_NAME[q.dtype].code
    head = _QUANTIZATION.pack(code, q.bits, q.outliers, axis, len(q.scales))
    steps = zip(q.scales, q.zero_points, strict=True)
    return head + b"".join(_STEP.pack(scale, zero) for scale, zero in steps)


def _padded(data: bytes) -> bytes:
    """The data and zeros up to a multiple of 4 bytes."""
    return data + bytes(-len(data) % 4)


class _Reader:
    """Takes fields off a descriptor; struct.error or ValueError when it ends too early."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self.offset = offset

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        fields = layout.unpack_from(self._data, self.offset)
        self.offset += layout.size
        return fields

    def take_padded(self, size: int) -> bytes:
        """`size` bytes. The zeros behind them are skipped."""
        data = self._data[self.offset : self.offset + size]
        if len(data) != size:
            raise ValueError("it ends within a name or the parameters of a codec")
        self.offset += size + -size % 4
        return data


def _unpack(descriptor: bytes) -> FrameSchema:
    """The inverse of `_pack`, with the checksum behind it. The caller compares the digest."""
    head = _HEAD.unpack_from(descriptor)
    magic, version, flags, count, size, index, _, bundle_digest, name_size, _, _ = head

    if magic != b"IRSD":
        raise ValueError("it does not begin with IRSD")
    if version != _VERSION or flags:
        raise ValueError(
            f"format version {version}, flags {flags}; this release reads version {_VERSION}"
        )
    if size != len(descriptor):
        raise ValueError(f"it says {size} bytes and has {len(descriptor)}")

    if crc32c(descriptor[:-4]) != int.from_bytes(descriptor[-4:], "little"):
        raise ValueError("checksum mismatch")

    reader = _Reader(descriptor[:-4], _HEAD.size)
    name = reader.take_padded(name_size).decode()
    tensors = tuple(_unpack_tensor(reader) for _ in range(count))
    return FrameSchema(index, name, tensors, bundle_digest)


def _unpack_tensor(reader: _Reader) -> TensorSpec:
    code, rank, quantized, codec, name_size, _, parameters_size, chunk = reader.take(_RECORD)
    dims = reader.take(struct.Struct(f"<{rank}I"))
    quantization = _unpack_quantization(reader) if quantized else None
    dtype, codec_name = _type_name(code), _codec_name(codec)
    name = reader.take_padded(name_size).decode()
    parameters = reader.take_padded(parameters_size)

    shape = tuple(None if dim == SYMBOLIC else dim for dim in dims)
    return TensorSpec(name, dtype, shape, quantization, codec_name, parameters, chunk)


def _unpack_quantization(reader: _Reader) -> QuantizationSpec:
    storage, bits, outliers, axis, count = reader.take(_QUANTIZATION)
    steps = [reader.take(_STEP) for _ in range(count)]
    return QuantizationSpec(
        tuple(scale for scale, _ in steps),
        tuple(zero for _, zero in steps),
        _type_name(storage),
        bits,
        None if axis == _NO_AXIS else axis,
        bool(outliers),
    )


def _type_name(code: int) -> str:
    if code not in _TYPE_NAMES:
        raise ValueError(f"unknown element type {code}")
    return _TYPE_NAMES[code]


def _codec_name(code: int) -> str:
    """The installed codec of a number. Raises ValueError without one."""
    for name, own_code in CODECS.items():
        if code == own_code:
            return name

    for name, codec in plugin_codecs().items():
        if code == codec.code:
            return name
    raise ValueError(f"unknown codec {code}")
