"""The detections that a model's outputs hold: boxes with class and score, however its outputs lay them out."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.base import Outputs, array_of, whole_numbers

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one call, in no order.

    `boxes` is [n, 4], two opposite corners; `images` (the index in the batch), `classes` and `scores` are [n].
    """

    boxes: Floats
    images: Integers
    classes: Integers
    scores: Floats

    def __len__(self) -> int:
        return len(self.boxes)


NONE = Detections(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


class Reader(Protocol):
    """How the outputs of one call hold detections."""

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def read(self, call: Outputs) -> Detections:
        """NONE for outputs that do not have the layout."""
        ...


@dataclass(frozen=True, slots=True)
class SeparateOutputs:
    """Boxes [B, N, 4] or [n, 4], and beside them classes, scores and their count an image, where there are such.

    Padding is left out: what lies beyond the count, and negative classes. `centered` boxes are centre and size.
    """

    boxes: str
    classes: str | None = None
    scores: str | None = None
    count: str | None = None
    centered: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(
            name for name in (self.boxes, self.classes, self.scores, self.count) if name is not None
        )

    def read(self, call: Outputs) -> Detections:
        boxes = _numbers(call.get(self.boxes))
        if boxes is None or boxes.ndim < 2 or boxes.shape[-1] != 4 or not boxes.size:
            return NONE
        each = boxes.shape[-2]
        rows = boxes.reshape(-1, 4)
        classes = self._column(call, self.classes, len(rows), 0.0)
        scores = self._column(call, self.scores, len(rows), 1.0)
        if classes is None or scores is None:
            return NONE
        kept = (classes >= 0) & self._is_counted(call, len(rows) // each, each)
        images = np.repeat(np.arange(len(rows) // each), each)
        return _selected(
            _corners(rows, centered=self.centered), images, whole_numbers(classes), scores, kept
        )

    def _column(
        self, call: Outputs, name: str | None, rows: int, otherwise: float
    ) -> Floats | None:
        if name is None:
            return np.full(rows, otherwise)
        column = _numbers(call.get(name))
        return column.ravel() if column is not None and column.size == rows else None

    def _is_counted(self, call: Outputs, images: int, each: int) -> NDArray[np.bool_]:
        counts = None if self.count is None else _numbers(call.get(self.count))
        if counts is None or counts.size != images:
            return np.ones(images * each, bool)
        return (np.arange(each) < counts.reshape(-1, 1)).ravel()


@dataclass(frozen=True, slots=True)
class SelectedBoxes:
    """What NonMaxSuppression selected: `indices` [n, 3] of image, class and box.

    `boxes` [B, N, 4] and `scores` [B, C, N] are what it selected from, where they are outputs too. Without boxes, a
    detection is the same when the index is.
    """

    indices: str
    boxes: str | None = None
    scores: str | None = None
    centered: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in (self.indices, self.boxes, self.scores) if name is not None)

    def read(self, call: Outputs) -> Detections:
        indices = _numbers(call.get(self.indices))
        if indices is None or not indices.size or indices.shape[-1:] != (3,):
            return NONE
        images, classes, places = whole_numbers(indices.reshape(-1, 3)).T
        kept = (images >= 0) & (classes >= 0) & (places >= 0)
        images, classes, places = images[kept], classes[kept], places[kept]
        boxes = self._boxes(call, images, places)
        scores = self._scores(call, images, classes, places)
        return _selected(boxes, images, classes, scores, np.ones(len(places), bool))

    def _boxes(self, call: Outputs, images: Integers, places: Integers) -> Floats:
        boxes = None if self.boxes is None else _numbers(call.get(self.boxes))
        if boxes is None or boxes.ndim < 2 or boxes.shape[-1] != 4 or not boxes.size:
            # One unit square an index: they overlap with themselves alone.
            return np.stack([places, places * 0, places + 1, places * 0 + 1], -1).astype(np.float64)
        boxes = boxes.reshape(-1, *boxes.shape[-2:])
        inside = (images < boxes.shape[0]) & (places < boxes.shape[1])
        taken = boxes[np.where(inside, images, 0), np.where(inside, places, 0)]
        return _corners(np.where(inside[:, None], taken, np.nan), centered=self.centered)

    def _scores(
        self, call: Outputs, images: Integers, classes: Integers, places: Integers
    ) -> Floats:
        scores = None if self.scores is None else _numbers(call.get(self.scores))
        if scores is None or scores.ndim != 3 or not scores.size:
            return np.ones(len(places))
        last = np.array(scores.shape) - 1
        return scores[
            np.minimum(images, last[0]), np.minimum(classes, last[1]), np.minimum(places, last[2])
        ]


@dataclass(frozen=True, slots=True)
class Rows:
    """One output of rows of 6 (two corners, then score and class, or class and score) or 7 (image, two corners, class,
    score), as exporters that put the suppression into the model lay them out. Rows without a score are padding."""

    output: str

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    def read(self, call: Outputs) -> Detections:
        table = _numbers(call.get(self.output))
        if table is None or table.ndim < 2 or table.shape[-1] not in (6, 7):
            return NONE
        rows = table.reshape(-1, table.shape[-1])
        if table.shape[-1] == 7:
            images, boxes, classes, scores = rows[:, 0], rows[:, 1:5], rows[:, 5], rows[:, 6]
        else:
            images = (
                np.arange(len(rows)) // max(table.shape[-2], 1)
                if table.ndim > 2
                else np.zeros(len(rows))
            )
            boxes, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
            if not _are_whole(classes) and _are_whole(scores):
                scores, classes = classes, scores
        kept = (scores > 0) & (classes >= 0)
        return _selected(boxes, whole_numbers(images), whole_numbers(classes), scores, kept)


def _selected(
    boxes: Floats, images: Integers, classes: Integers, scores: Floats, kept: NDArray[np.bool_]
) -> Detections:
    return Detections(boxes[kept], images[kept], classes[kept], scores[kept])


def _numbers(array: Any) -> Floats | None:
    """As floats; None for what is no array of numbers."""
    found = array_of(array)
    return found.astype(np.float64) if found.dtype.kind in "biuf" else None


def _corners(boxes: Floats, *, centered: bool) -> Floats:
    if not centered:
        return boxes
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    with np.errstate(all="ignore"):
        return np.concatenate([middle - half, middle + half], -1)


def _are_whole(numbers: Floats) -> bool:
    return bool((numbers == np.rint(numbers)).all())
