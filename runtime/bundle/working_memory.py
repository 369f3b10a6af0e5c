"""How much memory a run takes, as a function of the open dimensions of what it receives.

`compile` writes the function into the manifest. Whoever resumes a frame evaluates it before
anything is decoded, and refuses a run beyond its limits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irsplit.base.dtypes import BY_NAME

Shape = Sequence[int]
TensorLike = tuple[str, str, Sequence[int | None]]
"""Name, element type and shape of a tensor that a run receives; None is an open dimension."""

LARGE_BYTES = 64 << 20
"""After a run that takes more than this, the engine gives back the memory that it would keep."""


@dataclass(frozen=True, slots=True)
class OpenAxis:
    """An open dimension of a tensor that a run receives.

    Attributes:
        tensor: The tensor's name.
        axis: The dimension's axis.
        unit: The size at which the factor of its scale is 1.
    """

    tensor: str
    axis: int
    unit: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Open dimensions that grow together.

    Attributes:
        axes: The dimensions.
        batch: Whether they count rows that do not depend on each other.
    """

    axes: tuple[OpenAxis, ...]
    batch: bool = False

    def factor(self, shapes: Mapping[str, Shape]) -> float:
        """The size of the largest dimension, in units."""
        return max(shapes[axis.tensor][axis.axis] / axis.unit for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Term:
    """A number of bytes, multiplied by the factor of each scale to its power."""

    bytes: int
    powers: tuple[int, ...]

    def bytes_for(self, factors: Sequence[float]) -> float:
        """The term for these factors, one for each scale."""
        powers = zip(factors, self.powers, strict=True)
        return self.bytes * math.prod(factor**power for factor, power in powers)


@dataclass(frozen=True, slots=True)
class WorkingMemory:
    """An upper estimate of the bytes that a run from one segment on holds at a time.

    Attributes:
        scales: The groups of open dimensions that the estimate depends on.
        terms: What is summed. Each has one power for each scale.
    """

    scales: tuple[Scale, ...]
    terms: tuple[Term, ...]

    def bytes_for(self, shapes: Mapping[str, Shape]) -> int:
        """The estimate for a run that receives tensors of these shapes, by name."""
        factors = [scale.factor(shapes) for scale in self.scales]
        return math.ceil(sum(term.bytes_for(factors) for term in self.terms))

    def to_json(self) -> dict[str, Any]:
        """The estimate as manifests have it."""
        scales: list[dict[str, Any]] = []
        for scale in self.scales:
            axes = [[axis.tensor, axis.axis, axis.unit] for axis in scale.axes]
            scales.append({"axes": axes, "batch": scale.batch})
        return {
            "scales": scales,
            "terms": [[term.bytes, list(term.powers)] for term in self.terms],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], tensors: Sequence[TensorLike]) -> "WorkingMemory":
        """The inverse of `to_json`.

        Args:
            data: What a manifest says.
            tensors: What the run receives.

        Raises:
            ValueError: The estimate does not depend on exactly the open dimensions of `tensors`,
                or has numbers that no estimate has.
        """
        scales = tuple(_read_scale(item) for item in data["scales"])
        terms = tuple(Term(int(size), tuple(map(int, powers))) for size, powers in data["terms"])
        _check_axes(scales, tensors)
        for term in terms:
            positive = term.bytes >= 0 and min(term.powers, default=0) >= 0
            if len(term.powers) != len(scales) or not positive:
                raise ValueError("a term of the working memory does not fit its scales")
        return cls(scales, terms)


def _read_scale(data: dict[str, Any]) -> Scale:
    """A scale as `WorkingMemory.to_json` writes it."""
    axes = (OpenAxis(str(name), int(axis), int(unit)) for name, axis, unit in data["axes"])
    return Scale(tuple(axes), data["batch"])


def _check_axes(scales: Sequence[Scale], tensors: Sequence[TensorLike]) -> None:
    """Raise ValueError unless every open dimension is in one scale, and nothing else is."""
    named: list[tuple[str, int]] = []
    for scale in scales:
        if not scale.axes:
            raise ValueError("working memory with a scale of no dimensions")
        for axis in scale.axes:
            named.append((axis.tensor, axis.axis))
            # Sizes are divided by it.
            if axis.unit < 1:
                raise ValueError("a dimension's unit is below 1")

    is_open: list[tuple[str, int]] = []
    for name, _, shape in tensors:
        for axis, dim in enumerate(shape):
            if dim is None:
                is_open.append((name, axis))

    # Each open dimension must be named once.
    named.sort()
    is_open.sort()
    if named != is_open:
        raise ValueError(f"working memory by dimensions {named} where {is_open} are open")


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What one run may take.

    Attributes:
        rows: Rows of a batch.
        decoded_bytes: Bytes that a frame decodes to.
        working_bytes: Bytes that the run works in.
    """

    rows: int = 64
    decoded_bytes: int = 256 << 20
    working_bytes: int = 2 << 30


def needed(
    limits: RunLimits,
    tensors: Sequence[TensorLike],
    shapes: Mapping[str, Shape],
    function: WorkingMemory | None,
) -> int:
    """Estimate the memory of a run and hold it against limits. Nothing is allocated.

    Args:
        limits: What the run may take.
        tensors: What the run receives.
        shapes: The shapes of these tensors in this run, by name.
        function: The estimate; without one, only the tensors themselves count.

    Returns:
        Bytes.

    Raises:
        ValueError: The run is beyond the limits. The text says what to do about it.
    """
    for name, axis in _batch_axes(tensors, function):
        rows = shapes[name][axis]
        if rows > limits.rows:
            raise ValueError(
                f"{rows} rows in '{name}', the limit is {limits.rows}; "
                "send fewer at a time, or raise it with --max-rows"
            )

    decoded = sum(_element_size(dtype) * math.prod(shapes[name]) for name, dtype, _ in tensors)
    if decoded > limits.decoded_bytes:
        raise ValueError(
            f"it decodes to {decoded} bytes, the limit is {limits.decoded_bytes}; "
            "send less at a time, or raise it with --max-decoded-bytes"
        )
    if function is None:
        return decoded

    working = function.bytes_for(shapes)
    if working > limits.working_bytes:
        sizes = [f"'{name}' {list(shapes[name])}" for name, _, shape in tensors if None in shape]
        raise ValueError(
            f"{', '.join(sizes)} takes about {working} bytes to work in, the limit is "
            f"{limits.working_bytes}; send less at a time, or raise it with --max-working-bytes"
        )
    return max(working, decoded)


def _batch_axes(
    tensors: Sequence[TensorLike], function: WorkingMemory | None
) -> list[tuple[str, int]]:
    """The dimensions that count rows of a batch, by tensor and axis.

    The estimate names them. Without one, the open first dimension of a tensor of rank 2 or more
    counts as a batch.
    """
    if function is None:
        return [(name, 0) for name, _, shape in tensors if len(shape) > 1 and shape[0] is None]

    axes: list[tuple[str, int]] = []
    for scale in function.scales:
        if scale.batch:
            axes.extend((axis.tensor, axis.axis) for axis in scale.axes)
    return axes


def _element_size(dtype: str) -> int:
    """Bytes of an element; 1 for texts, whose sizes are unknown."""
    element = BY_NAME.get(dtype)
    if element is None or element.storage is None:
        return 1
    return element.storage.itemsize
