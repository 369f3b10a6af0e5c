"""Agreement: the measure of a lossy boundary that needs no labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def agreement(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Share of the rows (along the last axis, over all arrays) with their largest element in the same place.

    Arrays that have no rows to compare (no numbers, one element a row, another shape) do not count; 1 without any.
    """
    same: list[np.ndarray] = []
    for one, other in zip(expected, found, strict=True):
        a, b = np.asarray(one), np.asarray(other)
        if a.dtype.kind in "biufc" and a.ndim and a.shape == b.shape and a.shape[-1] > 1:
            same.append((np.real(a).argmax(-1) == np.real(b).argmax(-1)).ravel())
    return float(np.concatenate(same).mean()) if same else 1.0
