"""Agreement: the measure of a lossy boundary that needs no labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def agreement(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Share of the rows (along the last axis, over all arrays) with their largest element in the same place.

    Where several expected elements are equally large, as 8-bit outputs often are, the place of any of them will do.
    A plane of one pixel behind the channels is left out: a classifier may give [1, 1000, 1, 1]. Arrays that have no
    rows to compare (no numbers, one element a row, another shape) do not count; 1 without any.
    """
    same = [
        _same(_rows(a), _rows(b))
        for a, b in zip(map(np.asarray, expected), map(np.asarray, found), strict=True)
        if is_comparable(a) and a.shape == b.shape
    ]
    return float(np.concatenate(same).mean()) if same else 1.0


def is_comparable(array: Any) -> bool:
    """Whether an output has rows in which one element can be the largest."""
    numbers = np.asarray(array)
    return numbers.dtype.kind in "biufc" and numbers.ndim > 0 and _rows(numbers).shape[-1] > 1


def _rows(array: np.ndarray) -> np.ndarray:
    return np.real(array.reshape(array.shape[:2]) if set(array.shape[2:]) == {1} else array)


def _same(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    place = found.argmax(-1, keepdims=True)
    as_large = np.take_along_axis(expected, place, -1) == expected.max(-1, keepdims=True)
    return (
        as_large | (place == expected.argmax(-1, keepdims=True))
    ).ravel()  # NaN, the largest of all, equals nothing
