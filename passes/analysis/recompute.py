"""Which values the server side can compute again instead of receiving, and until which position.

A value can be recomputed when a cheap, pure node makes it of values that are at hand on the server
side: what crosses anyway, graph inputs that are forwarded or small, and constants. Results of
random and stateful nodes, and of nodes with bodies or several results, never are. Everything is
linear in the size of the schedule.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import inf

from irsplit.ir import Node, TensorType, Value
from irsplit.passes.analysis.schedule import Schedule


@dataclass(frozen=True)
class Recompute:
    """What may be recomputed: the dialect's knowledge of its operators, and limits."""

    is_cheap: Callable[[Node], bool]
    """Whether a node is pure and costs less to compute again than to send its result."""
    is_shape: Callable[[Node], bool]
    """Whether a node reads nothing of its operand but the shape."""
    input_bytes: int = 1 << 16
    """A graph input up to this size is forwarded when the server side needs it for nothing else."""
    constant_bytes: int = 1 << 22
    """A node that reads larger constants is not cloned: both segments would hold them."""
    depth: int = 32
    """The longest chain of nodes behind a recomputed value."""
    shape_bytes: int = 64
    """A shape that cannot be recomputed travels beside the tensors up to this size."""

    def shape_of(self, node: Node) -> Value | None:
        """Return the result of a node that reads only a shape, if it is small enough to travel."""
        if len(node.outputs) != 1 or not self.is_shape(node):
            return None

        result = node.outputs[0]
        if result is None or not self.is_tiny(result):
            return None
        return result

    def is_tiny(self, value: Value) -> bool:
        """Return whether the value is a few integers, of a number that is known.

        Floats are left out: a tensor of them is data, however small it is.
        """
        type = value.type
        if not isinstance(type, TensorType) or not type.is_static or type.dtype.is_float:
            return False
        return size_bytes(value) <= self.shape_bytes


class Recomputable:
    """For every value of a schedule, the last position at which it can be recomputed.

    There are two such positions. The first one needs nothing but what crosses anyway; the second
    one, which is no earlier, forwards small graph inputs for the purpose. A value can be recomputed
    as long as each value it is made of either crosses or can be recomputed itself, so that both
    follow from the positions of these in one walk through the schedule.

    Args:
        plan: The schedule that is cut.
        last_use: For each value, the index of the last node that reads its elements.
        rules: What may be recomputed; None for nothing.
    """

    def __init__(
        self, plan: Schedule, last_use: dict[Value | None, int], rules: Recompute | None
    ) -> None:
        self._reads: dict[Value, tuple[Value, ...]] = {}
        """For each recomputable value, what its node reads."""
        self._from_crossing: dict[Value, float] = {}
        self._from_inputs: dict[Value, float] = {}
        self._shapes: set[Value] = set()
        self._inputs = set(plan.inputs)
        if rules is None:
            return

        # A small graph input is at hand everywhere, because it can be forwarded to any cut.
        for value in plan.inputs:
            if _is_small(value, rules):
                self._from_inputs[value] = inf

        depths: dict[Value, int] = {}
        """For each recomputable value, the length of the longest chain of nodes behind it."""
        for node, reads, frees in zip(plan.nodes, plan.reads, plan.frees, strict=True):
            if not reads or not _is_clonable(node, frees, rules):
                continue

            result = node.outputs[0]
            depth = 1 + max(depths.get(value, 0) for value in reads)
            if result is None or depth > rules.depth:
                continue

            depths[result] = depth
            self._add(result, reads, last_use)

            # A few integers made of shapes alone are a shape too.
            if rules.is_tiny(result) and (rules.is_shape(node) or self._shapes.issuperset(reads)):
                self._shapes.add(result)

    def _add(
        self, result: Value, reads: tuple[Value, ...], last_use: dict[Value | None, int]
    ) -> None:
        """Note until when the result of a clonable node can be recomputed from what it reads.

        Each value that the node reads is at hand until its last use, for it crosses, and as long as
        it can be recomputed itself. The first one that is not limits the result.
        """
        self._reads[result] = reads
        for until in (self._from_crossing, self._from_inputs):
            limits: list[float] = []
            for value in reads:
                crosses_until = last_use.get(value, -1)
                limits.append(max(crosses_until, until.get(value, -1)))
            until[result] = min(limits)

    def from_crossing(self, value: Value) -> float:
        """Return the last position at which the value follows from what crosses; -1 for none."""
        return self._from_crossing.get(value, -1)

    def from_inputs(self, value: Value) -> float:
        """Return the same when small graph inputs may be forwarded for the purpose."""
        return self._from_inputs.get(value, -1)

    def is_shape(self, value: Value) -> bool:
        """Return whether the value is a few integers that depend on nothing but shapes."""
        return value in self._shapes

    def inputs(self, values: Iterable[Value], at_hand: Collection[Value]) -> set[Value]:
        """Return the graph inputs that recomputing some values reads.

        Args:
            values: Recomputable values.
            at_hand: What crosses; it is not recomputed, and what it is made of is not needed.
        """
        inputs: set[Value] = set()
        seen = set(values)
        pending = list(seen)
        while pending:
            for value in self._reads.get(pending.pop(), ()):
                if value in self._inputs:
                    inputs.add(value)
                elif value not in at_hand and value not in seen:
                    seen.add(value)
                    pending.append(value)
        return inputs


def _is_clonable(node: Node, frees: Iterable[Value], rules: Recompute) -> bool:
    """Return whether the node may run on both sides, with all constants it reads.

    A random or stateful node gives something else each time it runs. Nodes with bodies and those
    with several results are never cloned.
    """
    if node.random or node.states or node.graphs or node.callees or len(node.outputs) != 1:
        return False
    if not rules.is_cheap(node):
        return False

    # Both segments would hold what the node reads.
    return all(size_bytes(value) <= rules.constant_bytes for value in frees)


def _is_small(value: Value, rules: Recompute) -> bool:
    """Return whether a graph input may be forwarded for the purpose of recomputing.

    Where its size varies, only masks, indices and the like may: integers of few dimensions.
    """
    type = value.type
    if not isinstance(type, TensorType) or type.shape is None:
        return False
    if size_bytes(value) > rules.input_bytes:
        return False
    if type.is_static:
        return True

    # Its size counts an open dimension as 1, so that a large one may look small.
    return not type.dtype.is_float and len(type.shape) <= 2


def size_bytes(value: Value) -> float:
    """Return the size of a value, unknown dimensions as 1; infinite for an unknown type."""
    if not isinstance(value.type, TensorType):
        return inf
    size = value.type.size_bytes(1)
    return inf if size is None else size
