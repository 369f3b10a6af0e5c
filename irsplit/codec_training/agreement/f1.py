"""f1: the share of detections that two runs have in common; what a detector answers.

Two detections are the same when they are of one class and image and their boxes overlap by half (IoU). Every detection
is matched with one at most: in order of score, each takes the free one that it overlaps most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.agreement.base import Outputs, Score
from irsplit.codec_training.agreement.detections import Detections, Floats, Reader

OVERLAP = 0.5
"""Intersection over union from which two boxes are the same."""


@dataclass(frozen=True, slots=True)
class DetectionHead:
    """Outputs that hold detections together; those with a score below `least` need no partner, but may be one."""

    reader: Reader
    least: float = 0.0

    @property
    def measure(self) -> str:
        return f"f1@{self.least:g}" if self.least else "f1"

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.reader.outputs

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        """2 * matched / (expected + found), over the detections of all calls."""
        matched = count = 0
        for call, other in zip(expected, found, strict=True):
            a, b = self.reader.read(call), self.reader.read(other)
            for of_one, one in zip(matches(a, b), (a, b), strict=True):
                counts = (one.scores >= self.least) if self.least else np.ones(len(one), bool)
                matched += int((of_one & counts).sum())
                count += int(counts.sum())
        return Score(matched / count if count else 1.0, count)


def matches(expected: Detections, found: Detections) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections have a partner, of the expected and of those found: two arrays of [n] and [m]."""
    has_partner = np.zeros(len(expected), bool)
    taken = np.zeros(len(found), bool)
    for index in np.argsort(-expected.scores, kind="stable"):
        same = (
            (found.classes == expected.classes[index])
            & (found.images == expected.images[index])
            & ~taken
        )
        candidates = np.flatnonzero(same)
        if not candidates.size:
            continue
        overlaps = overlap(expected.boxes[index], found.boxes[candidates])
        best = int(overlaps.argmax())
        if overlaps[best] >= OVERLAP:
            has_partner[index] = taken[candidates[best]] = True
    return has_partner, taken


def overlap(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of a box [4] with boxes [n, 4], as [n]; 0 where there is no number.

    Corners may come in any order. Boxes without an area overlap when they are the same.
    """
    low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
    lows, highs = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    with np.errstate(all="ignore"):
        shared = np.clip(np.minimum(high, highs) - np.maximum(low, lows), 0, None).prod(-1)
        either = (high - low).prod() + (highs - lows).prod(-1) - shared
        same = (low == lows).all(-1) & (high == highs).all(-1)
        ratio = np.where(either > 0, shared / either, same)
    return np.where(same, 1.0, np.nan_to_num(ratio))
