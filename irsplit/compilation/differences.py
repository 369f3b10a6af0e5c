"""Compare the values of one output between two runs.

An output may be an array, or a map or sequence of arrays; it is compared number by number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.top1 import top1

TOLERANCE = 1e-3
"""Largest error, relative to the largest magnitude of the output, that counts as `close`.

With optimisations on, an engine fuses operators of the whole model that the cut separates in the
segments; sums are then rounded in another order. Measured on float models: mostly 1e-6, at most
3e-4 after thousands of summands.
"""

Pair = tuple[NDArray[Any], NDArray[Any]]
"""An expected array, and the one that was computed."""


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How one output differs over all samples."""

    name: str
    bit_equal: bool
    max_error: float
    """Absolute; infinite where structure, type or shape differ."""
    mean_error: float
    scale: float
    """The largest expected magnitude."""
    agreement: float | None
    """Share of the rows along the last axis that have their largest element in the same place;
    None without any row."""
    snr_db: float
    """Power of the expected values over that of the error, in dB; infinite without an error."""
    elements: int
    """How many elements were compared."""

    def close(self, tolerance: float = TOLERANCE) -> bool:
        """Whether the largest error is within `tolerance`, as a share of `scale`."""
        return self.bit_equal or self.max_error <= tolerance * self.scale


def compare(name: str, expected: Sequence[Any], computed: Sequence[Any]) -> OutputDifference:
    """Compare the values of one output over several samples with the expected ones.

    A missing value, or one of another type or shape, has an infinite error; so have text that
    differs and a map with other keys. NaN where NaN is expected is no error.

    Args:
        name: The output.
        expected: Its value for every sample.
        computed: The values to compare, one a sample.

    Returns:
        The differences, over all samples together.
    """
    pairs: list[Pair] = []
    for a, b in zip(expected, computed, strict=True):
        if not _same_structure(a, b):
            size = sum(leaf.size for leaf in leaves(a))
            return OutputDifference(name, False, np.inf, np.inf, 0.0, 0.0, -np.inf, size)
        pairs.extend(zip(leaves(a), leaves(b), strict=True))

    elements = sum(a.size for a, _ in pairs)
    bit_equal = all(_bits(a) == _bits(b) for a, b in pairs)
    numeric = [(_wide(a), _wide(b)) for a, b in pairs if a.dtype.kind in "biufc" and a.size]
    if numeric:
        return _compare_numbers(name, numeric, elements, bit_equal=bit_equal)
    if bit_equal:
        return OutputDifference(name, True, 0.0, 0.0, 0.0, None, np.inf, elements)
    return OutputDifference(name, False, np.inf, np.inf, 0.0, None, -np.inf, elements)


def _compare_numbers(
    name: str, pairs: Sequence[Pair], elements: int, *, bit_equal: bool
) -> OutputDifference:
    """Compare pairs of arrays of the same shapes, with at least one element each."""
    max_error = scale = signal = noise = 0.0
    means: list[float] = []

    # Infinite values and those near the largest double are compared like others.
    with np.errstate(all="ignore"):
        for expected, computed in pairs:
            errors = _errors(expected, computed)
            magnitudes = np.nan_to_num(np.abs(expected))
            max_error = max(max_error, float(errors.max()))
            means.append(float(errors.mean()))
            scale = max(scale, float(magnitudes.max()))
            signal += float(np.square(np.abs(np.nan_to_num(expected))).sum())
            noise += float(np.square(errors).sum())
        rows = top1([expected for expected, _ in pairs], [computed for _, computed in pairs])
        return OutputDifference(
            name,
            bit_equal,
            max_error,
            float(np.mean(means)),
            scale,
            rows.share if rows.compared else None,
            _decibels(signal, noise),
            elements,
        )


def leaves(value: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays of an output, in the order of a sequence or map.

    A map of numbers, such as a classifier's score of each class, gives one array. An empty
    optional gives none.
    """
    if isinstance(value, Mapping):
        scalars = [item for item in value.values() if np.isscalar(item)]
        if len(scalars) == len(value):
            yield np.asarray(scalars)
            return
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield np.asarray(value)


def _same_structure(expected: Any, computed: Any) -> bool:
    """Whether two values have the same keys, counts, shapes and types."""
    if isinstance(expected, Mapping):
        if not isinstance(computed, Mapping) or list(expected) != list(computed):
            return False
        return all(_same_structure(expected[key], computed[key]) for key in expected)

    if isinstance(expected, list | tuple):
        if not isinstance(computed, list | tuple) or len(expected) != len(computed):
            return False
        return all(map(_same_structure, expected, computed))

    if expected is None or computed is None:
        return expected is computed

    a, b = np.asarray(expected), np.asarray(computed)
    # Texts of several lengths have several types.
    both_text = a.dtype.kind == b.dtype.kind == "U"
    return a.shape == b.shape and (a.dtype == b.dtype or both_text)


def _bits(array: NDArray[Any]) -> Any:
    """Return what is equal for arrays of the same bits; text and objects by their values."""
    return array.tolist() if array.dtype.kind in "OU" else array.tobytes()


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _errors(expected: NDArray[Any], computed: NDArray[Any]) -> NDArray[np.float64]:
    """Return the absolute error of every element."""
    difference = np.abs(expected - computed)
    both_nan = np.isnan(expected) & np.isnan(computed)
    same = (expected == computed) | both_nan
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return np.inf
    if signal == 0 or not np.isfinite(noise):
        return -np.inf
    return 10 * float(np.log10(signal / noise))
