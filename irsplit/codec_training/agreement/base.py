"""The interface of a measure of agreement, and its results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, Any]
"""The outputs of one call by name."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well the outputs of a head agree.

    Attributes:
        share: 0 to 1.
        compared: How many rows, pixels or detections were compared; 0 if there were none.
    """

    share: float
    compared: int


class OutputHead(Protocol):
    """Outputs of a model that are read together, in one way."""

    @property
    def measure(self) -> str:
        """The word that asks for it: top1, iou, f1, an entry point's name, or FILE.py:function."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        ...

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        """Compare the outputs of the same calls.

        Outputs that are empty on both sides agree. An output that is missing, or has another
        shape, does not.

        Args:
            expected: Outputs of the whole model, call by call.
            found: Outputs of the split model.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeadAgreement:
    """How well the outputs of one head agree; the fields are those of `OutputHead` and `Score`."""

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
    """How well the outputs of a model agree, head by head."""

    heads: tuple[HeadAgreement, ...]

    @property
    def worst(self) -> HeadAgreement | None:
        """The head that agrees least, of those that have anything to compare; None without any."""
        compared = [head for head in self.heads if head.compared]
        return min(compared, key=lambda head: head.share, default=None)

    @property
    def share(self) -> float:
        """The share of the worst head; 1 if all outputs are empty on both sides."""
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
    """Measure how well the outputs of the same calls agree.

    Args:
        heads: The heads of the model, from `heads_of`.
        expected: Outputs of the whole model, call by call.
        found: Outputs of the split model.

    Example:
        agreement = measured(heads_of("", view), expected, found)
        agreement.share, str(agreement.worst)
    """
    results: list[HeadAgreement] = []
    for head in heads:
        score = head.score(expected, found)
        results.append(HeadAgreement(head.measure, head.outputs, score.share, score.compared))
    return Agreement(tuple(results))


def array_of(value: Any) -> NDArray[Any]:
    """Return an output as one array.

    Args:
        value: An array; a map, whose values count; or a list of maps or arrays of one shape, which
            become rows.

    Returns:
        The array. Anything else becomes an array of objects, which no measure compares.
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
    """Return numbers as integers: NaN becomes 0, and numbers that are too large are clipped."""
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    return np.clip(np.nan_to_num(array.astype(np.float64)), -(2.0**62), 2.0**62).astype(np.int64)
