"""Agreement: the measure of a lossy boundary that needs no labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def agreement(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Share of the rows (along the last axis, over all arrays) with their largest element in the same place.

    Where several expected elements are equally large, as 8-bit outputs often are, the place of any of them will do.
    Arrays that have no rows to compare (no numbers, one element a row, another shape) do not count; 1 without any.
    """
    same: list[np.ndarray] = []
    for one, other in zip(expected, found, strict=True):
        a, b = np.asarray(one), np.asarray(other)
        if a.dtype.kind in "biufc" and a.ndim and a.shape == b.shape and a.shape[-1] > 1:
            same.append(_same(np.real(a), np.real(b)))
    return float(np.concatenate(same).mean()) if same else 1.0


def _same(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    place = found.argmax(-1, keepdims=True)
    as_large = np.take_along_axis(expected, place, -1) == expected.max(-1, keepdims=True)
    return (as_large | (place == expected.argmax(-1, keepdims=True))).ravel()  # NaN, the largest of all, equals nothing
