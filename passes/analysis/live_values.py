"""What crosses a position that moves through a schedule: values to send, shapes beside them, values to recompute."""

from collections.abc import Iterable, Mapping, Sequence

from irsplit.ir import Value
from irsplit.passes.analysis.recompute import Recomputable, Recompute
from irsplit.passes.analysis.schedule import Schedule


class LiveValues:
    """The produced values that the far side reads, in three groups; without rules, all are sent.

    A value changes its group when what it could be recomputed from stops crossing. One that the far side reads the
    shape of, and nothing else, gives way to that shape: it crosses before its node's turn comes, which then moves to
    the near side. The work over a whole schedule is linear.
    """

    def __init__(self, plan: Schedule, rules: Recompute | None) -> None:
        self.last_read: dict[Value | None, int] = {}
        """The last node that reads the elements of a value."""
        self._shape_reads: dict[Value | None, list[tuple[int, Value]]] = {}
        """For a value, the nodes that read its shape alone, with their results."""
        outputs = set(plan.graph.outputs)
        for index, (node, read) in enumerate(zip(plan.nodes, plan.reads, strict=True)):
            shape = None if rules is None or not read else rules.shape_of(node)
            if shape is None or shape in outputs:
                self.last_read.update(dict.fromkeys(read, index))
            else:
                self._shape_reads.setdefault(read[0], []).append((index, shape))
        self.sent: dict[Value, None] = {}
        self.shapes: dict[Value, None] = {}
        self.recomputed: dict[Value, None] = {}
        self.groups = (self.sent, self.shapes, self.recomputed)
        self._plan = plan
        self._until = Recomputable(plan, self.last_read, rules)
        self._due: dict[float, list[Value]] = {}
        for value in plan.inputs:
            if value not in self.last_read:
                self._leave_shapes(value, 0)

    def produce(self, values: Iterable[Value | None], position: int) -> None:
        """Go on to `position`, whose last node on the near side produced `values`."""
        for value in self._due.pop(position, ()):
            if self._drop(value):
                self._group(value, position)[value] = None
        for value in values:
            last = self.last_read.get(value, -1)
            if value is None or last < position:
                self._leave_shapes(value, position)
                continue
            self._group(value, position)[value] = None
            for until in {self._until.from_crossing(value), self._until.from_inputs(value)}:
                if position <= until < last:
                    self._due.setdefault(until + 1, []).append(value)

    def retire(self, value: Value, position: int) -> bool:
        """From `position` on, nobody reads the elements of the value; whether it crossed."""
        self._leave_shapes(value, position)
        return self._drop(value)

    def _leave_shapes(self, value: Value | None, position: int) -> None:
        self.shapes.update(
            (shape, None) for index, shape in self._shape_reads.get(value, ()) if index >= position
        )

    def _drop(self, value: Value) -> bool:
        return any(group.pop(value, self) is None for group in self.groups)

    def _group(self, value: Value, position: int) -> dict[Value, None]:
        if position <= self._until.from_crossing(value):
            return self.recomputed
        if self._until.is_shape(value):
            return self.shapes
        return self.recomputed if position <= self._until.from_inputs(value) else self.sent

    def forwards(
        self, recomputed: Mapping[Value, None], unread: Sequence[Value]
    ) -> tuple[Value, ...]:
        """Graph inputs that must travel: those still to be read, and those that values are recomputed from."""
        if not recomputed:
            return tuple(unread)
        needed = self._until.inputs(recomputed, self.sent.keys() | self.shapes.keys()).union(unread)
        return tuple(value for value in self._plan.inputs if value in needed)
