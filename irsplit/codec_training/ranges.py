"""Choose the range that a quantized tensor covers, from calibration samples.

There is one range for the whole tensor, or one for each channel. Values beyond the range travel
exactly, as outliers. A narrower range therefore makes the steps finer and costs bytes for outliers,
but never accuracy. Four methods choose a range:

* min-max: all values.
* percentile: all values but the lowest and the highest tenth of a percent.
* mse: the range with the least squared error if the values beyond it were clipped.
* entropy: the range whose quantized histogram is closest to that of the values, by the
  Kullback-Leibler divergence.

The last two try ranges that shrink from the whole one to 30 % of it, and never one that makes more
than 1 in 32 values an outlier.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.descriptor import QuantizationSpec

Floats = NDArray[np.float32]
Range = tuple[float, float]

PERCENTILE = 99.9
_HISTOGRAM_BINS = 2048
_SHRINKS = np.linspace(1.0, 0.3, 29)
_OUTLIERS_AT_MOST = 1 / 32
"""Half of what a frame holds (FORMAT.md), because calibration sees only some of the data."""


def quantization(
    samples: Sequence[NDArray[Any]],
    levels: int,
    *,
    method: str = "min-max",
    axis: int | None = None,
    outliers: bool = True,
) -> QuantizationSpec:
    """Choose the quantization of a float tensor.

    Args:
        samples: Values of the tensor; NaN and infinities are ignored.
        levels: How many integers there are. The integers get the fewest bits that hold them.
        method: A key of `METHODS`.
        axis: The axis that gets one scale for each of its indices; None for one scale.
        outliers: Whether values beyond the range travel exactly.

    Returns:
        Asymmetric quantization that represents zero exactly.

    Example:
        spec = quantization([activations], 256, method="entropy", axis=1)
        spec.scales
    """
    groups = _value_groups([np.asarray(sample, np.float32) for sample in samples], axis)
    scales: list[float] = []
    zeros: list[int] = []
    for values in groups:
        range_ = METHODS[method](values[np.isfinite(values)], levels)
        scale, zero = _step(range_, levels)
        scales.append(scale)
        zeros.append(zero)
    return QuantizationSpec(tuple(scales), tuple(zeros), "i8", fewest_bits(levels), axis, outliers)


def requantization(
    samples: Sequence[NDArray[Any]],
    levels: int,
    zero: int,
    *,
    method: str = "min-max",
    axis: int | None = None,
) -> QuantizationSpec | None:
    """Choose coarser steps for a tensor that has integers of 8 bits already.

    In steps above 1, all integers of the type fit into 8 bits, so that nothing is an outlier,
    whatever calibration has seen. An entropy coder pays only for the integers that occur.

    Args:
        samples: Values of the tensor, i8 or u8.
        levels: How many steps there are over the range of the samples.
        zero: The integer that stands for 0. It is restored exactly if no step is larger than it.
        method: A key of `METHODS`.
        axis: The axis that gets one scale for each of its indices; None for one scale.

    Returns:
        The quantization, None if its steps would be no coarser than the integers themselves.
    """
    groups = _value_groups([np.asarray(sample, np.float32) - zero for sample in samples], axis)
    scales: list[float] = []
    for values in groups:
        scale, _ = _step(METHODS[method](values, levels), levels)
        scales.append(max(scale, 1.0))
    if max(scales) == 1.0:
        return None

    lowest = -128 if samples[0].dtype == np.uint8 else 0
    through_zero = tuple(_through(zero, scale) for scale in scales)
    return QuantizationSpec(through_zero, (lowest,) * len(scales), "i8", 8, axis)


def fewest_bits(levels: int) -> int:
    """Return the fewest bits that hold so many integers."""
    return (levels - 1).bit_length()


def _value_groups(arrays: Sequence[Floats], axis: int | None) -> list[Floats]:
    """The values that share a scale: all of them, or those of each index of an axis."""
    if axis is None:
        return [np.concatenate([array.ravel() for array in arrays])]
    by_index = [np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in arrays]
    return list(np.concatenate(by_index, 1))


def _through(zero: int, scale: float) -> float:
    """The least scale from this one on of which `zero` is a multiple.

    If the scale is larger than `zero`, there is none, and the scale stays as it is.
    """
    steps = int(abs(zero) / scale)
    return abs(zero) / steps if steps else scale


def signal_to_noise_db(samples: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float:
    """Return the signal-to-noise ratio of arrays that have lost precision.

    Args:
        samples: The exact arrays.
        found: The same arrays after the loss.

    Returns:
        10 log10 of the power of the samples over the power of the error; infinite without error.
    """
    signal = noise = 0.0
    for exact, lossy in zip(samples, found, strict=True):
        values = np.asarray(exact, np.float64)
        signal += float(np.square(values).sum())
        noise += float(np.square(values - lossy).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(max(signal, 1e-300) / noise))


def _step(range_: Range, levels: int) -> tuple[float, int]:
    """Scale and zero point of a range, which is widened so that it holds 0."""
    low, high = min(range_[0], 0.0), max(range_[1], 0.0)
    # A range of nothing but zeros still needs a scale above 0.
    steps, lowest = levels - 1, _lowest(levels)
    scale = max((high - low) / steps, float(np.finfo(np.float32).tiny))
    return scale, min(max(round(lowest - low / scale), lowest), lowest + steps)


def _lowest(levels: int) -> int:
    """The lowest integer of a signed type that holds so many."""
    return -(1 << (fewest_bits(levels) - 1))


def _min_max(values: Floats, levels: int) -> Range:
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _percentile(values: Floats, levels: int) -> Range:
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, [100 - PERCENTILE, PERCENTILE])
    return float(low), float(high)


def _shrunk(values: Floats) -> list[Range]:
    """The whole range and smaller ones, as long as few enough values are outside."""
    low, high = _min_max(values, 256)
    ranges: list[Range] = []
    for shrink in _SHRINKS.tolist():
        inner_low, inner_high = low * shrink, high * shrink
        outside = np.mean((values < inner_low) | (values > inner_high))
        if outside <= _OUTLIERS_AT_MOST:
            ranges.append((inner_low, inner_high))
    return ranges or [(low, high)]


def _mse(values: Floats, levels: int) -> Range:
    """The range with the least squared error if the values beyond it are clipped."""
    if not values.size:
        return 0.0, 0.0

    def error(range_: Range) -> float:
        scale, zero = _step(range_, levels)
        lowest = _lowest(levels)
        codes = np.clip(np.rint(values / scale) + zero, lowest, lowest + levels - 1)
        return float(np.square((codes - zero) * scale - values).mean())

    return min(_shrunk(values), key=error)


def _entropy(values: Floats, levels: int) -> Range:
    """The range whose quantized histogram diverges least from that of the values.

    For each range, the bins of a fine histogram that quantization maps to the same integer share
    their counts evenly, except bins that are empty. That is what can be known of the values after
    quantization; its Kullback-Leibler divergence from the real counts, over the bins inside of
    the range, is the loss.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    if not values.size or float(values.min()) == float(values.max()):
        return _min_max(values, levels)
    low, high = _min_max(values, levels)
    counts, edges = np.histogram(values, _HISTOGRAM_BINS, (low, high))
    centers = (edges[:-1] + edges[1:]) / 2

    def divergence(range_: Range) -> float:
        scale, _ = _step(range_, levels)
        codes = np.rint(np.clip(centers, *range_) / scale).astype(np.int64)

        # spread the counts of each integer over its bins
        _, code_index = np.unique(codes, return_inverse=True)
        totals = np.bincount(code_index, counts)
        filled = np.bincount(code_index, counts > 0)
        spread = np.where(counts > 0, totals[code_index] / np.maximum(filled[code_index], 1), 0)

        inside = (counts > 0) & (centers >= range_[0]) & (centers <= range_[1])
        p = counts[inside] / counts.sum()
        q = spread[inside] / max(spread.sum(), 1)
        return float((p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12))).sum())

    return min(_shrunk(values), key=divergence)


METHODS: dict[str, Callable[[Floats, int], Range]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
"""The methods that choose a range, by name; each takes the values and the number of levels."""
