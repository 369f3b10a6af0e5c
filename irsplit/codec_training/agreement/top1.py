"""top1: the share of rows whose largest element is in the same place; what a classifier answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.base import Outputs, Score, array_of


@dataclass(frozen=True, slots=True)
class Top1:
    """One output, compared row by row along its last axis."""

    output: str

    @property
    def measure(self) -> str:
        return "top1"

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        arrays = [call[self.output] for call in expected]
        others = [call.get(self.output) for call in found]
        return top1(arrays, others)


def top1(expected: Sequence[Any], found: Sequence[Any]) -> Score:
    """The share of rows (along the last axis, over all arrays) with their largest element in the same place.

    Where several expected elements are equally large, as 8-bit outputs often are, the place of any of them will do.
    A plane of one pixel behind the channels is left out: a classifier may give [1, 1000, 1, 1]. All rows of an array
    of another shape disagree; arrays that are empty on both sides, or that have no rows to compare (no numbers, one
    element a row), do not count.
    """
    same: list[NDArray[np.bool_]] = []
    for a, b in zip(map(array_of, expected), map(array_of, found), strict=True):
        if a.shape != b.shape:
            rows = max(_row_count(a), _row_count(b))
            same.append(np.zeros(rows, bool))
        elif is_comparable(a):
            same.append(_same(_rows(a), _rows(b)))

    compared = sum(rows.size for rows in same)
    agreeing = sum(int(rows.sum()) for rows in same)
    return Score(agreeing / compared if compared else 1.0, compared)


def is_comparable(array: Any) -> bool:
    """Whether an output has rows in which one element can be the largest."""
    numbers = array_of(array)
    return numbers.dtype.kind in "biufc" and numbers.ndim > 0 and _rows(numbers).shape[-1] > 1


def _row_count(array: NDArray[Any]) -> int:
    """Rows of an array; one that has elements has at least one, one without any has none."""
    if not array.size:
        return 0
    return array.size // _rows(array).shape[-1] if array.ndim else 1


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    plane = array.ndim > 2 and set(array.shape[2:]) == {1}
    rows = array.reshape(array.shape[:2]) if plane else array
    return np.real(rows) if rows.dtype.kind == "c" else rows


def _same(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    place = found.argmax(-1, keepdims=True)
    as_large = np.take_along_axis(expected, place, -1) == expected.max(-1, keepdims=True)
    return (
        as_large | (place == expected.argmax(-1, keepdims=True))
    ).ravel()  # NaN, the largest of all, equals nothing
