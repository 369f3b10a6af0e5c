"""Shapes of a model's tensors on a grid of sizes of its open inputs.

Every open input dimension, with what is tied to it by a symbol, is one, two and three times as
large as a unit. The shapes at these points show how each tensor grows with the inputs.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from irsplit.ir import Graph, TensorType, Value, required_inputs
from irsplit.passes.analysis.dims import OpenDim, open_dims

Shapes = Mapping[str, Sequence[int]]
"""Shapes of values by name; those that are not known are left out."""
ShapesAt = Callable[[Sequence[Mapping[str, int]]], Sequence[Shapes]]
"""Returns shapes of a model's values for sizes of all open dimensions of its inputs, by
"<input>.<axis>"."""

MOST_GROUPS = 3
"""This many groups of input dimensions vary separately; further ones grow with the last."""
_UNITS = (64, 16, 1024, 16384, 4)
"""Units to try for dimensions that are no batch; the one with which most shapes are known wins."""
_BATCH_UNIT = 1
_MOST_ELEMENTS = 1 << 26
"""Sizes at which an input has more elements than this are not tried."""
_NO_BATCH = re.compile(
    "past|seq|len|time|hist|cache|total|context|token|frame|sample|step", re.IGNORECASE
)
"""Names of first dimensions that are positions rather than rows."""


@dataclass(frozen=True)
class Grid:
    """Shapes of all values at every point of the grid."""

    points: tuple[Shapes, ...]
    batch: frozenset[int]
    """Groups of input dimensions that are batches."""
    multiples: tuple[tuple[int, ...], ...]
    """At every point, how many units each group is long; the first point is all ones."""

    def along(self, name: str, axis: int) -> tuple[int, ...] | None:
        """Return the size of a dimension at every point; None when one of them is not known."""
        sizes: list[int] = []
        for shapes in self.points:
            if name not in shapes or len(shapes[name]) <= axis:
                return None
            sizes.append(shapes[name][axis])
        return tuple(sizes)

    def rank(self, name: str) -> int | None:
        """Return the rank of a value; None when it is not known or not the same at all points."""
        ranks = {len(shapes[name]) if name in shapes else None for shapes in self.points}
        return ranks.pop() if len(ranks) == 1 else None


def observed_grid(entry: Graph, shapes_at: ShapesAt) -> Grid | None:
    """Find the shapes of a model's tensors at all points of the grid.

    Args:
        entry: The entry graph of a model that is not partitioned.
        shapes_at: Tells the shapes at some sizes of its inputs.

    Returns:
        The grid; None when the inputs leave nothing open, or when nothing can be told.
    """
    inputs = required_inputs(entry)
    dims = list(open_dims(inputs))
    if not dims or not all(_has_rank(value) for value in inputs):
        return None

    # A batch varies in rows; a unit for the other dimensions is looked for.
    groups = _groups(dims)
    batch = frozenset(index for index, group in enumerate(groups) if _are_batches(group))
    multiples = _multiples(len(groups))
    unit = _best_unit(entry, shapes_at, groups, batch, multiples[-1])
    if unit is None:
        return None

    units = _units(groups, batch, unit)
    points = shapes_at([_sizes(groups, units, multiple) for multiple in multiples])
    return Grid(tuple(points), batch, multiples)


def _are_batches(group: Sequence[OpenDim]) -> bool:
    return all(_is_batch(dim) for dim in group)


def _has_rank(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None


def _best_unit(
    entry: Graph,
    shapes_at: ShapesAt,
    groups: Sequence[Sequence[OpenDim]],
    batch: Collection[int],
    largest: Sequence[int],
) -> int | None:
    """Return the unit with which most shapes are known at the grid's largest point.

    It is tried at that point because a table of positions may end before it.

    Args:
        entry: The entry graph of the model.
        shapes_at: Tells the shapes at some sizes of its inputs.
        groups: The open dimensions that vary together.
        batch: The groups that are batches, which are counted one by one.
        largest: How many units each group is long at the largest point.

    Returns:
        The unit; None when no shape is known with any of them.
    """
    all_values = sum(1 for _ in entry.values()) - len(entry.constants)
    only_batches = len(batch) == len(groups)
    best: int | None = None
    most = 0
    for unit in (_BATCH_UNIT,) if only_batches else _UNITS:
        sizes = _sizes(groups, _units(groups, batch, unit), largest)
        count = 0
        if _most_elements(entry, sizes) <= _MOST_ELEMENTS:
            count = len(shapes_at([sizes])[0])
        if count > most:
            best, most = unit, count

        # No other unit can tell more.
        if count >= all_values:
            break
    return best


def _multiples(count: int) -> tuple[tuple[int, ...], ...]:
    """Return the points of a grid of `count` groups, ones first and threes last.

    The points between tell sums from products, and lines from squares.
    """
    points: list[tuple[int, ...]] = list(product((1, 2), repeat=count))
    for index in range(count):
        point = [1] * count
        point[index] = 3
        points.append(tuple(point))
    points.append((3,) * count)

    # With one group, the last two points are the same.
    return tuple(dict.fromkeys(points))


def _units(groups: Sequence[object], batch: Collection[int], unit: int) -> list[int]:
    """Return the unit of each group."""
    return [_BATCH_UNIT if index in batch else unit for index in range(len(groups))]


def _groups(dims: Sequence[OpenDim]) -> list[list[OpenDim]]:
    """Group dimensions that are equal: those of one symbol, and first ones without a symbol."""
    by_name: dict[str, list[OpenDim]] = {}
    for dim in dims:
        own_name = dim.name if dim.axis else ""
        by_name.setdefault(dim.symbol or own_name, []).append(dim)

    groups = list(by_name.values())
    if len(groups) <= MOST_GROUPS:
        return groups

    # The number of points is exponential in that of groups, so the rest is one group.
    last: list[OpenDim] = []
    for group in groups[MOST_GROUPS - 1 :]:
        last += group
    return [*groups[: MOST_GROUPS - 1], last]


def _is_batch(dim: OpenDim) -> bool:
    """Return whether a dimension counts rows, by its place and its name."""
    shape = dim.value.type.shape if isinstance(dim.value.type, TensorType) else None
    return dim.axis == 0 and len(shape or ()) > 1 and not _NO_BATCH.search(dim.symbol or "")


def _sizes(
    groups: Sequence[Sequence[OpenDim]], units: Sequence[int], multiple: Sequence[int]
) -> dict[str, int]:
    """Return the sizes of all open dimensions at one point."""
    sizes: dict[str, int] = {}
    for group, unit, times in zip(groups, units, multiple, strict=True):
        sizes.update((dim.name, unit * times) for dim in group)
    return sizes


def _most_elements(entry: Graph, sizes: Mapping[str, int]) -> int:
    """Return how many elements the largest input has at these sizes."""
    most = 0
    for value in required_inputs(entry):
        assert isinstance(value.type, TensorType)
        elements = 1
        for axis, dim in enumerate(value.type.shape or ()):
            elements *= dim if isinstance(dim, int) else sizes[f"{value.name}.{axis}"]
        most = max(most, elements)
    return most
