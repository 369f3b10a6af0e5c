"""What crosses at one cut: tensors, how they are coded, and the binary descriptor that the C core opens (FORMAT.md)."""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from irsplit.base import dtypes
from irsplit.base.errors import BundleError, UnsupportedError
from irsplit.runtime.frame.codec_plugins import plugin_codecs
from irsplit.runtime.frame.limits import MAX_RANK, MAX_TENSORS
from irsplit.runtime.frame.rans_model import FLAT, Elements, RansModel
from irsplit.runtime.frame.reference.crc32c import crc32c

CODECS: dict[str, int] = {"raw": 0, "zstandard": 1, "static-rans": 2}
"""Our own codecs by the number that descriptors carry; `codec_plugins` has those of other packages."""
CODEC_NAMES: dict[int, str] = {code: name for name, code in CODECS.items()}
SYMBOLIC = 0xFFFFFFFF
DIGEST_SIZE = 16
BUNDLE_DIGEST_SIZE = 32

_HEAD = struct.Struct("<4sBBHII16s32sHHI")
_RECORD = struct.Struct("<BBBBHHII")
_QUANTIZATION = struct.Struct("<BBBBI")
_STEP = struct.Struct("<fi")
_VERSION = 1
_NAME_LIMIT = 4096
_PARAMETERS_LIMIT = 1 << 20
_CHUNK_BYTES_LIMIT = 1 << 30
_DEFAULT_CHUNK_BYTES = 1 << 24
_SIZE_LIMIT = 1 << 62
_DEFAULT_PART = 1 << 20
_QUANTIZABLE = ("f32", "f16", "bf16", "i8", "u8")
_STORAGES = {dtype.name: dtype.storage for dtype in dtypes.ALL if dtype.storage is not None}
MANTISSA_BITS = {"f32": 23, "f16": 10, "bf16": 7}
WIDE_INTEGERS = ("i16", "i32", "i64", "u16", "u32", "u64")


def codec_names() -> list[str]:
    """Every codec that is installed: ours, then those of other packages."""
    return [*CODECS, *plugin_codecs()]


def codec_code(name: str) -> int:
    """The number of an installed codec."""
    return CODECS[name] if name in CODECS else plugin_codecs()[name].code


def _codec_name(code: int) -> str:
    if code in CODEC_NAMES:
        return CODEC_NAMES[code]
    return _named({codec.code: name for name, codec in plugin_codecs().items()}, code, "codec")


@dataclass(frozen=True, slots=True)
class QuantizationSpec:
    """Affine 8-bit quantization of a float tensor, or of an i8 or u8 tensor in coarser steps than its own.

    q = clip(round_half_even(x / scale) + zero_point), and back: x' = (q - zero_point) * scale, for integers rounded
    half to even and clamped to their type.
    One scale and zero point, or one for every index along `axis`. `bits` narrows the range of the integers. With
    `outliers`, values beyond the range (NaN and infinities too) travel exactly beside the integers, up to a sixteenth
    of the tensor; without, they are clipped, and NaN becomes 0.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    dtype: str = "i8"
    bits: int = 8
    axis: int | None = None
    outliers: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(float(np.float32(scale)) for scale in self.scales))
        object.__setattr__(self, "zero_points", tuple(int(zero) for zero in self.zero_points))
        if self.dtype not in ("i8", "u8") or not 2 <= self.bits <= 8:
            raise ValueError(
                f"quantization to {self.bits} bits of {self.dtype}: use 2 to 8 bits of i8 or u8"
            )
        if len(self.scales) != len(self.zero_points) or not self.scales:
            raise ValueError(
                f"{len(self.scales)} scales for {len(self.zero_points)} zero points; give one each"
            )
        for scale in self.scales:
            if not np.finfo(np.float32).tiny <= scale < np.inf:
                raise ValueError(f"scale {scale} is not a positive, finite, normal float32")
        for zero in self.zero_points:
            if not self.low <= zero <= self.high:
                raise ValueError(
                    f"zero point {zero} outside of the integers' range {self.low}..{self.high}"
                )

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.dtype == "i8" else 0

    @property
    def high(self) -> int:
        return self.low + (1 << self.bits) - 1

    def to_json(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "bits": self.bits,
            "scales": list(self.scales),
            "zero_points": list(self.zero_points),
            "axis": self.axis,
            "outliers": self.outliers,
        }


def zstandard_parameters(level: int = 3, dictionary: bytes = b"") -> bytes:
    """Parameters of a tensor coded by zstandard: the level the encoder uses, and a dictionary both sides share."""
    return struct.pack("<b", level) + dictionary


def zstandard_level(parameters: bytes) -> int:
    (level,) = struct.unpack_from("<b", parameters)
    return level


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a boundary: None in `shape` is a symbolic dim, which travels in the frame.

    `parameters` belong to the codec, `chunk` is the number of elements that are coded at a time; both are filled in
    when they are left out. bfloat16 and the 8-bit floats travel as their storage integers.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    quantization: QuantizationSpec | None = None
    codec: str = "raw"
    parameters: bytes = b""
    chunk: int = 0

    def __post_init__(self) -> None:
        where = f"boundary tensor {self.name!r}"
        if self.dtype not in _STORAGES:
            raise UnsupportedError(
                f"{where}: elements of type {self.dtype} cannot be framed; cut elsewhere"
            )
        if len(self.shape) > MAX_RANK:
            raise UnsupportedError(
                f"{where}: rank {len(self.shape)} is above {MAX_RANK}; cut elsewhere"
            )
        size = self.storage.itemsize
        for dim in self.shape:
            size *= max(dim or 1, 1)
            if (dim is not None and not 0 <= dim < SYMBOLIC) or size > _SIZE_LIMIT:
                raise UnsupportedError(
                    f"{where}: shape {self.shape} does not fit a frame; cut elsewhere"
                )
        if len(self.name.encode()) > _NAME_LIMIT:
            raise UnsupportedError(
                f"{where}: the name is longer than {_NAME_LIMIT} bytes; rename the tensor"
            )
        if self.codec not in CODECS and self.codec not in plugin_codecs():
            raise UnsupportedError(
                f"{where}: unknown codec {self.codec!r}; known codecs: {', '.join(codec_names())}"
            )
        self._check_quantization(where)
        self._check_codec(where)

    def _check_quantization(self, where: str) -> None:
        q = self.quantization
        if q is None:
            return
        if self.dtype not in _QUANTIZABLE:
            raise UnsupportedError(
                f"{where}: {self.dtype} cannot be quantized; only {', '.join(_QUANTIZABLE)} can"
            )
        if q.axis is not None and not (
            0 <= q.axis < len(self.shape) and self.shape[q.axis] is not None
        ):
            raise UnsupportedError(
                f"{where}: axis {q.axis} of the scales is not a static axis of shape {self.shape}"
            )
        if len(q.scales) != (1 if q.axis is None else self.shape[q.axis]):
            raise UnsupportedError(
                f"{where}: {len(q.scales)} scales do not match axis {q.axis} of shape {self.shape}"
            )

    def _check_codec(self, where: str) -> None:
        if self.codec == "zstandard" and not self.parameters:
            object.__setattr__(self, "parameters", zstandard_parameters())
        if self.codec == "static-rans":
            self._check_model(where)
        elif self.codec != "raw" and self.chunk == 0:
            object.__setattr__(self, "chunk", _DEFAULT_CHUNK_BYTES // self.wire_size)
        if self.codec == "raw" and (self.chunk or self.parameters):
            raise UnsupportedError(
                f"{where}: raw tensors have neither chunks nor codec parameters; leave them out"
            )
        if len(self.parameters) > _PARAMETERS_LIMIT:
            raise UnsupportedError(
                f"{where}: codec parameters of {len(self.parameters)} bytes; the limit is 1 MiB"
            )
        if not 0 <= self.chunk <= _CHUNK_BYTES_LIMIT // self.wire_size:
            raise UnsupportedError(
                f"{where}: chunks of {self.chunk} elements are above 1 GiB; use smaller ones"
            )

    def _check_model(self, where: str) -> None:
        try:
            model = RansModel.from_bytes(self.parameters)
        except ValueError as error:
            raise UnsupportedError(f"{where}: {error}; train the model again") from error
        axis, channels = model.channel_axis, model.channels
        if axis != FLAT and (axis >= len(self.shape) or self.shape[axis] != channels):
            raise UnsupportedError(
                f"{where}: a model of {channels} channels on axis {axis} for shape {self.shape}"
            )
        if not self._has_elements(model.elements):
            raise UnsupportedError(
                f"{where}: a model of {model.elements.kind} elements for {self.dtype}"
            )
        if self.chunk == 0:
            object.__setattr__(self, "chunk", max(1, _DEFAULT_PART // channels) * channels)
        if self.chunk % channels:
            raise UnsupportedError(
                f"{where}: chunks of {self.chunk} elements do not hold whole pixels of {channels}"
            )

    def _has_elements(self, elements: Elements) -> bool:
        quantized = self.quantization is not None
        if elements.kind == "bytes":
            return self.wire_size == 1
        if elements.kind == "integer":
            return not quantized and self.dtype in WIDE_INTEGERS
        mantissa, width = MANTISSA_BITS.get(self.dtype, -1), 8 * self.storage.itemsize
        in_range = elements.keep <= 7 and elements.zero <= 254 and 0 <= elements.base < 65536
        return (
            not quantized
            and elements.keep + elements.tail <= mantissa
            and in_range
            and elements.top < 1 << width
        )

    @property
    def storage(self) -> np.dtype[np.generic]:
        """numpy type of the tensor's elements."""
        return _STORAGES[self.dtype]

    @property
    def wire_size(self) -> int:
        """Bytes of an element after quantization: what the codec sees."""
        return 1 if self.quantization is not None else self.storage.itemsize

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "quantization": None if self.quantization is None else self.quantization.to_json(),
            "codec": self.codec,
            "codec_bytes": len(self.parameters),
        }


@dataclass(frozen=True)
class FrameSchema:
    """The tensors that cross at one cut of one bundle, in the order in which frames carry them."""

    index: int
    name: str
    tensors: tuple[TensorSpec, ...]
    bundle_digest: bytes = bytes(BUNDLE_DIGEST_SIZE)

    def __post_init__(self) -> None:
        if not 1 <= len(self.tensors) <= MAX_TENSORS:
            raise UnsupportedError(
                f"boundary {self.name!r}: {len(self.tensors)} tensors; a frame carries 1 to {MAX_TENSORS}"
            )
        if len(self.bundle_digest) != BUNDLE_DIGEST_SIZE:
            raise ValueError(
                f"bundle digest of {len(self.bundle_digest)} bytes; give the 32 bytes of a SHA-256"
            )
        if not 0 <= self.index < 1 << 32 or len(self.name.encode()) > _NAME_LIMIT:
            raise ValueError(f"boundary {self.index} {self.name!r}: index or name too large")

    def __hash__(self) -> int:
        """Of the digest, which is kept: codecs are looked up by their boundary for every frame."""
        return hash(self.digest)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that differ whenever anything in the boundary, or the bundle's digest, differs."""
        return hashlib.sha256(_pack(self, bytes(DIGEST_SIZE))).digest()[:DIGEST_SIZE]

    @cached_property
    def _descriptor(self) -> bytes:
        body = _pack(self, self.digest)
        return body + struct.pack("<I", crc32c(body))

    def to_bytes(self) -> bytes:
        """The descriptor; equal boundaries give equal bytes."""
        return self._descriptor

    @staticmethod
    def from_bytes(descriptor: bytes) -> "FrameSchema":
        """The inverse of `to_bytes`. Raises BundleError for anything `to_bytes` does not write."""
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
        """How many dims every frame carries."""
        return sum(tensor.shape.count(None) for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "name": self.name,
            "digest": self.digest.hex(),
            "tensors": [tensor.to_json() for tensor in self.tensors],
        }

    def __str__(self) -> str:
        return f"boundary {self.index} {self.name!r} ({self.digest[:8].hex()})"


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _pack_tensor(spec: TensorSpec) -> bytes:
    name = spec.name.encode()
    quantized = spec.quantization is not None
    code = dtypes.BY_NAME[spec.dtype].code
    parts = [
        _RECORD.pack(
            code,
            len(spec.shape),
            quantized,
            codec_code(spec.codec),
            len(name),
            0,
            len(spec.parameters),
            spec.chunk,
        ),
        struct.pack(
            f"<{len(spec.shape)}I", *(SYMBOLIC if dim is None else dim for dim in spec.shape)
        ),
    ]
    if (q := spec.quantization) is not None:
        axis = 0xFF if q.axis is None else q.axis
        parts.append(
            _QUANTIZATION.pack(
                dtypes.BY_NAME[q.dtype].code, q.bits, q.outliers, axis, len(q.scales)
            )
        )
        parts += [
            _STEP.pack(scale, zero) for scale, zero in zip(q.scales, q.zero_points, strict=True)
        ]
    return b"".join([*parts, _padded(name), _padded(spec.parameters)])


def _pack(boundary: FrameSchema, digest: bytes) -> bytes:
    name = boundary.name.encode()
    body = _padded(name) + b"".join(_pack_tensor(tensor) for tensor in boundary.tensors)
    size = _HEAD.size + len(body) + 4
    count, bundle_digest = len(boundary.tensors), boundary.bundle_digest
    head = _HEAD.pack(
        b"IRSD", _VERSION, 0, count, size, boundary.index, digest, bundle_digest, len(name), 0, 0
    )
    return head + body


class _Reader:
    """Takes fields off the descriptor; struct.error when it ends too early."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self.offset = offset

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        fields = layout.unpack_from(self._data, self.offset)
        self.offset += layout.size
        return fields

    def take_padded(self, size: int) -> bytes:
        data = self._data[self.offset : self.offset + size]
        if len(data) != size:
            raise ValueError("it ends within a name or the parameters of a codec")
        self.offset += size + -size % 4
        return data


def _named(table: dict[int, str], code: int, what: str) -> str:
    if code not in table:
        raise ValueError(f"unknown {what} {code}")
    return table[code]


_TYPE_NAMES = {code: dtype.name for code, dtype in dtypes.BY_CODE.items()}


def _unpack_quantization(reader: _Reader) -> QuantizationSpec:
    storage, bits, flags, axis, count = reader.take(_QUANTIZATION)
    steps = [reader.take(_STEP) for _ in range(count)]
    dtype = _named(_TYPE_NAMES, storage, "element type")
    scales, zeros = tuple(scale for scale, _ in steps), tuple(zero for _, zero in steps)
    return QuantizationSpec(scales, zeros, dtype, bits, None if axis == 0xFF else axis, bool(flags))


def _unpack_tensor(reader: _Reader) -> TensorSpec:
    code, rank, quantized, codec, name_size, _, parameters_size, chunk = reader.take(_RECORD)
    dims = reader.take(struct.Struct(f"<{rank}I"))
    quantization = _unpack_quantization(reader) if quantized else None
    return TensorSpec(
        dtype=_named(_TYPE_NAMES, code, "element type"),
        shape=tuple(None if dim == SYMBOLIC else dim for dim in dims),
        quantization=quantization,
        codec=_codec_name(codec),
        name=reader.take_padded(name_size).decode(),
        parameters=reader.take_padded(parameters_size),
        chunk=chunk,
    )


def _unpack(descriptor: bytes) -> FrameSchema:
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
    return FrameSchema(
        index, name, tuple(_unpack_tensor(reader) for _ in range(count)), bundle_digest
    )
