"""Why a position is no legal cut, in words.

Each function takes a rejected cut and returns a sentence for its user. The two classes answer for
whole schedules: which state would be split, and where a pending branch forks and joins.
"""

from bisect import bisect_left
from functools import cached_property

from irsplit.base.errors import short
from irsplit.ir import Node, TensorType, Value
from irsplit.passes.analysis.cut import Cut
from irsplit.passes.analysis.dominators import DominatorTree
from irsplit.passes.analysis.schedule import Schedule
from irsplit.runtime.frame.limits import MAX_RANK, MAX_TENSORS

_LONGEST_RESULTS = 400
"""Letters for the results of a node without a name."""


def independent(cut: Cut) -> str:
    """Word that nothing crosses."""
    return (
        "nothing that the device side produced is read on the server side: the two are independent"
    )


def repeated(position: int, cut: Cut) -> str:
    """Word that the cut sends what the one at `position` sends."""
    return f"the same as cut {position}: the server side computes again what lies between"


def framable(value: Value) -> bool:
    """Return whether a frame can carry the value: elements of fixed layout, and a known rank."""
    type = value.type
    if not isinstance(type, TensorType) or type.shape is None:
        return False
    return type.dtype.framable and len(type.shape) <= MAX_RANK


def crowded(cut: Cut) -> str:
    """Word that more tensors cross than a frame has room for."""
    count, forwards = len(cut.boundary), len(cut.forwards)
    return (
        f"{count} tensors would travel, {forwards} of them graph inputs; "
        f"a frame has room for {MAX_TENSORS}"
    )


def unframable(cut: Cut) -> str:
    """Word which tensor of the cut no frame can carry, and why."""
    value = next(value for value in cut.boundary if not framable(value))
    type = value.type
    if type is None:
        why = "its type is not known"
    elif not isinstance(type, TensorType):
        why = f"it is of type {short(type.text)}, not a tensor"
    elif not type.dtype.framable:
        why = f"element type {type.dtype} has no fixed layout"
    elif type.shape is None:
        why = "its rank is not known"
    else:
        why = f"its rank {len(type.shape)} is above {MAX_RANK}"
    return f"{value} cannot be framed: {why}"


def called(node: Node) -> str:
    """Return what a user calls the node: its name or, without one, its operator and results."""
    if node.name:
        return str(node)

    operator = short(node.op)
    results = ", ".join(str(value) for value in node.outputs if value is not None)
    if not results:
        return operator
    return f"{operator} -> {short(results, _LONGEST_RESULTS)}"


class SplitStates:
    """For each state of a schedule, the positions of the first and the last node that touch it."""

    def __init__(self, plan: Schedule) -> None:
        self.plan = plan
        self.spans: dict[str, tuple[int, int]] = {}
        for index, node in enumerate(plan.nodes):
            for state in node.states:
                first, _ = self.spans.get(state, (index, index))
                self.spans[state] = (first, index)

    def split(self, cut: Cut) -> str:
        """Word which state the cut would split, and which two nodes share it."""
        for state, (first, last) in self.spans.items():
            if not first < cut.position <= last:
                continue

            before, behind = called(self.plan.nodes[first]), called(self.plan.nodes[last])
            return (
                f"state '{short(state)}' would be split: {before} and {behind} share it and must "
                "stay together"
            )
        raise AssertionError(f"no state is split at {cut.id}")


class Branches:
    """Forks and joins of a schedule: nearest common dominators and postdominators.

    Vertices are the graph inputs, then the nodes. The two trees grow when the first question is
    asked, because most schedules are never asked about.

    Args:
        plan: The schedule that is cut.
        max_tensors: How many tensors may cross, for the reason's text.
    """

    def __init__(self, plan: Schedule, max_tensors: int) -> None:
        self.plan = plan
        self.max_tensors = max_tensors
        self.base = len(plan.inputs)
        self.count = self.base + len(plan.nodes)

    def pending(self, cut: Cut) -> str:
        """Word which branch is pending at the cut, where it forks and where it joins.

        Of the values that cross, the oldest one is pending: the branch it is on left that of the
        newest one at the fork.
        """
        oldest, newest = cut.tensors[0], cut.tensors[-1]

        # The first node behind the cut that reads the oldest value.
        readers = self.readers[oldest]
        reader = readers[bisect_left(readers, self.base + cut.position)]

        # Both values come from the fork, and both lead to the join.
        fork = self.dominators.meet(self.vertex[oldest], self.vertex[newest])
        join = self.postdominators.meet(reader, self.vertex[newest])

        forks = self._origin(oldest, newest) if fork is None else f"forks at {self.called[fork]}"
        joins = "ends without joining" if join is None else f"joins at {self.called[join]}"
        return (
            f"{oldest} is pending, still read by {self.called[reader]}; its branch {forks} and "
            f"{joins} ({cut.crossing} tensors would cross, {self.max_tensors} may)"
        )

    def _origin(self, oldest: Value, newest: Value) -> str:
        """Word where two branches come from that no node forked."""
        for value in (oldest, newest):
            if not self.depends_on_inputs[self.vertex[value]] and value.producer is not None:
                return f"begins at {called(value.producer)}"
        return "forks at the graph inputs"

    @cached_property
    def called(self) -> list[str]:
        """What a user calls each vertex."""
        names = [f"input {value}" for value in self.plan.inputs]
        names += [called(node) for node in self.plan.nodes]
        return names

    @cached_property
    def vertex(self) -> dict[Value | None, int]:
        """For each runtime value, the vertex that it comes from."""
        vertex: dict[Value | None, int] = {}
        for index, value in enumerate(self.plan.inputs):
            vertex[value] = index
        for index, node in enumerate(self.plan.nodes, self.base):
            vertex.update(dict.fromkeys(node.outputs, index))
        return vertex

    @cached_property
    def readers(self) -> dict[Value | None, list[int]]:
        """For each runtime value, the vertices that read it, in ascending order."""
        readers: dict[Value | None, list[int]] = {}
        for index, reads in enumerate(self.plan.reads, self.base):
            for value in reads:
                readers.setdefault(value, []).append(index)
        return readers

    @cached_property
    def depends_on_inputs(self) -> list[bool]:
        """For each vertex, whether a path from an input leads to it.

        None leads to what depends on random numbers and states alone.
        """
        depends = [True] * self.base
        for reads in self.plan.reads:
            depends.append(any(depends[self.vertex[value]] for value in reads))
        return depends

    @cached_property
    def dominators(self) -> DominatorTree:
        """The dominators on the paths from the inputs."""
        tree = DominatorTree(self.count)
        for vertex in range(self.base):
            tree.attach(vertex, ())

        for vertex, reads in enumerate(self.plan.reads, self.base):
            sources = [self.vertex[value] for value in reads]
            tree.attach(vertex, [source for source in sources if self.depends_on_inputs[source]])
        return tree

    @cached_property
    def postdominators(self) -> DominatorTree:
        """The dominators on the paths to the outputs, walked backwards.

        What leads to no output, such as a state that is written, hangs below the root.
        """
        tree = DominatorTree(self.count)
        outputs: set[Value | None] = set(self.plan.graph.outputs)
        results: list[tuple[Value | None, ...]] = [(value,) for value in self.plan.inputs]
        results += [tuple(node.outputs) for node in self.plan.nodes]

        reaches = [False] * self.count
        for vertex in range(self.count - 1, -1, -1):
            is_output = not outputs.isdisjoint(results[vertex])

            # An output is a path's end: what reads it besides does not count.
            after = [] if is_output else self._reaching_readers(results[vertex], reaches)
            reaches[vertex] = is_output or bool(after)
            tree.attach(vertex, after)
        return tree

    def _reaching_readers(self, values: tuple[Value | None, ...], reaches: list[bool]) -> list[int]:
        """Return the vertices that read the values and lead to an output."""
        reaching: list[int] = []
        for value in values:
            reaching += [reader for reader in self.readers.get(value, ()) if reaches[reader]]
        return reaching
