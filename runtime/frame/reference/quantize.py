"""Quantization in numpy: the same arithmetic in binary32, in the same order, as src/quantize.c."""

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.descriptor import QuantizationSpec, TensorSpec

_Floats = NDArray[np.float32]


def outlier_limit(count: int) -> int:
    """Most outliers of a tensor of `count` elements. Values beyond them are clipped."""
    return count // 16 + 16


def _to_float(spec: TensorSpec, array: NDArray[np.generic]) -> _Floats:
    # A bfloat16 is the upper half of a float32.
    if spec.dtype == "bf16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def _from_float(spec: TensorSpec, values: _Floats) -> NDArray[np.generic]:
    if spec.dtype == "bf16":
        # Round half to even: the lowest bit that stays decides a tie.
        bits = values.view(np.uint32)
        lowest = bits >> np.uint32(16) & np.uint32(1)
        return ((bits + np.uint32(0x7FFF) + lowest) >> np.uint32(16)).astype(np.uint16)

    if spec.dtype in ("i8", "u8"):
        low = -128 if spec.dtype == "i8" else 0
        return np.rint(np.clip(values, low, low + 255)).astype(spec.storage)

    with np.errstate(over="ignore"):
        return values.astype(spec.storage)


def _steps(q: QuantizationSpec, rank: int) -> tuple[_Floats, _Floats]:
    """Scales and zero points, shaped to broadcast over a tensor of this rank."""
    shape = [1] * rank
    if q.axis is not None:
        shape[q.axis] = len(q.scales)
    scales = np.array(q.scales, np.float32).reshape(shape)
    zeros = np.array(q.zero_points, np.float32).reshape(shape)
    return scales, zeros


def quantize(
    spec: TensorSpec, array: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Quantize a tensor.

    Args:
        spec: The tensor in its boundary, with a quantization.
        array: Its elements in the storage type.

    Returns:
        The integers as bytes in row-major order, and the flat indices of the outliers that travel
        exactly, rising.
    """
    q = spec.quantization
    assert q is not None
    scales, zeros = _steps(q, array.ndim)
    low, high = np.float32(q.low) - zeros, np.float32(q.high) - zeros
    with np.errstate(all="ignore"):
        values = _to_float(spec, array) / scales
        numbers = np.where(np.isnan(values), np.float32(0), values)
        integers = np.rint(np.clip(numbers, low, high)) + zeros
        # One step beyond the range is enough to see that a value lies outside. NaN stays NaN.
        rounded = np.rint(np.clip(values, low - 1, high + 1))

    outliers = np.empty(0, np.intp)
    if q.outliers:
        inside = (rounded >= low) & (rounded <= high)
        outliers = np.flatnonzero(~inside)[: outlier_limit(array.size)]
    return integers.astype(np.int32).astype(np.uint8).ravel(), outliers


def dequantize(
    spec: TensorSpec, integers: NDArray[np.uint8], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Restore a tensor of this shape from its integers, without its outliers."""
    q = spec.quantization
    assert q is not None
    scales, zeros = _steps(q, len(shape))
    signed = integers.view(np.int8 if q.dtype == "i8" else np.uint8).reshape(shape)
    with np.errstate(all="ignore"):
        return _from_float(spec, (signed.astype(np.float32) - zeros) * scales)
