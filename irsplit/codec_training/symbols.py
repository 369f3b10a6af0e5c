"""Choosing how elements become symbols: for floats and wide integers, from what calibration tensors hold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import UnsupportedError
from irsplit.runtime.frame.descriptor import MANTISSA_BITS, WIDE_INTEGERS, TensorSpec
from irsplit.runtime.frame.rans_model import Elements

Array = NDArray[np.generic]

_SYMBOLS = 254
_TOP_SHARE = 0.002
"""A value this frequent (the 6 of a ReLU6) gets a symbol of its own."""
_RAW_SHARE = 0.001


def choose_elements(samples: Sequence[Array], spec: TensorSpec) -> Elements:
    """How tensors like `samples` are split into symbols and remaining bits."""
    if spec.quantization is not None or spec.storage.itemsize == 1:
        return Elements()
    if spec.dtype in MANTISSA_BITS:
        bits = np.concatenate(
            [sample.ravel().view(f"u{spec.storage.itemsize}") for sample in samples]
        )
        return _choose_float(
            bits.astype(np.int64), MANTISSA_BITS[spec.dtype], 8 * spec.storage.itemsize
        )
    if spec.dtype in WIDE_INTEGERS:
        values = np.concatenate([sample.ravel() for sample in samples])
        return _choose_integer(int(values.min()), int(values.max()))
    raise UnsupportedError(
        f"tensor {spec.name!r}: static-rans does not code elements of {spec.dtype}; use zstandard"
    )


def supports(spec: TensorSpec) -> bool:
    """Whether static-rans codes tensors of this type."""
    one_byte = spec.quantization is not None or spec.storage.itemsize == 1
    return one_byte or spec.dtype in MANTISSA_BITS or spec.dtype in WIDE_INTEGERS


def _trailing_zeros(bits: NDArray[np.int64], most: int) -> int:
    together = int(np.bitwise_or.reduce(bits, initial=0))
    return most if together == 0 else min(most, (together & -together).bit_length() - 1)


def _top(bits: NDArray[np.int64], width: int) -> int:
    """The largest positive value, when it is met so often that it must be a clamp."""
    positive = bits[(bits >> (width - 1) == 0) & (bits != 0)]
    if positive.size == 0:
        return 0
    top = int(positive.max())
    return top if np.count_nonzero(positive == top) >= max(4, _TOP_SHARE * bits.size) else 0


def _choose_float(bits: NDArray[np.int64], mantissa: int, width: int) -> Elements:
    """As many mantissa bits as the range of exponents leaves symbols for; rare small magnitudes travel whole."""
    top = _top(bits, width)
    plain = bits[(bits != 0) & (bits != top)]
    if plain.size == 0:
        return Elements("float", 0, 0, 0, top, 1)
    magnitude, negative = plain & (1 << (width - 1)) - 1, plain >> (width - 1) == 1
    tail = _trailing_zeros(magnitude, mantissa)
    for keep in range(min(4, mantissa - tail), -1, -1):
        steps = magnitude >> (mantissa - keep)
        base = int(np.quantile(steps, _RAW_SHARE / 2, method="lower"))
        below = int(steps[negative].max(initial=base - 1)) - base + 1
        above = int(steps[~negative].max(initial=base - 1)) - base + 1
        room = _SYMBOLS - (top != 0)
        fits = below + above <= room
        if fits or keep == 0:
            spare = max(0, room - below - above) // 2 if below else 0
            return Elements("float", keep, tail, min(below + spare, room), top, base)
    raise AssertionError("unreachable: keep == 0 returns")


def _choose_integer(low: int, high: int) -> Elements:
    keep = 0
    while (high - low) >> keep >= _SYMBOLS and keep < 32:
        keep += 1
    return Elements("integer", keep, 0, 0, 0, low if low < 1 << 63 else low - (1 << 64))
