"""top1: the share of rows that have their largest element in the same place; for classifiers."""

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
        """As `top1`, for the outputs of the same calls."""
        return top1(
            [call[self.output] for call in expected], [call.get(self.output) for call in found]
        )


def top1(expected: Sequence[Any], found: Sequence[Any]) -> Score:
    """Compare arrays by the place of the largest element in each row, along the last axis.

    If several expected elements are equally large, as in outputs of 8 bits, the place of any of
    them counts as the same. A plane of one pixel behind the channels is left out, because a
    classifier may give [1, 1000, 1, 1].

    Args:
        expected: The arrays of the whole model.
        found: The arrays of the split model. All rows of one that has another shape disagree.

    Returns:
        The share over the rows of all arrays. Arrays that are empty on both sides, or have no rows
        to compare (no numbers, or one element in each row), do not count.

    Example:
        top1([np.array([[1, 9, 2]])], [np.array([[0, 5, 1]])]).share   # 1.0
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
    """How many rows an array has: at least one if it has elements, none if it has not."""
    if not array.size:
        return 0
    return array.size // _rows(array).shape[-1] if array.ndim else 1


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """The array with its rows along the last axis, and with real numbers."""
    is_one_pixel = array.ndim > 2 and set(array.shape[2:]) == {1}
    rows = array.reshape(array.shape[:2]) if is_one_pixel else array
    return np.real(rows) if rows.dtype.kind == "c" else rows


def _same(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have their largest element in the same place."""
    place = found.argmax(-1, keepdims=True)
    as_large = np.take_along_axis(expected, place, -1) == expected.max(-1, keepdims=True)

    # argmax takes NaN for the largest, but NaN equals nothing: compare the places too
    return (as_large | (place == expected.argmax(-1, keepdims=True))).ravel()
