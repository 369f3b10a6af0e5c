"""How much memory a run from one segment on takes, as a function of the dimensions that what comes in leaves open.

The shapes of the model's tensors are asked for at a few sizes of its open inputs: every input dimension, or what is
tied to it by a symbol, is one, two and three times as large. From them, every open dimension of a tensor becomes a
polynomial in the *scales* of what comes in, the groups of its dimensions that grow together; a tensor's bytes are the
product of its dimensions, and what is alive while a node runs is the sum of such products. The bound takes, of each
monomial, the largest coefficient that any node has.

A tensor whose shape cannot be told counts as the largest that its node reads.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product

from irsplit.ir import (
    Graph,
    Node,
    TensorType,
    Value,
    is_of_the_runtime,
    required_inputs,
    uses_with_captures,
    walk,
)
from irsplit.passes.analysis.dims import OpenDim, open_dims
from irsplit.runtime.bundle.working_memory import OpenAxis, Scale, Term, WorkingMemory

Shapes = Mapping[str, Sequence[int]]
"""Of values, by name; those that are not known are left out."""
ShapesAt = Callable[[Sequence[Mapping[str, int]]], Sequence[Shapes]]
"""Shapes of a model's values for sizes of all open dimensions of its inputs, by "<input>.<axis>"."""

_MOST_GROUPS = 3
"""Groups of input dimensions that are varied apart; further ones grow with the last."""
_UNITS = (64, 16, 1024, 16384, 4)
"""To be tried for dimensions that are no batch; the first with which most shapes can be told."""
_BATCH_UNIT = 1
_MOST_ELEMENTS = 1 << 26
"""Of an input, beyond which sizes are not tried."""
_DEGREE = 3
_TOLERANCE = 0.1
"""Of a dimension, by which it may differ from its polynomial: strides round."""
_NO_BATCH = re.compile(
    "past|seq|len|time|hist|cache|total|context|token|frame|sample|step", re.IGNORECASE
)
"""Names of first dimensions that are positions rather than rows."""

Powers = tuple[int, ...]
Polynomial = dict[Powers, float]


@dataclass(frozen=True)
class Grid:
    """Shapes of all values at every point of the grid."""

    points: tuple[Shapes, ...]
    batch: frozenset[int]
    """Groups of input dimensions that are batches."""
    multiples: tuple[tuple[int, ...], ...]
    """Of each group, at every point; the first point is all ones."""

    def along(self, name: str, axis: int) -> tuple[int, ...] | None:
        """The size of a dimension at every point; None when one of them is not known."""
        if any(name not in point or len(point[name]) <= axis for point in self.points):
            return None
        return tuple(point[name][axis] for point in self.points)

    def rank(self, name: str) -> int | None:
        ranks = {len(point[name]) if name in point else None for point in self.points}
        return ranks.pop() if len(ranks) == 1 else None


def observed_grid(entry: Graph, shapes_at: ShapesAt) -> Grid | None:
    """The grid for a model that is not partitioned; None when its inputs leave nothing open, or nothing can be told."""
    dims = list(open_dims(required_inputs(entry)))
    if not dims or any(
        not isinstance(v.type, TensorType) or v.type.shape is None for v in required_inputs(entry)
    ):
        return None
    groups = _groups(dims)
    batch = frozenset(index for index, group in enumerate(groups) if all(map(_is_batch, group)))
    multiples = _multiples(len(groups))
    best, most = 0, 0
    for unit in (_BATCH_UNIT,) if len(batch) == len(groups) else _UNITS:
        # The largest point: a table of positions may end before it.
        sizes = _sizes(groups, _units(groups, batch, unit), multiples[-1])
        known = 0 if _largest(entry, sizes) > _MOST_ELEMENTS else len(shapes_at([sizes])[0])
        if known > most:
            best, most = unit, known
        if known >= sum(1 for _ in entry.values()) - len(entry.constants):
            break
    if not most:
        return None
    units = _units(groups, batch, best)
    return Grid(
        tuple(shapes_at([_sizes(groups, units, multiple) for multiple in multiples])),
        batch,
        multiples,
    )


def _multiples(count: int) -> tuple[tuple[int, ...], ...]:
    """Ones first, threes last; between them what tells sums from products, and lines from squares."""
    alone = [
        tuple(3 if index == chosen else 1 for index in range(count)) for chosen in range(count)
    ]
    return tuple(dict.fromkeys([*product((1, 2), repeat=count), *alone, (3,) * count]))


def _units(groups: Sequence[object], batch: Collection[int], unit: int) -> list[int]:
    return [_BATCH_UNIT if index in batch else unit for index in range(len(groups))]


def _groups(dims: Sequence[OpenDim]) -> list[list[OpenDim]]:
    """Dimensions that are equal: of one symbol, and first ones without a symbol."""
    found: dict[str, list[OpenDim]] = {}
    for dim in dims:
        found.setdefault(dim.symbol or ("" if not dim.axis else dim.name), []).append(dim)
    groups = list(found.values())
    if len(groups) > _MOST_GROUPS:
        groups[_MOST_GROUPS - 1 :] = [
            [dim for group in groups[_MOST_GROUPS - 1 :] for dim in group]
        ]
    return groups


def _is_batch(dim: OpenDim) -> bool:
    shape = dim.value.type.shape if isinstance(dim.value.type, TensorType) else None
    return dim.axis == 0 and len(shape or ()) > 1 and not _NO_BATCH.search(dim.symbol or "")


def _sizes(
    groups: Sequence[Sequence[OpenDim]], units: Sequence[int], multiple: Sequence[int]
) -> dict[str, int]:
    each = zip(groups, units, multiple, strict=True)
    return {dim.name: unit * times for group, unit, times in each for dim in group}


def _largest(entry: Graph, sizes: Mapping[str, int]) -> int:
    """Elements of the largest input."""
    shapes = [
        value.type.shape or ()
        for value in required_inputs(entry)
        if isinstance(value.type, TensorType)
    ]
    named = zip(required_inputs(entry), shapes, strict=True)
    return max(
        math.prod(
            dim if isinstance(dim, int) else sizes[f"{value.name}.{axis}"]
            for axis, dim in enumerate(shape)
        )
        for value, shape in named
    )


def working_memory(
    segments: Sequence[Graph],
    inputs: Sequence[Value],
    boundaries: Sequence[Sequence[Value]],
    grid: Grid,
) -> list[WorkingMemory | None]:
    """For every segment that a run may begin with, what it and those behind it take.

    `inputs` are the model's, `boundaries` what crosses between two segments. None where nothing is open, or a dimension
    that is open does not grow with the inputs.
    """
    received = [inputs, *boundaries]
    found: list[WorkingMemory | None] = []
    for index, tensors in enumerate(received):
        scales = _scales(tensors, grid)
        if not scales:
            found.append(None)
            continue
        sizes = _Sizes(grid, scales)
        bound: Polynomial = {}
        for segment in segments[index:]:
            _raise_to(bound, _peak(segment, tensors if segment is segments[index] else (), sizes))
        terms = tuple(
            Term(math.ceil(size), powers)
            for powers, size in sorted(bound.items())
            if math.ceil(size)
        )
        found.append(WorkingMemory(tuple(scale.scale for scale in scales), terms))
    return found


@dataclass(frozen=True)
class _Observed:
    """A scale, and its factor at every point of the grid."""

    scale: Scale
    factors: tuple[float, ...]


def _scales(tensors: Sequence[Value], grid: Grid) -> list[_Observed]:
    """The groups of open dimensions that grow together; none when there are none, or one cannot be told."""
    groups: dict[tuple[float, ...], list[OpenAxis]] = {}
    for dim in open_dims(tensors):
        along = grid.along(dim.value.name, dim.axis)
        if along is None or min(along) < 1 or max(along) == along[0]:
            return []
        growth = tuple(size / along[0] for size in along)
        same = next((key for key in groups if _close(key, growth)), growth)
        groups.setdefault(same, []).append(OpenAxis(dim.value.name, dim.axis, along[0]))
    if len(groups) > _MOST_GROUPS:
        return []
    rows = [tuple(float(multiple[index]) for multiple in grid.multiples) for index in grid.batch]
    return [
        _Observed(Scale(tuple(axes), any(_close(growth, row) for row in rows)), growth)
        for growth, axes in groups.items()
    ]


def _close(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(
        abs(a - b) <= _TOLERANCE * max(abs(a), 1e-9) for a, b in zip(first, second, strict=True)
    )


@dataclass
class _Sizes:
    """Bytes of values as polynomials in the scales."""

    grid: Grid
    scales: Sequence[_Observed]
    _dims: dict[tuple[int, ...], Polynomial | None] = field(
        default_factory=dict[tuple[int, ...], "Polynomial | None"]
    )

    def of(self, value: Value, read: Iterable[Polynomial]) -> Polynomial:
        """Of a value whose node reads so much."""
        bits = value.type.dtype.bits if isinstance(value.type, TensorType) else 0
        rank = self.grid.rank(value.name)
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        if rank is None and shape is not None and all(isinstance(dim, int) for dim in shape):
            dims: list[Polynomial | None] = [
                {self.one: float(dim)} for dim in shape if isinstance(dim, int)
            ]
        else:
            dims = [self._dim(value.name, axis) for axis in range(rank or 0)]
        if (rank is None and not dims and shape != ()) or None in dims:
            return max(read, key=lambda size: sum(size.values()), default={})
        size: Polynomial = {self.one: max(bits, 8) / 8}
        for dim in dims:
            size = _times(size, dim or {})
        return size

    @property
    def one(self) -> Powers:
        return (0,) * len(self.scales)

    def _dim(self, name: str, axis: int) -> Polynomial | None:
        along = self.grid.along(name, axis)
        if along is None:
            return None
        if along not in self._dims:
            self._dims[along] = self._fitted(along)
        return self._dims[along]

    def _fitted(self, along: tuple[int, ...]) -> Polynomial | None:
        """A constant and one monomial that give these sizes."""
        if max(along) == min(along):
            return {self.one: float(along[0])}
        count = len(self.scales)
        for degree in range(1, _DEGREE + 1):
            for chosen in combinations_with_replacement(range(count), degree):
                powers = tuple(chosen.count(index) for index in range(count))
                values = [
                    math.prod(
                        scale.factors[point] ** power
                        for scale, power in zip(self.scales, powers, strict=True)
                    )
                    for point in range(len(along))
                ]
                fitted = _line(values, along)
                if fitted is not None:
                    return {self.one: fitted[0], powers: fitted[1]}
        return None


def _line(values: Sequence[float], along: Sequence[int]) -> tuple[float, float] | None:
    """Constant and slope, none below 0, with which no size is above the line and none far below it."""
    low, high = min(values), max(values)
    if high == low:
        return None
    slope = (along[values.index(high)] - along[values.index(low)]) / (high - low)
    constant = along[values.index(low)] - slope * low
    if slope <= 0:
        return None
    pairs = list(zip(values, along, strict=True))
    if any(
        abs(size - constant - slope * value) > max(1.0, _TOLERANCE * size) for value, size in pairs
    ):
        return None
    constant = max(constant, 0.0)
    return constant, max(slope, *((size - constant) / value for value, size in pairs))


def _times(first: Polynomial, second: Polynomial) -> Polynomial:
    found: Polynomial = {}
    for (a, x), (b, y) in product(first.items(), second.items()):
        powers = tuple(p + q for p, q in zip(a, b, strict=True))
        found[powers] = found.get(powers, 0.0) + x * y
    return {powers: size for powers, size in found.items() if size}


def _add(total: Polynomial, size: Polynomial, sign: int = 1) -> None:
    for powers, bytes in size.items():
        total[powers] = total.get(powers, 0.0) + sign * bytes


def _raise_to(bound: Polynomial, size: Polynomial) -> None:
    for powers, bytes in size.items():
        bound[powers] = max(bound.get(powers, 0.0), bytes)


def _peak(segment: Graph, received: Sequence[Value], sizes: _Sizes) -> Polynomial:
    """Of each monomial, the most that is alive while one node of the segment runs.

    What comes in is held by the caller until the end, and what goes out is copied into a message.
    """
    nodes = [node for node in segment.nodes if not is_of_the_runtime(node)]
    bytes_of: dict[Value, Polynomial] = {}
    constants = set(segment.constants)
    last: dict[Value, int] = {}
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys(uses_with_captures(node), index))
    leaving = {
        value
        for node in segment.nodes
        if node.op == "irsplit.send"
        for value in node.inputs
        if value
    }
    leaving.update(segment.outputs)
    alive: Polynomial = {}
    outside = [
        *segment.inputs,
        *(v for node in segment.nodes if is_of_the_runtime(node) for v in node.outputs if v),
    ]
    for value in dict.fromkeys((*(outside or received), *received)):
        if value.constant is None:
            bytes_of[value] = sizes.of(value, ())
            _add(alive, bytes_of[value])
    held = set(bytes_of)
    bound = dict(alive)
    dying: dict[int, list[Value]] = {}
    for value, index in last.items():
        if value not in held and value not in leaving and value not in constants:
            dying.setdefault(index, []).append(value)
    for index, node in enumerate(nodes):
        read = [bytes_of[value] for value in uses_with_captures(node) if value in bytes_of]
        for value in node.outputs:
            if value is not None:
                bytes_of[value] = sizes.of(value, read)
                _add(alive, bytes_of[value])
        now = dict(alive)
        _add(now, _inside(node, read, sizes))
        _raise_to(bound, now)
        unread = [
            value for value in node.outputs if value and value not in last and value not in leaving
        ]
        for value in (*dying.get(index, ()), *unread):
            if value in bytes_of:
                _add(alive, bytes_of[value], -1)
    for value in leaving:
        _add(alive, bytes_of.get(value, {}), 2)
    _raise_to(bound, alive)
    return {powers: size for powers, size in bound.items() if size > 0}


def _inside(node: Node, read: Sequence[Polynomial], sizes: _Sizes) -> Polynomial:
    """What the bodies of a node make, counted as alive together."""
    total: Polynomial = {}
    for body in node.graphs:
        for inner in walk(body):
            for value in inner.outputs:
                if value is not None:
                    _add(total, sizes.of(value, read))
    return total
