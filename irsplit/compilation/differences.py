"""How the values of one output differ between two runs: arrays, and maps and sequences of them, by their numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.top1 import top1

TOLERANCE = 1e-3
"""Largest error, relative to the largest magnitude of the output, that counts as `close`.

With optimisations on, an engine fuses operators across the cut in the whole model and cannot in the halves; sums are
then rounded in another order. Measured on float models: mostly 1e-6, at most 3e-4 after thousands of summands.
"""

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How one output differs over all calls; errors are absolute, `scale` is the output's largest magnitude."""

    name: str
    bit_equal: bool
    max_error: float
    mean_error: float
    scale: float
    agreement: float | None
    """Share of the rows (along the last axis) with their largest element in the same place; None without any."""
    snr_db: float
    """Power of the expected values over that of the error, in dB; infinite without an error."""
    elements: int
    """How many were compared."""

    def close(self, tolerance: float = TOLERANCE) -> bool:
        return self.bit_equal or self.max_error <= tolerance * self.scale


def compare(name: str, expected: Sequence[Any], found: Sequence[Any]) -> OutputDifference:
    """How the values of one output over several calls differ from the expected ones.

    A missing value, or one of another type or shape, is infinitely wrong; so is text that differs, and a map with other
    keys. NaN where NaN is expected is no error.
    """
    pairs: list[Pair] = []
    for a, b in zip(expected, found, strict=True):
        if not _same_structure(a, b):
            return OutputDifference(name, False, np.inf, np.inf, 0.0, 0.0, -np.inf, _size(a))
        pairs.extend(zip(leaves(a), leaves(b), strict=True))

    elements = sum(a.size for a, _ in pairs)
    bit_equal = all(_bits(a) == _bits(b) for a, b in pairs)
    numeric = [(_wide(a), _wide(b)) for a, b in pairs if a.dtype.kind in "biufc" and a.size]
    if not numeric:
        error, snr_db = (0.0, np.inf) if bit_equal else (np.inf, -np.inf)
        return OutputDifference(name, bit_equal, error, error, 0.0, None, snr_db, elements)

    # Infinite values and those near the largest double are compared like others.
    with np.errstate(all="ignore"):
        errors = [_errors(a, b) for a, b in numeric]
        rows = top1([a for a, _ in numeric], [b for _, b in numeric])
        signal = sum(float(np.square(np.abs(np.nan_to_num(a))).sum()) for a, _ in numeric)
        noise = sum(float(np.square(error).sum()) for error in errors)
        return OutputDifference(
            name,
            bit_equal,
            max(float(error.max()) for error in errors),
            float(np.mean([error.mean() for error in errors])),
            max(float(np.nan_to_num(np.abs(a)).max()) for a, _ in numeric),
            rows.share if rows.compared else None,
            _decibels(signal, noise),
            elements,
        )


def leaves(value: Any) -> Iterator[NDArray[Any]]:
    """The arrays of an output: a tensor's own, those of a sequence or map in its order. Numbers beside each other in a
    map (a class each, as of a classifier) are one array; nothing comes of an empty optional."""
    if isinstance(value, Mapping):
        scalars = [item for item in value.values() if np.isscalar(item)]
        if len(scalars) == len(value):
            yield np.asarray(scalars)
        else:
            yield from (leaf for item in value.values() for leaf in leaves(item))
    elif isinstance(value, list | tuple):
        yield from (leaf for item in value for leaf in leaves(item))
    elif value is not None:
        yield np.asarray(value)


def _same_structure(expected: Any, found: Any) -> bool:
    """Whether all parts correspond, in keys, counts, shapes and types."""
    if isinstance(expected, Mapping):
        return (
            isinstance(found, Mapping)
            and list(expected) == list(found)
            and all(_same_structure(expected[key], found[key]) for key in expected)
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(expected) == len(found)
            and all(map(_same_structure, expected, found))
        )
    if expected is None or found is None:
        return expected is found
    a, b = np.asarray(expected), np.asarray(found)
    return a.shape == b.shape and (a.dtype == b.dtype or a.dtype.kind == b.dtype.kind == "U")


def _size(value: Any) -> int:
    return sum(leaf.size for leaf in leaves(value))


def _bits(array: NDArray[Any]) -> Any:
    return array.tolist() if array.dtype.kind in "OU" else array.tobytes()


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _errors(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    difference = np.abs(expected - found)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return np.inf
    return 10 * float(np.log10(signal / noise)) if signal and np.isfinite(noise) else -np.inf
