"""Choose how the elements of a tensor are split into symbols and remaining bits.

The entropy coder has 256 symbols. Elements of one byte are symbols as they are. Others are split,
and one symbol announces an element that travels whole:

* A float becomes a symbol of its sign, its exponent and the highest bits of its mantissa. The
  other bits of the mantissa look random, so they travel as they are. As many bits of the mantissa
  as possible go into the symbol: as long as the range of magnitudes that occur has at most as many
  steps as there are symbols. The smallest magnitudes, which are rare and would widen the range,
  travel whole. A value at the top of the range that occurs often, such as the 6 of a ReLU6, has a
  symbol of its own. Bits at the end of the mantissa that are zero in all values are left out.
* A wide integer becomes a symbol of its highest bits, counted from the lowest value.
"""

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
"""Share of the values, the smallest magnitudes, that may travel whole."""
_MOST_MANTISSA = 4
"""The most bits of the mantissa that go into a symbol."""


def choose_elements(samples: Sequence[Array], spec: TensorSpec) -> Elements:
    """Choose how the elements of a tensor become symbols.

    Args:
        samples: Values of the tensor as they will be framed.
        spec: Type, shape and quantization of the tensor.

    Raises:
        UnsupportedError: static-rans does not code elements of this type.
    """
    if spec.quantization is not None or spec.storage.itemsize == 1:
        return Elements()

    width = 8 * spec.storage.itemsize
    if spec.dtype in MANTISSA_BITS:
        bits = np.concatenate([sample.ravel().view(f"u{width // 8}") for sample in samples])
        return _choose_float(bits.astype(np.int64), MANTISSA_BITS[spec.dtype], width)
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
    """How many of the lowest bits are zero in all values, `most` at most."""
    together = int(np.bitwise_or.reduce(bits, initial=0))
    if together == 0:
        return most
    lowest_bit = together & -together
    return min(most, lowest_bit.bit_length() - 1)


def _top(bits: NDArray[np.int64], width: int) -> int:
    """The largest positive value if it occurs so often that it must be a clamp, else 0."""
    positive = bits[(bits >> (width - 1) == 0) & (bits != 0)]
    if positive.size == 0:
        return 0
    top = int(positive.max())
    often = max(4, _TOP_SHARE * bits.size)
    return top if np.count_nonzero(positive == top) >= often else 0


def _choose_float(bits: NDArray[np.int64], mantissa: int, width: int) -> Elements:
    """Choose for floats, given as the integers of their bits.

    Without its sign, the bits of a float grow with its magnitude. Shifted right until `keep` bits
    of the mantissa are left, they number the steps of the range of magnitudes; negative and
    positive values have ranges of their own above a common `base`.
    """
    top = _top(bits, width)
    plain = bits[(bits != 0) & (bits != top)]
    if plain.size == 0:
        return Elements("float", 0, 0, 0, top, 1)

    magnitude = plain & (1 << (width - 1)) - 1
    negative = plain >> (width - 1) == 1
    tail = _trailing_zeros(magnitude, mantissa)
    room = _SYMBOLS - (top != 0)
    for keep in range(min(_MOST_MANTISSA, mantissa - tail), -1, -1):
        # The lowest magnitudes are rare; below the base, elements travel whole.
        steps = magnitude >> (mantissa - keep)
        base = int(np.quantile(steps, _RAW_SHARE / 2, method="lower"))
        below = int(steps[negative].max(initial=base - 1)) - base + 1
        above = int(steps[~negative].max(initial=base - 1)) - base + 1
        if below + above <= room or keep == 0:
            # Other data may have larger magnitudes: the symbols that are left are shared out.
            spare = max(0, room - below - above) // 2 if below else 0
            return Elements("float", keep, tail, min(below + spare, room), top, base)
    raise AssertionError("unreachable: keep == 0 returns")


def _choose_integer(low: int, high: int) -> Elements:
    """Choose for wide integers between two values."""
    keep = 0
    while (high - low) >> keep >= _SYMBOLS and keep < 32:
        keep += 1
    # the lowest value is stored as a signed integer of 64 bits
    return Elements("integer", keep, 0, 0, 0, low if low < 1 << 63 else low - (1 << 64))
