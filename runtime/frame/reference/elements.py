"""Elements of a tensor to symbols and remaining bits, and back: the part of static-rans before the entropy coder."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.descriptor import MANTISSA_BITS, TensorSpec
from irsplit.runtime.frame.rans_model import Elements, Geometry, Symbols
from irsplit.runtime.frame.status import Status, StatusError

RAW = 255
TOP = 254

_Words = NDArray[np.uint64]


class Split(NamedTuple):
    """Symbols, and for every element how many remaining bits it has and which."""

    symbols: Symbols
    sizes: NDArray[np.int64]
    rest: _Words


def pixel_order(array: NDArray[np.generic], geo: Geometry) -> NDArray[np.generic]:
    """[pixels, channels] of a row-major tensor."""
    if geo.planar:
        planes = array.reshape(geo.images, geo.channels, geo.height * geo.width)
        return np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(-1, geo.channels)
    return array.reshape(-1, geo.channels)


def tensor_order(
    pixels: NDArray[np.generic], geo: Geometry, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """The inverse of `pixel_order`."""
    if geo.planar:
        planes = pixels.reshape(geo.images, geo.height * geo.width, geo.channels)
        return np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(shape)
    return pixels.reshape(shape)


def is_signed_byte(spec: TensorSpec) -> bool:
    return (spec.dtype if spec.quantization is None else spec.quantization.dtype) == "i8"


def _unsigned(values: NDArray[np.generic]) -> _Words:
    return values.view(f"u{values.dtype.itemsize}").astype(np.uint64)


def split(elements: Elements, spec: TensorSpec, values: NDArray[np.generic]) -> Split:
    """`values` in pixel order, of the wire type: the storage type, or bytes when quantized."""
    if elements.kind == "bytes":
        flip = np.uint8(0x80 if is_signed_byte(spec) else 0)
        zeros = np.zeros(values.shape, np.int64)
        return Split(values.view(np.uint8) ^ flip, zeros, zeros.view(np.uint64))
    symbols, rest, rest_bits = (_split_float if elements.kind == "float" else _split_integer)(
        elements, spec, values
    )
    whole = _unsigned(values)
    raw = symbols == RAW
    sizes = np.where(raw, 8 * values.dtype.itemsize, rest_bits)
    return Split(symbols.astype(np.uint8), sizes, np.where(raw, whole, rest))


def _split_float(
    e: Elements, spec: TensorSpec, values: NDArray[np.generic]
) -> tuple[NDArray[np.int64], _Words, NDArray[np.int64]]:
    mantissa, width = MANTISSA_BITS[spec.dtype], 8 * values.dtype.itemsize
    bits = _unsigned(values).astype(np.int64)
    magnitude, negative = bits & (1 << (width - 1)) - 1, bits >> (width - 1) == 1
    step = (magnitude >> (mantissa - e.keep)) - e.base
    symbols = np.where(negative, e.zero - 1 - step, e.zero + 1 + step)
    most = TOP - 1 if e.top else TOP
    fits = (step >= 0) & (symbols >= 0) & (symbols <= most) & (magnitude & (1 << e.tail) - 1 == 0)
    symbols = np.where(fits, symbols, RAW)
    rest_size = mantissa - e.keep - e.tail
    rest = (magnitude >> e.tail) & (1 << rest_size) - 1
    sizes = np.full(values.shape, rest_size)
    special = (bits == 0) | ((bits == e.top) & (e.top != 0))
    symbols = np.where(special, np.where(bits == 0, e.zero, TOP), symbols)
    return symbols, np.where(special, 0, rest).astype(np.uint64), np.where(special, 0, sizes)


def _split_integer(
    e: Elements, spec: TensorSpec, values: NDArray[np.generic]
) -> tuple[NDArray[np.int64], _Words, NDArray[np.int64]]:
    wide = values.astype(np.uint64 if spec.dtype[0] == "u" else np.int64).view(np.uint64)
    distance = wide - np.uint64(e.base & 0xFFFFFFFFFFFFFFFF)
    symbols = np.minimum(distance >> np.uint64(e.keep), np.uint64(RAW)).astype(np.int64)
    return symbols, distance & np.uint64((1 << e.keep) - 1), np.full(values.shape, e.keep)


def join(e: Elements, spec: TensorSpec, symbols: Symbols, rest: memoryview) -> NDArray[np.generic]:
    """The inverse of `split`, from packed bits. Raises StatusError(CORRUPT)."""
    if e.kind == "bytes":
        flip = np.uint8(0x80 if is_signed_byte(spec) else 0)
        dtype = spec.storage if spec.quantization is None else np.dtype(np.uint8)
        return (symbols ^ flip).view(dtype)
    width = 8 * spec.storage.itemsize
    s = symbols.astype(np.int64)
    raw = s == RAW
    if e.kind == "integer":
        plain = np.full(s.shape, e.keep)
    else:
        special = (s == e.zero) | ((s == TOP) & (e.top != 0))
        plain = np.where(special, 0, MANTISSA_BITS[spec.dtype] - e.keep - e.tail)
    low = unpack_bits(np.where(raw, width, plain), rest)
    if e.kind == "integer":
        bits = (
            (s.astype(np.uint64) << np.uint64(e.keep))
            + low
            + np.uint64(e.base & 0xFFFFFFFFFFFFFFFF)
        )
    else:
        bits = _join_float(e, spec, s, low)
    return np.where(raw, low, bits).astype(f"<u{spec.storage.itemsize}").view(spec.storage)


def _join_float(e: Elements, spec: TensorSpec, s: NDArray[np.int64], low: _Words) -> _Words:
    mantissa, width = MANTISSA_BITS[spec.dtype], 8 * spec.storage.itemsize
    negative = s < e.zero
    step = np.where(negative, e.zero - 1 - s, s - e.zero - 1) + e.base
    bits = (
        step << (mantissa - e.keep)
        | low.astype(np.int64) << e.tail
        | negative.astype(np.int64) << (width - 1)
    )
    bits = np.where((s == TOP) & (e.top != 0), e.top, np.where(s == e.zero, 0, bits))
    return bits.astype(np.uint64)


def pack_bits(sizes: NDArray[np.int64], values: _Words) -> bytes:
    """Values one after another, each from its lowest bit on, into bytes from their lowest bit on."""
    ends = np.cumsum(sizes.ravel())
    total = int(ends[-1]) if ends.size else 0
    starts, flat, lengths = ends - sizes.ravel(), values.ravel(), sizes.ravel()
    bits = np.zeros(total, np.uint8)
    for bit in range(int(lengths.max(initial=0))):
        has = lengths > bit
        bits[starts[has] + bit] = (flat[has] >> np.uint64(bit)) & np.uint64(1)
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_bits(sizes: NDArray[np.int64], data: memoryview) -> _Words:
    """The inverse of `pack_bits`; the data must be exactly as long as the sizes say, spare bits zero."""
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
