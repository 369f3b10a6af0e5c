"""Why a position is no legal cut, in words: the state that would be split, or the branch that is pending."""

from bisect import bisect_left
from functools import cached_property

from irsplit.base.errors import short
from irsplit.ir import Node, TensorType, Value
from irsplit.passes.analysis.cut import Cut
from irsplit.passes.analysis.dominators import DominatorTree
from irsplit.passes.analysis.schedule import Schedule
from irsplit.runtime.frame.limits import MAX_RANK, MAX_TENSORS


def independent(cut: Cut) -> str:
    return "nothing that the near side produced is read on the far side: the parts are independent"


def repeated(position: int, cut: Cut) -> str:
    return f"the same as cut {position}: the far side computes again what lies between"


def framable(value: Value) -> bool:
    """Whether a frame can carry the value: element type of fixed layout, known rank."""
    type = value.type
    return (
        isinstance(type, TensorType)
        and type.dtype.framable
        and type.shape is not None
        and len(type.shape) <= MAX_RANK
    )


def crowded(cut: Cut) -> str:
    count, forwards = len(cut.boundary), len(cut.forwards)
    return f"{count} tensors would travel, {forwards} of them graph inputs; a frame has room for {MAX_TENSORS}"


def unframable(cut: Cut) -> str:
    value = next(value for value in cut.boundary if not framable(value))
    if value.type is None:
        return f"{value} cannot be framed: its type is not known"
    if not isinstance(value.type, TensorType):
        return f"{value} cannot be framed: it is of type {short(value.type.text)}, not a tensor"
    if not value.type.dtype.framable:
        return f"{value} cannot be framed: element type {value.type.dtype} has no fixed layout"
    if value.type.shape is None:
        return f"{value} cannot be framed: its rank is not known"
    return f"{value} cannot be framed: its rank {len(value.type.shape)} is above {MAX_RANK}"


def called(node: Node) -> str:
    """A node as its user knows it: its name, or what it produces where it has none."""
    if node.name:
        return str(node)
    results = short(", ".join([str(value) for value in node.outputs if value is not None]), 400)
    return f"{short(node.op)} -> {results}" if results else short(node.op)


class SplitStates:
    """For each state, the positions of the first and the last node that touch it."""

    def __init__(self, plan: Schedule) -> None:
        self.plan = plan
        self.spans: dict[str, tuple[int, int]] = {}
        for index, node in enumerate(plan.nodes):
            for state in node.states:
                self.spans[state] = (self.spans.get(state, (index, index))[0], index)

    def split(self, cut: Cut) -> str:
        state, (first, last) = next(
            item for item in self.spans.items() if item[1][0] < cut.position <= item[1][1]
        )
        near, far = called(self.plan.nodes[first]), called(self.plan.nodes[last])
        return f"state '{short(state)}' would be split: {near} and {far} share it and must stay together"


class Branches:
    """Forks and joins of a schedule: nearest common dominators, from the inputs and from the outputs.

    Vertices are the fed inputs, then the nodes. The trees grow when the first question is asked.
    """

    def __init__(self, plan: Schedule, max_tensors: int) -> None:
        self.plan = plan
        self.max_tensors = max_tensors
        self.base = len(plan.inputs)
        self.count = self.base + len(plan.nodes)

    def pending(self, cut: Cut) -> str:
        """Of the values that cross, the oldest waits: its branch leaves that of the newest at the fork."""
        oldest, newest = cut.tensors[0], cut.tensors[-1]
        readers = self.readers[oldest]
        reader = readers[bisect_left(readers, self.base + cut.position)]
        fork = self.dominators.meet(self.vertex[oldest], self.vertex[newest])
        join = self.postdominators.meet(reader, self.vertex[newest])
        forks = self._origin(oldest, newest) if fork is None else f"forks at {self.called[fork]}"
        joins = "ends without joining" if join is None else f"joins at {self.called[join]}"
        return (
            f"{oldest} is pending, still read by {self.called[reader]}; its branch {forks} and {joins}"
            f" ({cut.crossing} tensors would cross, {self.max_tensors} may)"
        )

    def _origin(self, oldest: Value, newest: Value) -> str:
        """Where two branches come from that no node forked."""
        source = next(
            (value.producer for value in (oldest, newest) if not self.fed[self.vertex[value]]), None
        )
        return "forks at the graph inputs" if source is None else f"begins at {called(source)}"

    @cached_property
    def called(self) -> list[str]:
        return [*(f"input {value}" for value in self.plan.inputs), *map(called, self.plan.nodes)]

    @cached_property
    def vertex(self) -> dict[Value | None, int]:
        """For each runtime value, where it comes from."""
        vertex: dict[Value | None, int] = {
            value: index for index, value in enumerate(self.plan.inputs)
        }
        for index, node in enumerate(self.plan.nodes, self.base):
            for value in node.outputs:
                vertex[value] = index
        return vertex

    @cached_property
    def readers(self) -> dict[Value | None, list[int]]:
        readers: dict[Value | None, list[int]] = {}
        for index, read in enumerate(self.plan.reads, self.base):
            for value in read:
                readers.setdefault(value, []).append(index)
        return readers

    @cached_property
    def fed(self) -> list[bool]:
        """For each vertex, whether a path from an input leads to it: not so behind random numbers and states alone."""
        fed = [True] * self.base
        for read in self.plan.reads:
            fed.append(any(fed[self.vertex[value]] for value in read))
        return fed

    @cached_property
    def dominators(self) -> DominatorTree:
        """Of the paths from the inputs."""
        tree = DominatorTree(self.count)
        for vertex in range(self.base):
            tree.attach(vertex, ())
        for vertex, read in enumerate(self.plan.reads, self.base):
            tree.attach(vertex, [above for value in read if self.fed[above := self.vertex[value]]])
        return tree

    @cached_property
    def postdominators(self) -> DominatorTree:
        """Of the paths to the outputs: what leads to none (states that are written) hangs below the root."""
        tree = DominatorTree(self.count)
        outputs: set[Value | None] = set(self.plan.graph.outputs)
        produced = [
            *((value,) for value in self.plan.inputs),
            *(node.outputs for node in self.plan.nodes),
        ]
        reaching = [False] * self.count
        for vertex in range(self.count - 1, -1, -1):
            values = produced[vertex]
            ends = not outputs.isdisjoint(values)
            below = (
                []
                if ends
                else [v for value in values for v in self.readers.get(value, ()) if reaching[v]]
            )
            reaching[vertex] = ends or bool(below)
            tree.attach(vertex, below)
        return tree
