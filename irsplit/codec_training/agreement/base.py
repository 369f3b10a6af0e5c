"""What a measure of agreement is, and what it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, Any]
"""The outputs of one call by name."""


@dataclass(frozen=True, slots=True)
class Score:
    """`share` is 0 to 1; `compared` counts what it was measured on (rows, pixels, detections), 0 for nothing at all."""

    share: float
    compared: int


class OutputHead(Protocol):
    """Outputs of a model that are read together, in one way."""

    @property
    def measure(self) -> str:
        """The word that asks for it: top1, iou, f1, a name of an entry point, or FILE.py:function."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        """How well the outputs of the same calls agree. Outputs that are empty in both agree; a missing output, or one
        of another shape, does not."""
        ...


@dataclass(frozen=True, slots=True)
class HeadAgreement:
    """What one head's measure found."""

    measure: str
    outputs: tuple[str, ...]
    share: float
    compared: int

    def __str__(self) -> str:
        names = ", ".join(f"%{name}" for name in self.outputs)
        return f"{self.share:.4g} by {self.measure} of {names}"

    def to_json(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "outputs": list(self.outputs),
            "share": self.share,
            "compared": self.compared,
        }


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the measures of all heads found, in the order of the heads."""

    heads: tuple[HeadAgreement, ...]

    @property
    def worst(self) -> HeadAgreement | None:
        """The head that agrees least, among those in which there was anything to compare; None without any."""
        compared = [head for head in self.heads if head.compared]
        return min(compared, key=lambda head: head.share, default=None)

    @property
    def share(self) -> float:
        """That of the worst head; 1 where all outputs are empty on both sides."""
        return 1.0 if self.worst is None else self.worst.share

    def to_json(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "worst": None if self.worst is None else self.worst.to_json(),
            "heads": [head.to_json() for head in self.heads],
        }


def measured(
    heads: Sequence[OutputHead], expected: Sequence[Outputs], found: Sequence[Outputs]
) -> Agreement:
    """How well the outputs of some calls agree with the expected ones, head by head."""
    results: list[HeadAgreement] = []
    for head in heads:
        score = head.score(expected, found)
        results.append(HeadAgreement(head.measure, head.outputs, score.share, score.compared))
    return Agreement(tuple(results))


def array_of(value: Any) -> NDArray[Any]:
    """An output as one array: maps by their values, lists of them (one a row) and lists of arrays of one shape by rows.

    What is none of those becomes an array of objects, in which no measure finds anything to compare.
    """
    if isinstance(value, Mapping):
        return array_of(list(value.values()))
    if isinstance(value, list | tuple):
        items = [array_of(item) for item in value]
        if len({item.shape for item in items}) > 1:
            return np.array([None] * len(items), object)
        return np.stack(items) if items else np.zeros(0)
    return np.asarray(value)


def whole_numbers(array: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers as integers: NaN as 0, and what is too large for them as the largest that is not."""
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    return np.clip(np.nan_to_num(array.astype(np.float64)), -(2.0**62), 2.0**62).astype(np.int64)
