"""The range that a quantized tensor covers, from calibration data: one for all, or one for every channel.

Values beyond a range travel exactly as outliers, so a narrower range makes the step finer and costs bytes, never
accuracy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.boundary import Quantization

Floats = NDArray[np.float32]
Range = tuple[float, float]

PERCENTILE = 99.9
_HISTOGRAM_BINS = 2048
_SHRINKS = np.linspace(1.0, 0.3, 29)
_OUTLIERS_AT_MOST = 1 / 32
"""Half of what a frame holds (FORMAT.md): calibration sees only some of the data."""


def quantization(
    samples: Sequence[NDArray[Any]],
    bits: int,
    *,
    method: str = "min-max",
    axis: int | None = None,
    outliers: bool = True,
) -> Quantization:
    """Asymmetric quantization to `bits` bits, zero exactly representable; one scale per index of `axis` if it is given.

    `samples` are float arrays of one tensor; NaN and infinities are ignored. `method` is a key of METHODS.
    """
    arrays = [np.asarray(sample, np.float32) for sample in samples]
    if axis is None:
        parts = [np.concatenate([array.ravel() for array in arrays])]
    else:
        parts = list(
            np.concatenate([np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in arrays], 1)
        )
    steps = [_step(METHODS[method](part[np.isfinite(part)], bits), bits) for part in parts]
    return Quantization(tuple(s for s, _ in steps), tuple(z for _, z in steps), "i8", bits, axis, outliers)


def signal_to_noise_db(samples: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float:
    """10 log10 of the power of the samples over the power of their error; infinite without an error."""
    signal = sum(float(np.square(np.asarray(a, np.float64)).sum()) for a in samples)
    noise = sum(float(np.square(np.asarray(a, np.float64) - b).sum()) for a, b in zip(samples, found, strict=True))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def _step(range_: Range, bits: int) -> tuple[float, int]:
    """Scale and zero point of a range, widened so that it holds 0."""
    low, high = min(range_[0], 0.0), max(range_[1], 0.0)
    steps, lowest = (1 << bits) - 1, -(1 << (bits - 1))
    scale = max((high - low) / steps, float(np.finfo(np.float32).tiny))
    return scale, min(max(round(lowest - low / scale), lowest), lowest + steps)


def _min_max(values: Floats, bits: int) -> Range:
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _percentile(values: Floats, bits: int) -> Range:
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, [100 - PERCENTILE, PERCENTILE])
    return float(low), float(high)


def _shrunk(values: Floats) -> list[Range]:
    """Ever smaller parts of the whole range that still leave few enough values outside."""
    low, high = _min_max(values, 8)
    ranges = [(low * float(shrink), high * float(shrink)) for shrink in _SHRINKS]
    return [r for r in ranges if np.mean((values < r[0]) | (values > r[1])) <= _OUTLIERS_AT_MOST] or [(low, high)]


def _mse(values: Floats, bits: int) -> Range:
    """The range with the least error where values beyond it are clipped, the classic criterion."""
    if not values.size:
        return 0.0, 0.0

    def error(range_: Range) -> float:
        scale, zero = _step(range_, bits)
        lowest = -(1 << (bits - 1))
        codes = np.clip(np.rint(values / scale) + zero, lowest, lowest + (1 << bits) - 1)
        return float(np.square((codes - zero) * scale - values).mean())

    return min(_shrunk(values), key=error)


def _entropy(values: Floats, bits: int) -> Range:
    """The range whose quantized histogram diverges least (Kullback-Leibler) from the original.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    if not values.size or float(values.min()) == float(values.max()):
        return _min_max(values, bits)
    low, high = _min_max(values, bits)
    counts, edges = np.histogram(values, _HISTOGRAM_BINS, (low, high))
    centers = (edges[:-1] + edges[1:]) / 2

    def divergence(range_: Range) -> float:
        scale, _ = _step(range_, bits)
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
