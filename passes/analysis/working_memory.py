"""How much memory a run from one segment on takes, as a function of what comes in.

The open dimensions of the tensors that come in are grouped into *scales*, whose members grow
together over the points of the grid. Every open dimension of a tensor becomes a polynomial in the
scales. A tensor's bytes are the product of its dimensions, and what is alive while a node runs is
the sum of such products. The bound takes, for each monomial, the largest coefficient that any node
has. A tensor whose shape is not known counts as the largest one that its node reads.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product

from irsplit.ir import Graph, Node, TensorType, Value, is_of_the_runtime, uses_with_captures, walk
from irsplit.passes.analysis.dims import open_dims
from irsplit.passes.analysis.shape_grid import MOST_GROUPS, Grid
from irsplit.runtime.bundle.working_memory import OpenAxis, Scale, Term, WorkingMemory

_DEGREE = 3
"""The highest degree of a dimension's polynomial."""
_TOLERANCE = 0.1
"""The share by which a dimension may differ from its polynomial: strides round."""

Powers = tuple[int, ...]
"""The exponent of each scale."""
Polynomial = dict[Powers, float]


def working_memory(
    segments: Sequence[Graph],
    inputs: Sequence[Value],
    boundaries: Sequence[Sequence[Value]],
    grid: Grid,
) -> list[WorkingMemory | None]:
    """Bound the memory of a run from each segment on.

    Args:
        segments: The segments of a partitioned model.
        inputs: The inputs of the model.
        boundaries: For each two neighbouring segments, the values that cross between them.
        grid: Shapes of the model's values at several sizes of its inputs.

    Returns:
        For each segment, what it and those behind it take. None where nothing that comes in is
        open, or where an open dimension does not grow with the inputs.
    """
    functions: list[WorkingMemory | None] = []
    for index, received in enumerate([inputs, *boundaries]):
        scales = _scales(received, grid)
        functions.append(_bound(segments[index:], received, grid, scales) if scales else None)
    return functions


def _bound(
    segments: Sequence[Graph],
    received: Sequence[Value],
    grid: Grid,
    scales: Sequence["_ObservedScale"],
) -> WorkingMemory:
    """Bound the memory of a run of these segments.

    Args:
        segments: The segments that run, in order.
        received: What the first of them gets.
        grid: Shapes of the model's values.
        scales: The dimensions of `received` that grow.
    """
    sizes = _Sizes(grid, scales)
    bound: Polynomial = {}
    for segment in segments:
        # One segment runs after the other: what it needs is bounded, not summed up.
        incoming = received if segment is segments[0] else ()
        _raise_to(bound, _peak(segment, incoming, sizes))

    terms = [Term(math.ceil(size), powers) for powers, size in sorted(bound.items())]
    return WorkingMemory(
        tuple(scale.scale for scale in scales), tuple(term for term in terms if term.bytes)
    )


@dataclass(frozen=True)
class _ObservedScale:
    """A scale, and its factor at every point of the grid."""

    scale: Scale
    factors: tuple[float, ...]


def _scales(tensors: Sequence[Value], grid: Grid) -> list[_ObservedScale]:
    """Group the open dimensions that grow together.

    The list is empty when no dimension is open, when one of them does not grow, and when there are
    too many groups.
    """
    groups: dict[tuple[float, ...], list[OpenAxis]] = {}
    for dim in open_dims(tensors):
        along = grid.along(dim.value.name, dim.axis)
        if along is None or min(along) < 1 or max(along) == along[0]:
            return []

        growth = tuple(size / along[0] for size in along)
        same = next((factors for factors in groups if _close(factors, growth)), growth)
        groups.setdefault(same, []).append(OpenAxis(dim.value.name, dim.axis, along[0]))
    if len(groups) > MOST_GROUPS:
        return []

    batches = [[float(multiple[index]) for multiple in grid.multiples] for index in grid.batch]
    scales: list[_ObservedScale] = []
    for factors, axes in groups.items():
        is_batch = any(_close(factors, batch) for batch in batches)
        scales.append(_ObservedScale(Scale(tuple(axes), is_batch), factors))
    return scales


def _close(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether two growths are the same, within the tolerance."""
    pairs = zip(first, second, strict=True)
    return all(abs(a - b) <= _TOLERANCE * max(abs(a), 1e-9) for a, b in pairs)


@dataclass
class _Sizes:
    """Bytes of values as polynomials in the scales."""

    grid: Grid
    scales: Sequence[_ObservedScale]
    _dims: dict[tuple[int, ...], Polynomial | None] = field(
        default_factory=dict[tuple[int, ...], "Polynomial | None"]
    )
    """The polynomials that were fitted, by the sizes they were fitted to."""

    @property
    def one(self) -> Powers:
        """The powers of a constant."""
        return (0,) * len(self.scales)

    def of(self, value: Value, read: Iterable[Polynomial]) -> Polynomial:
        """Return the bytes of a value.

        Args:
            value: A value of the model.
            read: The bytes of the values that its node reads; the largest counts when the value's
                shape is not known.
        """
        dims = self._dims_of(value)
        if dims is None or None in dims:
            return max(read, key=lambda size: sum(size.values()), default={})

        bits = value.type.dtype.bits if isinstance(value.type, TensorType) else 0
        size: Polynomial = {self.one: max(bits, 8) / 8}
        for dim in dims:
            size = _times(size, dim or {})
        return size

    def _dims_of(self, value: Value) -> list[Polynomial | None] | None:
        """Return the dimensions of a value, None for one that does not fit; None without a rank."""
        rank = self.grid.rank(value.name)
        if rank is not None:
            return [self._dim(value.name, axis) for axis in range(rank)]

        # Where the grid does not know the value, its type may, if nothing is open in it.
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        if shape is None:
            return None
        sizes = [float(dim) for dim in shape if isinstance(dim, int)]
        return [{self.one: size} for size in sizes] if len(sizes) == len(shape) else None

    def _dim(self, name: str, axis: int) -> Polynomial | None:
        along = self.grid.along(name, axis)
        if along is None:
            return None
        if along not in self._dims:
            self._dims[along] = self._fitted(along)
        return self._dims[along]

    def _fitted(self, along: tuple[int, ...]) -> Polynomial | None:
        """Fit a constant and one monomial to the sizes of a dimension.

        Monomials are tried by degree, so that the simplest one that fits is taken.

        Args:
            along: The size at every point of the grid.

        Returns:
            The polynomial; None when no monomial fits.
        """
        if max(along) == min(along):
            return {self.one: float(along[0])}

        count = len(self.scales)
        for degree in range(1, _DEGREE + 1):
            for factors in combinations_with_replacement(range(count), degree):
                powers = tuple(factors.count(index) for index in range(count))
                fitted = _line(self._values(powers, len(along)), along)
                if fitted is not None:
                    return {self.one: fitted[0], powers: fitted[1]}
        return None

    def _values(self, powers: Powers, points: int) -> list[float]:
        """Return the value of a monomial at every point of the grid."""
        values = [1.0] * points
        for scale, power in zip(self.scales, powers, strict=True):
            values = [v * f**power for v, f in zip(values, scale.factors, strict=True)]
        return values


def _line(values: Sequence[float], along: Sequence[int]) -> tuple[float, float] | None:
    """Fit a line to sizes.

    Returns:
        The constant and the slope, neither below 0, of a line that no size is above and none is
        far below; None when there is no such line.
    """
    low, high = min(values), max(values)
    if high == low:
        return None

    slope = (along[values.index(high)] - along[values.index(low)]) / (high - low)
    constant = along[values.index(low)] - slope * low
    if slope <= 0:
        return None

    pairs = list(zip(values, along, strict=True))
    for value, size in pairs:
        if abs(size - constant - slope * value) > max(1.0, _TOLERANCE * size):
            return None

    # Raise the slope until every size is on or below the line.
    constant = max(constant, 0.0)
    return constant, max(slope, *((size - constant) / value for value, size in pairs))


def _times(first: Polynomial, second: Polynomial) -> Polynomial:
    """Return the product of two polynomials, without terms that are 0."""
    result: Polynomial = {}
    for (a, x), (b, y) in product(first.items(), second.items()):
        powers = tuple(p + q for p, q in zip(a, b, strict=True))
        result[powers] = result.get(powers, 0.0) + x * y
    return {powers: size for powers, size in result.items() if size}


def _add(total: Polynomial, size: Polynomial, sign: int = 1) -> None:
    """Add `sign` times the size to the total, which changes."""
    for powers, bytes in size.items():
        total[powers] = total.get(powers, 0.0) + sign * bytes


def _raise_to(bound: Polynomial, size: Polynomial) -> None:
    """Raise every coefficient of the bound to that of `size`, where it is below."""
    for powers, bytes in size.items():
        bound[powers] = max(bound.get(powers, 0.0), bytes)


def _peak(segment: Graph, received: Sequence[Value], sizes: _Sizes) -> Polynomial:
    """Return, for each monomial, the most that is alive while one node of the segment runs.

    What comes in is held by the caller until the end, and what goes out is copied into a message.

    Args:
        segment: The graph that runs.
        received: What it gets beside its own inputs.
        sizes: Bytes of values as polynomials.
    """
    nodes = [node for node in segment.nodes if not is_of_the_runtime(node)]
    leaving = _leaving(segment)
    bytes_of: dict[Value, Polynomial] = {}
    alive: Polynomial = {}
    for value in _incoming(segment, received):
        bytes_of[value] = sizes.of(value, ())
        _add(alive, bytes_of[value])

    kept = {*bytes_of, *leaving, *segment.constants}
    freed_after = _last_uses(nodes, kept)
    bound = dict(alive)
    for node, freed in zip(nodes, freed_after, strict=True):
        read = [bytes_of[value] for value in uses_with_captures(node) if value in bytes_of]
        for value in node.outputs:
            if value is not None:
                bytes_of[value] = sizes.of(value, read)
                _add(alive, bytes_of[value])

        # What its bodies make is alive only while the node runs.
        while_it_runs = dict(alive)
        _add(while_it_runs, _inside(node, read, sizes))
        _raise_to(bound, while_it_runs)

        for value in freed:
            if value in bytes_of:
                _add(alive, bytes_of[value], -1)

    # What goes out is copied into a message, and counted twice more for it.
    for value in leaving:
        _add(alive, bytes_of.get(value, {}), 2)
    _raise_to(bound, alive)
    return {powers: size for powers, size in bound.items() if size > 0}


def _incoming(segment: Graph, received: Sequence[Value]) -> list[Value]:
    """Return what the segment gets from outside: its inputs, received values and states."""
    outside = list(segment.inputs)
    for node in segment.nodes:
        if is_of_the_runtime(node):
            outside += [value for value in node.outputs if value is not None]
    return [value for value in dict.fromkeys((*outside, *received)) if value.constant is None]


def _leaving(segment: Graph) -> set[Value]:
    """Return what the segment sends and gives as outputs."""
    leaving = set(segment.outputs)
    for node in segment.nodes:
        if node.op == "irsplit.send":
            leaving.update(value for value in node.inputs if value is not None)
    return leaving


def _last_uses(nodes: Sequence[Node], kept: Iterable[Value]) -> list[list[Value]]:
    """Return, for each node, the values that can be freed after it has run.

    A result that nothing reads can be freed after its own node.

    Args:
        nodes: The nodes that run, in order.
        kept: Values that are held until the end.
    """
    last: dict[Value, int] = {}
    for index, node in enumerate(nodes):
        last.update((value, index) for value in node.outputs if value is not None)
        last.update(dict.fromkeys(uses_with_captures(node), index))

    freed: list[list[Value]] = [[] for _ in nodes]
    for value, index in last.items():
        if value not in kept:
            freed[index].append(value)
    return freed


def _inside(node: Node, read: Sequence[Polynomial], sizes: _Sizes) -> Polynomial:
    """Return what the bodies of a node make, counted as if all were alive at once."""
    total: Polynomial = {}
    for body in node.graphs:
        for inner in walk(body):
            for value in inner.outputs:
                if value is not None:
                    _add(total, sizes.of(value, read))
    return total
