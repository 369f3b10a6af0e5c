"""The range that a quantized tensor covers, from calibration data: one for all, or one for every channel.

Values beyond a range travel exactly as outliers, so a narrower range makes the step finer and costs bytes, never
accuracy.
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
"""Half of what a frame holds (FORMAT.md): calibration sees only some of the data."""


def quantization(
    samples: Sequence[NDArray[Any]],
    levels: int,
    *,
    method: str = "min-max",
    axis: int | None = None,
    outliers: bool = True,
) -> QuantizationSpec:
    """Asymmetric quantization to `levels` integers, zero exactly representable; one scale per index of `axis` if it is
    given. Its bits are the fewest that hold the levels.

    `samples` are float arrays of one tensor; NaN and infinities are ignored. `method` is a key of METHODS.
    """
    parts = _parts([np.asarray(sample, np.float32) for sample in samples], axis)
    steps = [_step(METHODS[method](part[np.isfinite(part)], levels), levels) for part in parts]
    scales, zeros = tuple(s for s, _ in steps), tuple(z for _, z in steps)
    return QuantizationSpec(scales, zeros, "i8", fewest_bits(levels), axis, outliers)


def requantization(
    samples: Sequence[NDArray[Any]],
    levels: int,
    zero: int,
    *,
    method: str = "min-max",
    axis: int | None = None,
) -> QuantizationSpec | None:
    """Coarser steps for a tensor of i8 or u8: `levels` of them over its range, which holds `zero`, the integer that
    stands for 0; None where they would be no coarser than the integers' own.

    `zero` comes back exactly where no step is larger than it. In steps above 1 all integers of the type fit into 8
    bits, so that nothing is an outlier, whatever calibration saw; an entropy coder pays for what occurs alone.
    """
    parts = _parts([np.asarray(sample, np.float32) - zero for sample in samples], axis)
    scales = [max(_step(METHODS[method](part, levels), levels)[0], 1.0) for part in parts]
    if max(scales) == 1.0:
        return None
    lowest = -128 if samples[0].dtype == np.uint8 else 0
    return QuantizationSpec(
        tuple(_through(zero, s) for s in scales), (lowest,) * len(scales), "i8", 8, axis
    )


def fewest_bits(levels: int) -> int:
    """The fewest bits that hold so many integers."""
    return (levels - 1).bit_length()


def _parts(arrays: Sequence[Floats], axis: int | None) -> list[Floats]:
    """All values, or those of every index of an axis."""
    if axis is None:
        return [np.concatenate([array.ravel() for array in arrays])]
    return list(
        np.concatenate(
            [np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in arrays], 1
        )
    )


def _through(zero: int, scale: float) -> float:
    """The least scale from this one on of which `zero` is a multiple; the same for one that is nearer to 0."""
    steps = int(abs(zero) / scale)
    return abs(zero) / steps if steps else scale


def signal_to_noise_db(samples: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float:
    """10 log10 of the power of the samples over the power of their error; infinite without an error."""
    signal = sum(float(np.square(np.asarray(a, np.float64)).sum()) for a in samples)
    noise = sum(
        float(np.square(np.asarray(a, np.float64) - b).sum())
        for a, b in zip(samples, found, strict=True)
    )
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def _step(range_: Range, levels: int) -> tuple[float, int]:
    """Scale and zero point of a range, widened so that it holds 0."""
    low, high = min(range_[0], 0.0), max(range_[1], 0.0)
    steps, lowest = levels - 1, _lowest(levels)
    scale = max((high - low) / steps, float(np.finfo(np.float32).tiny))
    return scale, min(max(round(lowest - low / scale), lowest), lowest + steps)


def _lowest(levels: int) -> int:
    return -(1 << (fewest_bits(levels) - 1))


def _min_max(values: Floats, levels: int) -> Range:
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _percentile(values: Floats, levels: int) -> Range:
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, [100 - PERCENTILE, PERCENTILE])
    return float(low), float(high)


def _shrunk(values: Floats) -> list[Range]:
    """Ever smaller parts of the whole range that still leave few enough values outside."""
    low, high = _min_max(values, 256)
    ranges = [(low * float(shrink), high * float(shrink)) for shrink in _SHRINKS]
    return [
        r for r in ranges if np.mean((values < r[0]) | (values > r[1])) <= _OUTLIERS_AT_MOST
    ] or [(low, high)]


def _mse(values: Floats, levels: int) -> Range:
    """The range with the least error where values beyond it are clipped, the classic criterion."""
    if not values.size:
        return 0.0, 0.0

    def error(range_: Range) -> float:
        scale, zero = _step(range_, levels)
        lowest = _lowest(levels)
        codes = np.clip(np.rint(values / scale) + zero, lowest, lowest + levels - 1)
        return float(np.square((codes - zero) * scale - values).mean())

    return min(_shrunk(values), key=error)


def _entropy(values: Floats, levels: int) -> Range:
    """The range whose quantized histogram diverges least (Kullback-Leibler) from the original.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    if not values.size or float(values.min()) == float(values.max()):
        return _min_max(values, levels)
    low, high = _min_max(values, levels)
    counts, edges = np.histogram(values, _HISTOGRAM_BINS, (low, high))
    centers = (edges[:-1] + edges[1:]) / 2

    def divergence(range_: Range) -> float:
        scale, _ = _step(range_, levels)
        inside = np.clip(centers, *range_)
        codes = np.rint(inside / scale).astype(np.int64)
        _, index = np.unique(codes, return_inverse=True)
        totals = np.bincount(index, counts)
        filled = np.bincount(index, counts > 0)
        spread = np.where(counts > 0, totals[index] / np.maximum(filled[index], 1), 0)
        seen = (counts > 0) & (centers >= range_[0]) & (centers <= range_[1])
        p, q = counts[seen] / counts.sum(), spread[seen] / max(spread.sum(), 1)
        return float((p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12))).sum())

    return min(_shrunk(values), key=divergence)


METHODS: dict[str, Callable[[Floats, int], Range]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
