"""f1: the share of detections that two runs have in common; for detectors.

Two detections are the same if they are of one class and image and their boxes overlap by half
(IoU). Each detection has one partner at most: in the order of their scores, each expected
detection takes the one that it overlaps most, of those that are not taken yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.base import Outputs, Score
from irsplit.codec_training.agreement.detections import Detections, Floats, Reader

OVERLAP = 0.5
"""Intersection over union from which on two boxes are the same."""


@dataclass(frozen=True, slots=True)
class DetectionHead:
    """Outputs that together hold detections.

    Attributes:
        reader: Reads the detections.
        least: Detections with a lower score need no partner, but may be one.
    """

    reader: Reader
    least: float = 0.0

    @property
    def measure(self) -> str:
        return f"f1@{self.least:g}" if self.least else "f1"

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.reader.outputs

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        """2 * matched / (expected + found), over the detections of all calls.

        Args:
            expected: Outputs of the whole model, call by call.
            found: Outputs of the split model.
        """
        matched = count = 0
        for call, other in zip(expected, found, strict=True):
            a, b = self.reader.read(call), self.reader.read(other)
            matched_a, matched_b = matches(a, b)
            counted_a, counted_b = self._is_counted(a), self._is_counted(b)
            matched += int((matched_a & counted_a).sum()) + int((matched_b & counted_b).sum())
            count += int(counted_a.sum()) + int(counted_b.sum())
        return Score(matched / count if count else 1.0, count)

    def _is_counted(self, detections: Detections) -> NDArray[np.bool_]:
        """Which detections need a partner."""
        if not self.least:
            return np.ones(len(detections), bool)
        return detections.scores >= self.least


def matches(expected: Detections, found: Detections) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find which detections have a partner.

    Args:
        expected: Detections of the whole model, n of them.
        found: Detections of the split model, m of them.

    Returns:
        Whether each expected detection has a partner, [n], and each found one, [m].
    """
    has_partner = np.zeros(len(expected), bool)
    taken = np.zeros(len(found), bool)
    for index in np.argsort(-expected.scores, kind="stable"):
        same_class = found.classes == expected.classes[index]
        same_image = found.images == expected.images[index]
        candidates = np.flatnonzero(same_class & same_image & ~taken)
        if not candidates.size:
            continue

        overlaps = overlap(expected.boxes[index], found.boxes[candidates])
        best = int(overlaps.argmax())
        if overlaps[best] >= OVERLAP:
            has_partner[index] = taken[candidates[best]] = True
    return has_partner, taken


def overlap(box: Floats, boxes: Floats) -> Floats:
    """Return the intersection over union of a box with others.

    Args:
        box: Two opposite corners in any order, [4].
        boxes: The others, [n, 4].

    Returns:
        0 to 1, [n]; 0 where a corner is not a number. Boxes without an area overlap if they are
        the same.
    """
    low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
    lows, highs = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    with np.errstate(all="ignore"):
        shared = np.clip(np.minimum(high, highs) - np.maximum(low, lows), 0, None).prod(-1)
        either = (high - low).prod() + (highs - lows).prod(-1) - shared
        same = (low == lows).all(-1) & (high == highs).all(-1)
        ratio = np.where(either > 0, shared / either, same)
    return np.where(same, 1.0, np.nan_to_num(ratio))
