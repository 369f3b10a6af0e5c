"""iou: how far label maps overlap, as the mean over the classes (mIoU); for segmentation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.base import Outputs, Score, array_of, whole_numbers

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelMap:
    """One output that gives each pixel a class.

    Attributes:
        output: Name of the output.
        axis: The axis that has one number for each class, of which the largest counts.
        threshold: The output is the mask of one class, which is present where the numbers are at
            least this. With neither axis nor threshold, the output has the classes themselves.
    """

    output: str
    axis: int | None = None
    threshold: float | None = None

    @property
    def measure(self) -> str:
        return "iou"

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        """Mean overlap of the classes, over the pixels of all calls; see `OutputHead.score`."""
        overlap = _Overlap()
        for call, other in zip(expected, found, strict=True):
            a, b = array_of(call[self.output]), array_of(other.get(self.output))
            if a.shape == b.shape:
                overlap.add(*self._label_pair(a, b))
            else:
                overlap.add_apart(self._labels(a), self._labels(b))
        return overlap.score()

    def _label_pair(self, expected: NDArray[Any], found: NDArray[Any]) -> tuple[Labels, Labels]:
        """The labels of both; of expected classes that are equally likely, the found one counts."""
        expected_labels, found_labels = self._labels(expected), self._labels(found)
        if self.axis is None or not expected.size or not self._has_axis(expected):
            return expected_labels, found_labels

        chosen = np.expand_dims(found_labels, self.axis)
        most = expected.max(self.axis, keepdims=True)
        as_likely = np.take_along_axis(expected, chosen, self.axis) == most
        tie = as_likely.squeeze(self.axis)
        return np.where(tie, found_labels, expected_labels), found_labels

    def _labels(self, array: NDArray[Any]) -> Labels:
        """The class of each pixel; 0 for all if the array cannot be read."""
        if array.dtype.kind not in "biuf" or not array.size:
            return np.zeros(array.size, np.int64)
        if self.threshold is not None:
            return (array >= self.threshold).astype(np.int64)
        if self.axis is None:
            return whole_numbers(array)
        return array.argmax(self.axis) if self._has_axis(array) else np.zeros(array.size, np.int64)

    def _has_axis(self, array: NDArray[Any]) -> bool:
        return self.axis is not None and -array.ndim <= self.axis < array.ndim


class _Overlap:
    """Counts, for each class, the pixels that both label maps have, and those that either has."""

    def __init__(self) -> None:
        self.shared: Counter[int] = Counter()
        self.either: Counter[int] = Counter()
        self.pixels = 0

    def add(self, expected: Labels, found: Labels) -> None:
        """Add maps of the same shape."""
        both = _counts(expected[expected == found])
        self.shared.update(both)
        self.either.update(_counts(expected) + _counts(found) - both)
        self.pixels += expected.size

    def add_apart(self, expected: Labels, found: Labels) -> None:
        """Add maps of different shapes, which share nothing."""
        self.either.update(_counts(expected) + _counts(found))
        self.pixels += max(expected.size, found.size)

    def score(self) -> Score:
        """The mean of shared pixels by pixels of either map, over the classes."""
        ratios = [self.shared[label] / count for label, count in self.either.items()]
        return Score(float(np.mean(ratios)) if ratios else 1.0, self.pixels)


def _counts(labels: Labels) -> Counter[int]:
    values, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))
