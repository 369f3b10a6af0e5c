"""Which values the far side can compute again instead of receiving them, and until which position.

A value can be recomputed when a cheap, pure node makes it of values that are at hand there: what crosses anyway, graph
inputs that are forwarded or small, constants. Random and stateful nodes, and those with bodies or several results,
never are. Everything is linear in the size of the schedule.
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
    is_shape: Callable[[Node], bool]
    """Whether the node reads nothing of its operand but the shape."""
    input_bytes: int = 1 << 16
    """A graph input up to this size is forwarded when nothing else needs it on the far side."""
    constant_bytes: int = 1 << 22
    """A node that reads larger constants is not cloned: both segments would hold them."""
    depth: int = 32
    """Longest chain of nodes behind a recomputed value."""
    shape_bytes: int = 64
    """A shape that cannot be recomputed travels beside the tensors up to this size."""

    def shape_of(self, node: Node) -> Value | None:
        """The result of a node that reads nothing but a shape, if it is small enough to travel beside tensors."""
        result = node.outputs[0] if len(node.outputs) == 1 and self.is_shape(node) else None
        return result if result is not None and self.is_tiny(result) else None

    def is_tiny(self, value: Value) -> bool:
        """Whether the value is a few integers, of a number that is known."""
        type = value.type
        integers = isinstance(type, TensorType) and type.is_static and not type.dtype.is_float
        return integers and size_bytes(value) <= self.shape_bytes


class Recomputable:
    """For every value of a schedule, the last position at which the far side can recompute it."""

    def __init__(
        self, plan: Schedule, last_read: dict[Value | None, int], rules: Recompute | None
    ) -> None:
        self._reads: dict[Value, tuple[Value, ...]] = {}
        """What the nodes behind recomputable values read."""
        self._from_crossing: dict[Value, float] = {}
        self._from_inputs: dict[Value, float] = {}
        self._shapes: set[Value] = set()
        self._inputs = set(plan.inputs)
        if rules is None:
            return
        self._from_inputs.update((value, inf) for value in plan.inputs if _is_small(value, rules))
        depth: dict[Value, int] = {}
        for node, read, frees in zip(plan.nodes, plan.reads, plan.frees, strict=True):
            if not read or not _is_clonable(node, frees, rules):
                continue
            chain = 1 + max(depth.get(value, 0) for value in read)
            result = node.outputs[0]
            if result is None or chain > rules.depth:
                continue
            depth[result] = chain
            self._reads[result] = read
            for until in (self._from_crossing, self._from_inputs):
                until[result] = min(
                    max(last_read.get(value, -1), until.get(value, -1)) for value in read
                )
            if rules.is_tiny(result) and (rules.is_shape(node) or self._shapes.issuperset(read)):
                self._shapes.add(result)

    def from_crossing(self, value: Value) -> float:
        """The last position at which the value is a function of what crosses besides; -1 for none."""
        return self._from_crossing.get(value, -1)

    def from_inputs(self, value: Value) -> float:
        """The same with small graph inputs forwarded for the purpose."""
        return self._from_inputs.get(value, -1)

    def is_shape(self, value: Value) -> bool:
        """Whether the value is a few integers that depend on nothing but shapes."""
        return value in self._shapes

    def inputs(self, values: Iterable[Value], at_hand: Collection[Value]) -> set[Value]:
        """The graph inputs that recomputing `values` reads, when `at_hand` crosses."""
        found: set[Value] = set()
        seen = set(values)
        pending = list(seen)
        while pending:
            for value in self._reads.get(pending.pop(), ()):
                if value in self._inputs:
                    found.add(value)
                elif value not in at_hand and value not in seen:
                    seen.add(value)
                    pending.append(value)
        return found


def _is_clonable(node: Node, frees: Iterable[Value], rules: Recompute) -> bool:
    if node.random or node.states or node.graphs or node.callees or len(node.outputs) != 1:
        return False
    return rules.is_cheap(node) and all(
        size_bytes(value) <= rules.constant_bytes for value in frees
    )


def _is_small(value: Value, rules: Recompute) -> bool:
    """Of inputs whose size varies, only masks, indices and the like: integers of few dimensions."""
    type = value.type
    if (
        not isinstance(type, TensorType)
        or type.shape is None
        or size_bytes(value) > rules.input_bytes
    ):
        return False
    return type.is_static or (not type.dtype.is_float and len(type.shape) <= 2)


def size_bytes(value: Value) -> float:
    """Size of a value, unknown dimensions as 1; infinite when not even the type is known."""
    size = value.type.size_bytes(1) if isinstance(value.type, TensorType) else None
    return inf if size is None else size
