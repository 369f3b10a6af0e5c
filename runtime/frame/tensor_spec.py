"""How one tensor of a boundary travels: element type, shape, quantization and codec."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from irsplit.base import dtypes
from irsplit.base.errors import UnsupportedError
from irsplit.runtime.frame.codec_plugins import plugin_codecs
from irsplit.runtime.frame.limits import MAX_RANK
from irsplit.runtime.frame.rans_parameters import FLAT, Elements, RansModel

CODECS: dict[str, int] = {"raw": 0, "zstandard": 1, "static-rans": 2}
"""Our own codecs with the numbers that descriptors carry. `codec_plugins` has the others."""
SYMBOLIC = 0xFFFFFFFF
"""What a descriptor has in the place of an open dimension's size."""
NAME_LIMIT = 4096
"""Longest name of a tensor or a boundary, in bytes."""
MANTISSA_BITS = {"f32": 23, "f16": 10, "bf16": 7}
"""Float types that static-rans takes apart."""
WIDE_INTEGERS = ("i16", "i32", "i64", "u16", "u32", "u64")
"""Integer types that static-rans takes apart."""

_PARAMETERS_LIMIT = 1 << 20
_CHUNK_BYTES_LIMIT = 1 << 30
_DEFAULT_CHUNK_BYTES = 1 << 24
_DEFAULT_CHUNK_SYMBOLS = 1 << 20
_SIZE_LIMIT = 1 << 62
_QUANTIZABLE = ("f32", "f16", "bf16", "i8", "u8")
_STORAGES = {dtype.name: dtype.storage for dtype in dtypes.ALL if dtype.storage is not None}


def codec_names() -> list[str]:
    """Every codec that is installed: ours, then those of other packages."""
    return [*CODECS, *plugin_codecs()]


def codec_code(name: str) -> int:
    """The number that descriptors carry for an installed codec."""
    return CODECS[name] if name in CODECS else plugin_codecs()[name].code


def zstandard_parameters(level: int = 3, dictionary: bytes = b"") -> bytes:
    """Parameters of a tensor that zstandard codes.

    Args:
        level: The level that the encoder uses.
        dictionary: What both sides share as the beginning of all data.
    """
    return struct.pack("<b", level) + dictionary


def zstandard_level(parameters: bytes) -> int:
    """The level in the parameters of a tensor that zstandard codes."""
    (level,) = struct.unpack_from("<b", parameters)
    return level


@dataclass(frozen=True, slots=True)
class QuantizationSpec:
    """Affine quantization of a tensor to integers of at most 8 bits.

    A value x becomes q = clip(round_half_even(x / scale) + zero_point), and q becomes
    (q - zero_point) * scale. For a tensor of i8 or u8 that result is rounded half to even and
    clamped to the type: the integers are coarser steps than its own.

    Attributes:
        scales: One for the whole tensor, or one for every index along `axis`; as float32.
        zero_points: As many integers.
        dtype: Type of the integers, "i8" or "u8".
        bits: Width of the integers' range, 2 to 8.
        axis: The axis that scales and zero points belong to; None for one of each.
        outliers: Let values beyond the range, NaN and infinities too, travel exactly beside the
            integers, up to a sixteenth of the tensor. Otherwise they are clipped, and NaN
            becomes 0.

    Raises:
        ValueError: A scale, a zero point or the range is out of bounds.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    dtype: str = "i8"
    bits: int = 8
    axis: int | None = None
    outliers: bool = False

    def __post_init__(self) -> None:
        # Frames carry float32. Rounded at once, equal specifications give equal bytes.
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
        self._check_steps()

    def _check_steps(self) -> None:
        """Raise ValueError for a scale or a zero point that no quantization has."""
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
        """The smallest integer."""
        return -(1 << (self.bits - 1)) if self.dtype == "i8" else 0

    @property
    def high(self) -> int:
        """The largest integer."""
        return self.low + (1 << self.bits) - 1

    def to_json(self) -> dict[str, Any]:
        """The description as manifests have it."""
        return {
            "dtype": self.dtype,
            "bits": self.bits,
            "scales": list(self.scales),
            "zero_points": list(self.zero_points),
            "axis": self.axis,
            "outliers": self.outliers,
        }


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a boundary.

    Attributes:
        name: Its name in the original model.
        dtype: Its element type. bfloat16 and the 8-bit floats travel as the integers that store
            them.
        shape: Its dimensions. None is an open one, whose size every frame carries.
        quantization: How its values become integers; None when they travel exactly.
        codec: The name of an installed codec.
        parameters: What the codec needs. The default of zstandard is filled in.
        chunk: Elements that are coded at a time. A default is filled in where the codec has chunks.

    Raises:
        UnsupportedError: No frame can carry the tensor like this; the text says what to change.
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
        self._check_shape(where)

        if len(self.name.encode()) > NAME_LIMIT:
            raise UnsupportedError(
                f"{where}: the name is longer than {NAME_LIMIT} bytes; rename the tensor"
            )
        if self.codec not in CODECS and self.codec not in plugin_codecs():
            raise UnsupportedError(
                f"{where}: unknown codec {self.codec!r}; known codecs: {', '.join(codec_names())}"
            )

        self._check_quantization(where)
        self._fill_in(where)
        self._check_codec(where)

    def _check_shape(self, where: str) -> None:
        """Raise UnsupportedError for a shape that a frame cannot carry."""
        if len(self.shape) > MAX_RANK:
            raise UnsupportedError(
                f"{where}: rank {len(self.shape)} is above {MAX_RANK}; cut elsewhere"
            )

        # Open dimensions count as 1 here. Frames are checked with their sizes.
        size = self.storage.itemsize
        for dim in self.shape:
            size *= max(dim or 1, 1)
            if (dim is not None and not 0 <= dim < SYMBOLIC) or size > _SIZE_LIMIT:
                raise UnsupportedError(
                    f"{where}: shape {self.shape} does not fit a frame; cut elsewhere"
                )

    def _check_quantization(self, where: str) -> None:
        """Raise UnsupportedError for a quantization that does not fit type and shape."""
        q = self.quantization
        if q is None:
            return
        if self.dtype not in _QUANTIZABLE:
            raise UnsupportedError(
                f"{where}: {self.dtype} cannot be quantized; only {', '.join(_QUANTIZABLE)} can"
            )

        # One scale for each index along the axis, whose size must be known.
        count: int | None = 1
        if q.axis is not None:
            count = self.shape[q.axis] if 0 <= q.axis < len(self.shape) else None
        if count is None:
            raise UnsupportedError(
                f"{where}: axis {q.axis} of the scales is not a static axis of shape {self.shape}"
            )

        if len(q.scales) != count:
            raise UnsupportedError(
                f"{where}: {len(q.scales)} scales do not match axis {q.axis} of shape {self.shape}"
            )

    def _fill_in(self, where: str) -> None:
        """Fill in the parameters and the chunk that were left out.

        A model of static-rans has no default, and is checked here because its channels tell the
        chunk.
        """
        if self.codec == "zstandard" and not self.parameters:
            object.__setattr__(self, "parameters", zstandard_parameters())
        if self.codec == "static-rans":
            self._check_model(where)
        elif self.codec != "raw" and self.chunk == 0:
            object.__setattr__(self, "chunk", _DEFAULT_CHUNK_BYTES // self.wire_size)

    def _check_codec(self, where: str) -> None:
        """Raise UnsupportedError for parameters or a chunk that the codec does not take."""
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
        """Check a model of static-rans against the tensor, and fill in the chunk."""
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
            pixels = max(1, _DEFAULT_CHUNK_SYMBOLS // channels)
            object.__setattr__(self, "chunk", pixels * channels)
        if self.chunk % channels:
            raise UnsupportedError(
                f"{where}: chunks of {self.chunk} elements do not hold whole pixels of {channels}"
            )

    def _has_elements(self, elements: Elements) -> bool:
        """Whether the model's way to take elements apart fits the elements of this tensor."""
        if elements.kind == "bytes":
            return self.wire_size == 1

        if self.quantization is not None:
            return False
        if elements.kind == "integer":
            return self.dtype in WIDE_INTEGERS

        # A type that is no float has a mantissa that nothing fits.
        mantissa, width = MANTISSA_BITS.get(self.dtype, -1), 8 * self.storage.itemsize
        in_range = elements.keep <= 7 and elements.zero <= 254 and 0 <= elements.base < 65536
        fits = elements.keep + elements.tail <= mantissa and elements.top < 1 << width
        return in_range and fits

    @property
    def storage(self) -> np.dtype[np.generic]:
        """numpy's type of the tensor's elements."""
        return _STORAGES[self.dtype]

    @property
    def wire_size(self) -> int:
        """Bytes of an element after quantization, as the codec sees it."""
        return 1 if self.quantization is not None else self.storage.itemsize

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON. Of the codec's parameters it has the size only."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "quantization": None if self.quantization is None else self.quantization.to_json(),
            "codec": self.codec,
            "codec_bytes": len(self.parameters),
        }
