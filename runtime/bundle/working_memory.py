"""How much memory a run takes, told by the open dimensions of what comes in, and what a server allows.

`compile` writes the function into the manifest; whoever resumes a frame asks it before anything is decoded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irsplit.base.dtypes import BY_NAME

Shape = Sequence[int]
TensorLike = tuple[str, str, Sequence[int | None]]
"""Name, element type and shape of a tensor that comes in; None is an open dimension."""

LARGE_BYTES = 64 << 20
"""A run that takes more than this gives what its engine keeps back to the system."""


@dataclass(frozen=True, slots=True)
class OpenAxis:
    """An open dimension of a tensor that comes in, and its size where the function has the value 1 for it."""

    tensor: str
    axis: int
    unit: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Open dimensions that grow together; `batch` when they count rows that do not depend on each other."""

    axes: tuple[OpenAxis, ...]
    batch: bool = False

    def factor(self, shapes: Mapping[str, Shape]) -> float:
        """How many times as large as the unit the largest of them is."""
        return max(shapes[axis.tensor][axis.axis] / axis.unit for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Term:
    """So many bytes, times each scale's factor to its power."""

    bytes: int
    powers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkingMemory:
    """An upper estimate of the bytes that a run from one segment on holds at a time: a sum of terms."""

    scales: tuple[Scale, ...]
    terms: tuple[Term, ...]

    def bytes_for(self, shapes: Mapping[str, Shape]) -> int:
        factors = [scale.factor(shapes) for scale in self.scales]
        total = sum(
            term.bytes
            * math.prod(factor**power for factor, power in zip(factors, term.powers, strict=True))
            for term in self.terms
        )
        return math.ceil(total)

    def to_json(self) -> dict[str, Any]:
        return {
            "scales": [
                {
                    "axes": [[axis.tensor, axis.axis, axis.unit] for axis in scale.axes],
                    "batch": scale.batch,
                }
                for scale in self.scales
            ],
            "terms": [[term.bytes, list(term.powers)] for term in self.terms],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], tensors: Sequence[TensorLike]) -> "WorkingMemory":
        """Raises ValueError when it does not speak of every open dimension of the `tensors`, and of no other one."""
        scales = tuple(
            Scale(
                tuple(
                    OpenAxis(str(name), int(axis), int(unit)) for name, axis, unit in item["axes"]
                ),
                item["batch"],
            )
            for item in data["scales"]
        )
        terms = tuple(Term(int(size), tuple(map(int, powers))) for size, powers in data["terms"])
        named = sorted((axis.tensor, axis.axis) for scale in scales for axis in scale.axes)
        is_open = sorted(
            (name, axis)
            for name, _, shape in tensors
            for axis, dim in enumerate(shape)
            if dim is None
        )
        if named != is_open or any(not scale.axes for scale in scales):
            raise ValueError(f"working memory by dimensions {named} where {is_open} are open")
        if any(axis.unit < 1 for scale in scales for axis in scale.axes):
            raise ValueError("a dimension's unit is below 1")
        if any(
            len(term.powers) != len(scales) or term.bytes < 0 or min(term.powers, default=0) < 0
            for term in terms
        ):
            raise ValueError("a term of the working memory does not fit its scales")
        return cls(scales, terms)


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What one run may take: rows of a batch, bytes that a frame decodes to, bytes to work in."""

    rows: int = 64
    decoded_bytes: int = 256 << 20
    working_bytes: int = 2 << 30


def needed(
    limits: RunLimits,
    tensors: Sequence[TensorLike],
    shapes: Mapping[str, Shape],
    function: WorkingMemory | None,
) -> int:
    """Bytes that a run on tensors of these shapes takes, by estimate; without a function, what they have themselves.

    Raises ValueError, with what to do about it, for a run beyond the limits. Nothing is allocated.
    """
    for name, axis in _rows(tensors, function):
        if shapes[name][axis] > limits.rows:
            text = f"{shapes[name][axis]} rows in '{name}', the limit is {limits.rows}"
            raise ValueError(f"{text}; send fewer at a time, or raise it with --max-rows")
    decoded = sum(_size(dtype) * math.prod(shapes[name]) for name, dtype, _ in tensors)
    if decoded > limits.decoded_bytes:
        text = f"it decodes to {decoded} bytes, the limit is {limits.decoded_bytes}"
        raise ValueError(f"{text}; send less at a time, or raise it with --max-decoded-bytes")
    if function is None:
        return decoded
    working = function.bytes_for(shapes)
    if working > limits.working_bytes:
        sizes = ", ".join(
            f"'{name}' {list(shapes[name])}" for name, _, shape in tensors if None in shape
        )
        text = (
            f"{sizes} takes about {working} bytes to work in, the limit is {limits.working_bytes}"
        )
        raise ValueError(f"{text}; send less at a time, or raise it with --max-working-bytes")
    return max(working, decoded)


def _rows(tensors: Sequence[TensorLike], function: WorkingMemory | None) -> list[tuple[str, int]]:
    """Dimensions that are batches: those that the function says; without one, open first ones of several."""
    if function is not None:
        return [
            (axis.tensor, axis.axis)
            for scale in function.scales
            if scale.batch
            for axis in scale.axes
        ]
    return [(name, 0) for name, _, shape in tensors if len(shape) > 1 and shape[0] is None]


def _size(dtype: str) -> int:
    """Bytes of an element; those of texts are not known."""
    known = BY_NAME.get(dtype)
    return 1 if known is None or known.storage is None else known.storage.itemsize
