"""Read the detections of a model's outputs: boxes with class and score, in any known layout."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.base import Outputs, array_of, whole_numbers

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections of one call, in no order.

    Attributes:
        boxes: Two opposite corners each, [n, 4].
        images: Index in the batch, [n].
        classes: [n].
        scores: [n].
    """

    boxes: Floats
    images: Integers
    classes: Integers
    scores: Floats

    def __len__(self) -> int:
        return len(self.boxes)


NONE = Detections(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


class Reader(Protocol):
    """Reads detections from the outputs of one call."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that it reads."""
        ...

    def read(self, call: Outputs) -> Detections:
        """Return the detections; NONE for outputs that do not have the layout."""
        ...


@dataclass(frozen=True, slots=True)
class SeparateOutputs:
    """Reads boxes [B, N, 4] or [n, 4], with classes and scores in outputs of their own.

    Padding is left out: what is behind the count of an image, and negative classes.

    Attributes:
        boxes: Name of the output that has the boxes.
        classes: Name of the output that has the classes, None without one.
        scores: Name of the output that has the scores, None without one.
        count: Name of the output that has the number of detections in each image, None without.
        centered: Whether boxes are centre and size, rather than two corners.
    """

    boxes: str
    classes: str | None = None
    scores: str | None = None
    count: str | None = None
    centered: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        names = (self.boxes, self.classes, self.scores, self.count)
        return tuple(name for name in names if name is not None)

    def read(self, call: Outputs) -> Detections:
        """As `Reader.read`."""
        boxes = _box_array(call, self.boxes)
        if boxes is None:
            return NONE

        per_image = boxes.shape[-2]
        rows = boxes.reshape(-1, 4)
        classes = self._column(call, self.classes, len(rows), 0.0)
        scores = self._column(call, self.scores, len(rows), 1.0)
        if classes is None or scores is None:
            return NONE

        image_count = len(rows) // per_image
        images = np.repeat(np.arange(image_count), per_image)
        kept = (classes >= 0) & self._is_counted(call, image_count, per_image)
        corners = _corners(rows, centered=self.centered)
        return _selected(corners, images, whole_numbers(classes), scores, kept)

    def _column(
        self, call: Outputs, name: str | None, rows: int, otherwise: float
    ) -> Floats | None:
        """One number for each box; None if the output does not have as many."""
        if name is None:
            return np.full(rows, otherwise)
        column = _numbers(call.get(name))
        return column.ravel() if column is not None and column.size == rows else None

    def _is_counted(self, call: Outputs, images: int, per_image: int) -> NDArray[np.bool_]:
        """Which boxes are among the first of their image, as many as its count says."""
        counts = None if self.count is None else _numbers(call.get(self.count))
        if counts is None or counts.size != images:
            return np.ones(images * per_image, bool)
        return (np.arange(per_image) < counts.reshape(-1, 1)).ravel()


@dataclass(frozen=True, slots=True)
class SelectedBoxes:
    """Reads what NonMaxSuppression selected: indices [n, 3] of image, class and box.

    Without boxes, two detections are the same if their indices are.

    Attributes:
        indices: Name of the output that has the indices.
        boxes: Name of the output [B, N, 4] that was selected from, None if it is not an output.
        scores: Name of the output [B, C, N] that was selected by, None if it is not an output.
        centered: Whether boxes are centre and size, rather than two corners.
    """

    indices: str
    boxes: str | None = None
    scores: str | None = None
    centered: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        names = (self.indices, self.boxes, self.scores)
        return tuple(name for name in names if name is not None)

    def read(self, call: Outputs) -> Detections:
        """As `Reader.read`."""
        indices = _numbers(call.get(self.indices))
        if indices is None or not indices.size or indices.shape[-1:] != (3,):
            return NONE

        images, classes, places = whole_numbers(indices.reshape(-1, 3)).T
        kept = (images >= 0) & (classes >= 0) & (places >= 0)
        images, classes, places = images[kept], classes[kept], places[kept]
        boxes = self._boxes(call, images, places)
        scores = self._scores(call, images, classes, places)
        return Detections(boxes, images, classes, scores)

    def _boxes(self, call: Outputs, images: Integers, places: Integers) -> Floats:
        """The selected boxes; NaN for indices beyond the boxes."""
        boxes = None if self.boxes is None else _box_array(call, self.boxes)
        if boxes is None:
            # A unit square for each index, which overlaps with no other one.
            return np.stack([places, places * 0, places + 1, places * 0 + 1], -1).astype(np.float64)

        boxes = boxes.reshape(-1, *boxes.shape[-2:])
        inside = (images < boxes.shape[0]) & (places < boxes.shape[1])
        selected = boxes[np.where(inside, images, 0), np.where(inside, places, 0)]
        return _corners(np.where(inside[:, None], selected, np.nan), centered=self.centered)

    def _scores(
        self, call: Outputs, images: Integers, classes: Integers, places: Integers
    ) -> Floats:
        """The scores of what was selected; 1 if they are not an output."""
        scores = None if self.scores is None else _numbers(call.get(self.scores))
        if scores is None or scores.ndim != 3 or not scores.size:
            return np.ones(len(places))
        # Indices beyond the scores are clipped to them.
        last = np.array(scores.shape) - 1
        return scores[
            np.minimum(images, last[0]), np.minimum(classes, last[1]), np.minimum(places, last[2])
        ]


@dataclass(frozen=True, slots=True)
class Rows:
    """Reads one output of rows, as exporters lay them out that put the suppression into the model.

    A row of 6 has two corners, then score and class, or class and score. A row of 7 has the image,
    two corners, class and score. Rows without a score are padding.

    Attributes:
        output: Name of the output.
    """

    output: str

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    def read(self, call: Outputs) -> Detections:
        """As `Reader.read`."""
        table = _numbers(call.get(self.output))
        if table is None or table.ndim < 2 or table.shape[-1] not in (6, 7):
            return NONE

        rows = table.reshape(-1, table.shape[-1])
        if table.shape[-1] == 7:
            images, boxes, classes, scores = rows[:, 0], rows[:, 1:5], rows[:, 5], rows[:, 6]
        else:
            images = np.zeros(len(rows))
            if table.ndim > 2:
                images = np.arange(len(rows)) // max(table.shape[-2], 1)
            boxes, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
            # Classes are whole numbers: that tells the two columns apart.
            if not _are_whole(classes) and _are_whole(scores):
                scores, classes = classes, scores
        kept = (scores > 0) & (classes >= 0)
        return _selected(boxes, whole_numbers(images), whole_numbers(classes), scores, kept)


def _selected(
    boxes: Floats, images: Integers, classes: Integers, scores: Floats, kept: NDArray[np.bool_]
) -> Detections:
    return Detections(boxes[kept], images[kept], classes[kept], scores[kept])


def _box_array(call: Outputs, name: str) -> Floats | None:
    """An output of boxes, [..., n, 4]; None for one that has another layout, or no boxes."""
    boxes = _numbers(call.get(name))
    if boxes is None or boxes.ndim < 2 or boxes.shape[-1] != 4 or not boxes.size:
        return None
    return boxes


def _numbers(value: Any) -> Floats | None:
    """An output as floats; None if it is not an array of numbers."""
    array = array_of(value)
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _corners(boxes: Floats, *, centered: bool) -> Floats:
    """Boxes as two opposite corners."""
    if not centered:
        return boxes
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    with np.errstate(all="ignore"):
        return np.concatenate([middle - half, middle + half], -1)


def _are_whole(numbers: Floats) -> bool:
    return bool((numbers == np.rint(numbers)).all())
