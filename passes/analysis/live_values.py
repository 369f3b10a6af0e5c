"""The values that are live across a cut which moves through a schedule."""

from collections.abc import Iterable, Mapping, Sequence

from irsplit.ir import Value
from irsplit.passes.analysis.recompute import Recomputable, Recompute
from irsplit.passes.analysis.schedule import Schedule


class LiveValues:
    """Tracks the produced values that are live across the current cut, in three disjoint sets.

    * `sent`: the value is transferred.
    * `shapes`: the value is a small shape, which is transferred beside the tensors.
    * `recomputed`: the value is rebuilt on the server side and is not transferred.

    A value moves from `recomputed` to `shapes` or `sent` at the first position where one of the
    values it is recomputed from is no longer live. A node that reads only the shape of a value
    does not keep that value live: after the last use of its elements, the node's result is live in
    its place, even before the node's own turn, and the node moves to the device side.

    Without rules every live value is in `sent`. Advancing over the whole schedule is
    O(nodes + edges).

    Args:
        plan: The schedule that the cut moves through.
        rules: What may be recomputed; None for nothing.
    """

    def __init__(self, plan: Schedule, rules: Recompute | None) -> None:
        self.last_use: dict[Value | None, int] = {}
        """For each value, the index of the last node that reads its elements."""
        self.sent: dict[Value, None] = {}
        self.shapes: dict[Value, None] = {}
        self.recomputed: dict[Value, None] = {}
        self.groups = (self.sent, self.shapes, self.recomputed)
        self._plan = plan
        self._shape_uses: dict[Value | None, list[tuple[int, Value]]] = {}
        """For each value, the indices of the nodes that read only its shape, with their results."""
        self._find_uses(rules)
        self._recomputable = Recomputable(plan, self.last_use, rules)
        self._moves: dict[float, list[Value]] = {}
        """For each position, the values that may have to change their set there."""

        # An input whose elements nobody reads gives way to its shapes from the beginning.
        for value in plan.inputs:
            if value not in self.last_use:
                self._leave_shapes(value, 0)

    def _find_uses(self, rules: Recompute | None) -> None:
        outputs = set(self._plan.graph.outputs)
        for index, (node, reads) in enumerate(zip(self._plan.nodes, self._plan.reads, strict=True)):
            shape = None if rules is None or not reads else rules.shape_of(node)
            if shape is None or shape in outputs:
                self.last_use.update(dict.fromkeys(reads, index))
            else:
                self._shape_uses.setdefault(reads[0], []).append((index, shape))

    def define(self, values: Iterable[Value | None], position: int) -> None:
        """Advance to the next position.

        Args:
            values: The results of the node that this step takes to the device side.
            position: The new position, one more than before.
        """
        for value in self._moves.pop(position, ()):
            if self._drop(value):
                self._set_of(value, position)[value] = None

        for value in values:
            last = self.last_use.get(value, -1)
            if value is None or last < position:
                self._leave_shapes(value, position)
                continue

            self._set_of(value, position)[value] = None
            for until in {
                self._recomputable.from_crossing(value),
                self._recomputable.from_inputs(value),
            }:
                if position <= until < last:
                    self._moves.setdefault(until + 1, []).append(value)

    def kill(self, value: Value, position: int) -> bool:
        """Remove a value whose elements nobody reads from `position` on.

        Args:
            value: A value whose last use was the node before `position`.
            position: The current position.

        Returns:
            Whether the value was in one of the sets; a graph input is in none.
        """
        self._leave_shapes(value, position)
        return self._drop(value)

    def forwards(
        self, recomputed: Mapping[Value, None], unread: Sequence[Value]
    ) -> tuple[Value, ...]:
        """Return the graph inputs that must travel at the current position.

        Args:
            recomputed: The values that the server side rebuilds.
            unread: The graph inputs that nodes of the server side read.

        Returns:
            `unread` and the inputs that `recomputed` are rebuilt from, in the graph's order.
        """
        if not recomputed:
            return tuple(unread)

        at_hand = self.sent.keys() | self.shapes.keys()
        inputs = self._recomputable.inputs(recomputed, at_hand).union(unread)
        return tuple(value for value in self._plan.inputs if value in inputs)

    def _leave_shapes(self, value: Value | None, position: int) -> None:
        """Make the shapes of a value live that nodes from `position` on would have read."""
        for index, shape in self._shape_uses.get(value, ()):
            if index >= position:
                self.shapes[shape] = None

    def _drop(self, value: Value) -> bool:
        """Remove a value from its set; whether it was in one."""
        for group in self.groups:
            if value in group:
                del group[value]
                return True
        return False

    def _set_of(self, value: Value, position: int) -> dict[Value, None]:
        """Return the set in which a live value belongs at `position`."""
        if position <= self._recomputable.from_crossing(value):
            return self.recomputed
        if self._recomputable.is_shape(value):
            return self.shapes
        if position <= self._recomputable.from_inputs(value):
            return self.recomputed
        return self.sent
