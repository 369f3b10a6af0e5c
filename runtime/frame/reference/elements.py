"""Elements of a tensor to symbols and remaining bits, and back: static-rans before entropy coding.

How an element is taken apart is told by `Elements` of the model (FORMAT.md).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.descriptor import MANTISSA_BITS, TensorSpec
from irsplit.runtime.frame.rans_model import Elements, Geometry, Symbols
from irsplit.runtime.frame.status import Status, StatusError

RAW = 255
"""The symbol of an element that travels whole, among the remaining bits."""
TOP = 254
"""The symbol of a model's `top` value."""

_Words = NDArray[np.uint64]
_ALL_ONES = 0xFFFFFFFFFFFFFFFF


class Split(NamedTuple):
    """Elements that are taken apart, arrays of one shape.

    `rest` has the remaining bits of every element, and `sizes` how many they are.
    """

    symbols: Symbols
    sizes: NDArray[np.int64]
    rest: _Words


def pixel_order(array: NDArray[np.generic], geo: Geometry) -> NDArray[np.generic]:
    """A row-major tensor as [pixels, channels]."""
    if not geo.planar:
        return array.reshape(-1, geo.channels)
    planes = array.reshape(geo.images, geo.channels, geo.height * geo.width)
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(-1, geo.channels)


def tensor_order(
    pixels: NDArray[np.generic], geo: Geometry, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """The inverse of `pixel_order`."""
    if not geo.planar:
        return pixels.reshape(shape)
    planes = pixels.reshape(geo.images, geo.height * geo.width, geo.channels)
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(shape)


def is_signed_byte(spec: TensorSpec) -> bool:
    """Whether the codec sees elements of i8."""
    return (spec.dtype if spec.quantization is None else spec.quantization.dtype) == "i8"


def _sign_flip(spec: TensorSpec) -> np.uint8:
    """What makes bytes rise with the values that they stand for, by exclusive or."""
    return np.uint8(0x80 if is_signed_byte(spec) else 0)


def _unsigned(values: NDArray[np.generic]) -> _Words:
    return values.view(f"u{values.dtype.itemsize}").astype(np.uint64)


def split(elements: Elements, spec: TensorSpec, values: NDArray[np.generic]) -> Split:
    """Take elements apart.

    Args:
        elements: How.
        spec: The tensor in its boundary.
        values: Its elements in pixel order, of the storage type, or bytes when quantized.
    """
    if elements.kind == "bytes":
        zeros = np.zeros(values.shape, np.int64)
        return Split(values.view(np.uint8) ^ _sign_flip(spec), zeros, zeros.view(np.uint64))

    split_kind = _split_float if elements.kind == "float" else _split_integer
    symbols, rest, rest_bits = split_kind(elements, spec, values)
    raw = symbols == RAW
    sizes = np.where(raw, 8 * values.dtype.itemsize, rest_bits)
    return Split(symbols.astype(np.uint8), sizes, np.where(raw, _unsigned(values), rest))


def _split_float(
    e: Elements, spec: TensorSpec, values: NDArray[np.generic]
) -> tuple[NDArray[np.int64], _Words, NDArray[np.int64]]:
    """Symbols, remaining bits, and how many these are.

    A step counts exponent and kept bits of the mantissa from `base`. Positive steps lie above
    `zero`, negative ones below.
    """
    mantissa, width = MANTISSA_BITS[spec.dtype], 8 * values.dtype.itemsize
    bits = _unsigned(values).astype(np.int64)
    magnitude, negative = bits & (1 << (width - 1)) - 1, bits >> (width - 1) == 1
    step = (magnitude >> (mantissa - e.keep)) - e.base
    symbols = np.where(negative, e.zero - 1 - step, e.zero + 1 + step)

    # What has no symbol, or bits in the tail, travels whole.
    most = TOP - 1 if e.top else TOP
    has_symbol = (step >= 0) & (symbols >= 0) & (symbols <= most)
    has_tail = magnitude & (1 << e.tail) - 1 != 0
    symbols = np.where(has_symbol & ~has_tail, symbols, RAW)
    rest_size = mantissa - e.keep - e.tail
    rest = (magnitude >> e.tail) & (1 << rest_size) - 1
    sizes = np.full(values.shape, rest_size)

    # +0.0 and the top value have symbols of their own and no remaining bits.
    special = (bits == 0) | ((bits == e.top) & (e.top != 0))
    symbols = np.where(special, np.where(bits == 0, e.zero, TOP), symbols)
    return symbols, np.where(special, 0, rest).astype(np.uint64), np.where(special, 0, sizes)


def _split_integer(
    e: Elements, spec: TensorSpec, values: NDArray[np.generic]
) -> tuple[NDArray[np.int64], _Words, NDArray[np.int64]]:
    """Symbols, remaining bits, and how many these are: the distance from `base`, in two parts."""
    wide = values.astype(np.uint64 if spec.dtype[0] == "u" else np.int64).view(np.uint64)
    distance = wide - np.uint64(e.base & _ALL_ONES)
    symbols = np.minimum(distance >> np.uint64(e.keep), np.uint64(RAW)).astype(np.int64)
    return symbols, distance & np.uint64((1 << e.keep) - 1), np.full(values.shape, e.keep)


def join(e: Elements, spec: TensorSpec, symbols: Symbols, rest: memoryview) -> NDArray[np.generic]:
    """The inverse of `split`.

    Args:
        e: How elements are taken apart.
        spec: The tensor in its boundary.
        symbols: The symbols in pixel order.
        rest: The remaining bits, packed.

    Raises:
        StatusError: The bits are CORRUPT: more or fewer than the symbols ask for.
    """
    if e.kind == "bytes":
        dtype = spec.storage if spec.quantization is None else np.dtype(np.uint8)
        return (symbols ^ _sign_flip(spec)).view(dtype)

    width = 8 * spec.storage.itemsize
    s = symbols.astype(np.int64)
    raw = s == RAW
    if e.kind == "integer":
        low = unpack_bits(np.where(raw, width, e.keep), rest)
        base = np.uint64(e.base & _ALL_ONES)
        bits = (s.astype(np.uint64) << np.uint64(e.keep)) + low + base
    else:
        special = (s == e.zero) | ((s == TOP) & (e.top != 0))
        rest_bits = np.where(special, 0, MANTISSA_BITS[spec.dtype] - e.keep - e.tail)
        low = unpack_bits(np.where(raw, width, rest_bits), rest)
        bits = _join_float(e, spec, s, low)
    return np.where(raw, low, bits).astype(f"<u{spec.storage.itemsize}").view(spec.storage)


def _join_float(e: Elements, spec: TensorSpec, s: NDArray[np.int64], low: _Words) -> _Words:
    """Bit patterns of floats from symbols and remaining bits."""
    mantissa, width = MANTISSA_BITS[spec.dtype], 8 * spec.storage.itemsize
    negative = s < e.zero
    step = np.where(negative, e.zero - 1 - s, s - e.zero - 1) + e.base
    high = step << (mantissa - e.keep)
    sign = negative.astype(np.int64) << (width - 1)
    bits = high | low.astype(np.int64) << e.tail | sign

    bits = np.where(s == e.zero, 0, bits)
    if e.top:
        bits = np.where(s == TOP, e.top, bits)
    return bits.astype(np.uint64)


def pack_bits(sizes: NDArray[np.int64], values: _Words) -> bytes:
    """Pack values one after another, each from its lowest bit on.

    Args:
        sizes: Bits of every value.
        values: The values.

    Returns:
        Bytes that are filled from their lowest bit on. Spare bits are zero.
    """
    lengths, flat = sizes.ravel(), values.ravel()
    ends = np.cumsum(lengths)
    starts = ends - lengths
    bits = np.zeros(int(ends[-1]) if ends.size else 0, np.uint8)

    # Bit by bit, for all values that have it.
    for bit in range(int(lengths.max(initial=0))):
        has = lengths > bit
        bits[starts[has] + bit] = (flat[has] >> np.uint64(bit)) & np.uint64(1)
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_bits(sizes: NDArray[np.int64], data: memoryview) -> _Words:
    """The inverse of `pack_bits`.

    Raises:
        StatusError: CORRUPT, when the data are longer or shorter than the sizes say, or a spare bit
            is not zero.
    """
    lengths = sizes.ravel()
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if ends.size else 0
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if len(data) != (total + 7) // 8 or np.any(bits[total:]):
        raise StatusError(Status.CORRUPT)

    starts, values = ends - lengths, np.zeros(lengths.shape, np.uint64)
    for bit in range(int(lengths.max(initial=0))):
        has = lengths > bit
        values[has] |= bits[starts[has] + bit].astype(np.uint64) << np.uint64(bit)
    return values.reshape(sizes.shape)
