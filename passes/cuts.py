"""Where a graph can be cut: every position in execution order, legal or rejected with its reason.

A position splits the runtime nodes (those that depend on a runtime input) into a near side, closed under
predecessors, and a far side. Its boundary is what the near side produced and the far side reads. The cut is legal when

1. no node with bodies is cut through: a node is one position, and what its bodies capture counts as its operands;
2. no two nodes that share a state end up on different sides;
3. no branch is pending: exactly one produced value crosses (up to `max_tensors` for a wider frontier);
4. everything that crosses can be framed.

Free nodes (no runtime input, neither random nor stateful) and dead ones are on no side: the former are cloned to every
segment that reads them, the latter removed. Everything here is linear in the size of the graph but for a logarithm
in the search for forks and joins.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from irsplit.errors import CutError
from irsplit.ir import Graph, Node, TensorType, Value, operands
from irsplit.passes.dominators import DominatorTree

Kind = Literal["strict", "open", "frontier"]
LISTED = 32
"""A rejected position lists at most this many of the values that would cross it, the oldest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One position of the schedule: the first `position` runtime nodes are near, the others far.

    `kind` is None and `reason` a sentence when the cut is not legal. `strict`: the one tensor lies on every path from
    every input to every output. `open`: one tensor, but graph inputs are forwarded in the frame or graph outputs were
    already produced on the near side. `frontier`: several tensors that travel in one frame.
    """

    position: int
    after: Node
    kind: Kind | None
    reason: str | None
    tensors: tuple[Value, ...]
    crossing: int
    """How many produced values cross; `tensors` lists them all unless the cut is rejected and there are many."""
    forwards: tuple[Value, ...]
    early_outputs: tuple[Value, ...]
    weight_bytes: int
    """Bytes of the constants that the near side reads, each counted once."""
    macs_share: float | None
    """Share of the multiply-accumulate operations on the near side, 0 to 1; None when the graph counts none."""

    @property
    def legal(self) -> bool:
        return self.kind is not None

    @property
    def id(self) -> str:
        return str(self.position)

    @property
    def boundary(self) -> tuple[Value, ...]:
        """What travels in the frame, in frame order: the produced values, then the forwarded graph inputs."""
        return self.tensors + self.forwards

    def size_bytes(self, unknown: int | None = None) -> int | None:
        """Raw bytes of the boundary; a dimension that is not known counts as `unknown`, None when that is None."""
        sizes = [value.type.size_bytes(unknown) for value in self.boundary if isinstance(value.type, TensorType)]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(self.boundary) else None


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The runtime nodes in execution order, and what each must wait for."""

    graph: Graph
    nodes: tuple[Node, ...]
    reads: tuple[tuple[Value, ...], ...]
    """For each node, the runtime values it reads, those its bodies capture included."""
    inputs: tuple[Value, ...]
    """Graph inputs that the caller must feed (an input with a default counts as a constant)."""


def schedule(graph: Graph) -> Schedule:
    """The live runtime nodes of the graph, in the graph's order."""
    inputs = tuple(value for value in graph.inputs if value.constant is None)
    runtime = set(inputs)
    nodes: list[Node] = []
    reads: list[tuple[Value, ...]] = []
    for node in graph.nodes:
        read = tuple(value for value in operands(node) if value in runtime)
        if read or node.random or node.states:
            nodes.append(node)
            reads.append(read)
            runtime.update(value for value in node.outputs if value is not None)
    live = set(graph.outputs)
    keep = [False] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        keep[index] = bool(node.states) or any(value in live for value in node.outputs)
        if keep[index]:
            live.update(reads[index])
    kept = [index for index, kept in enumerate(keep) if kept]
    return Schedule(graph, tuple(nodes[i] for i in kept), tuple(reads[i] for i in kept), inputs)


def find_cuts(graph: Graph | Schedule, max_tensors: int = 1, macs: Callable[[Node], int] | None = None) -> list[Cut]:
    """Every position between two runtime nodes, in execution order, legal or not.

    `macs` counts the multiply-accumulate operations of a node, for `Cut.macs_share`.
    """
    plan = graph if isinstance(graph, Schedule) else schedule(graph)
    sweep = _Sweep(plan)
    blame = _Blame(plan, sweep)
    weights = _near_weights(plan)
    shares = _macs_shares(plan, macs)
    cuts: list[Cut] = []
    for position in range(1, len(plan.nodes)):
        sweep.advance(position)
        crossing = len(sweep.live)
        reason = sweep.state_reason() or blame.reason(position, max_tensors) or sweep.frame_reason()
        legal = reason is None
        tensors = tuple(sweep.live) if legal or crossing <= LISTED else tuple(sweep.live)[:LISTED]
        kind: Kind | None = None
        if legal:
            closed = not sweep.forwards and not sweep.early
            kind = "frontier" if crossing > 1 else "strict" if closed else "open"
        cuts.append(
            Cut(
                position,
                plan.nodes[position - 1],
                kind,
                reason,
                tensors,
                crossing,
                sweep.forwards,
                sweep.early,
                weights[position],
                None if shares is None else shares[position],
            )
        )
    return cuts


def legal_cuts(graph: Graph | Schedule, max_tensors: int = 1) -> list[Cut]:
    return [cut for cut in find_cuts(graph, max_tensors) if cut.legal]


def select_cut(cuts: Sequence[Cut], name: str) -> Cut:
    """The cut that a user means by `name`: an id, or the names of the tensors that cross, with + between them.

    Raises CutError for an unknown name and, with the reason, for a cut that is not legal.
    """
    wanted = name.removeprefix("%")
    matches = [cut for cut in cuts if cut.id == wanted]
    matches = matches or [cut for cut in cuts if "+".join(value.name for value in cut.tensors) == wanted]
    if not matches:
        known = ", ".join(cut.id for cut in cuts if cut.legal) or "none"
        raise CutError(f"there is no cut '{name}'; legal cuts by id: {known} (see 'irsplit cuts')")
    # A tensor can be the only one to cross at several positions: raw inputs may be read in between.
    cut = next((cut for cut in matches if cut.legal), matches[0])
    if not cut.legal:
        raise CutError(f"cut '{name}' is not legal: {cut.reason}")
    return cut


class _Sweep:
    """The values that cross the current position, kept up to date while it moves towards the outputs."""

    def __init__(self, plan: Schedule) -> None:
        self.plan = plan
        self.last_read: dict[Value, int] = {}
        for index, read in enumerate(plan.reads):
            self.last_read.update(dict.fromkeys(read, index))
        self.outputs = dict.fromkeys(plan.graph.outputs)
        self.live: dict[Value, None] = {}
        self._due: dict[int, list[Value]] = {}
        for value, index in self.last_read.items():
            self._due.setdefault(index, []).append(value)
        self._unread = dict.fromkeys(value for value in plan.inputs if value in self.last_read)
        self.forwards = tuple(self._unread)
        self.early = tuple(value for value in plan.inputs if value in self.outputs)
        self._spans = _state_spans(plan.nodes)
        self._open_states: dict[str, None] = {}
        self.position = 0

    def advance(self, position: int) -> None:
        """Take the nodes up to `position` to the near side."""
        for index in range(self.position, position):
            node = self.plan.nodes[index]
            produced = [value for value in node.outputs if value is not None]
            self.live.update((value, None) for value in produced if value in self.last_read)
            if any(value in self.outputs for value in produced):
                self.early += tuple(value for value in produced if value in self.outputs)
            due = self._due.get(index, ())
            for value in due:
                self.live.pop(value, None)
            if any(value in self._unread for value in due):
                for value in due:
                    self._unread.pop(value, None)
                self.forwards = tuple(self._unread)
            for state in node.states:
                first, last = self._spans[state]
                if index == first:
                    self._open_states[state] = None
                if index == last:
                    self._open_states.pop(state, None)
        self.position = position

    def state_reason(self) -> str | None:
        if not self._open_states:
            return None
        state = next(iter(self._open_states))
        first, last = self._spans[state]
        near, far = self.plan.nodes[first], self.plan.nodes[last]
        return f"state '{state}' would be split: {_called(near)} and {_called(far)} share it and must stay together"

    def frame_reason(self) -> str | None:
        for value in (*self.live, *self.forwards):
            if value.type is None:
                return f"{value} cannot be framed: its type is not known"
            if not isinstance(value.type, TensorType):
                return f"{value} cannot be framed: it is a {value.type.text}, not a tensor"
            if not value.type.dtype.framable:
                return f"{value} cannot be framed: element type {value.type.dtype} has no fixed layout"
            if value.type.shape is None:
                return f"{value} cannot be framed: its rank is not known"
        return None


class _Blame:
    """Why a position with several crossing values is illegal: the value that waits, where it forks, where it joins."""

    def __init__(self, plan: Schedule, sweep: _Sweep) -> None:
        self.plan = plan
        self.sweep = sweep
        self.vertex: dict[Value, int] = {value: index for index, value in enumerate(plan.inputs)}
        base = len(plan.inputs)
        for index, node in enumerate(plan.nodes):
            self.vertex.update((value, base + index) for value in node.outputs if value is not None)
        self.readers: dict[Value, list[int]] = {}
        for index, read in enumerate(plan.reads):
            for value in read:
                self.readers.setdefault(value, []).append(index)
        self._trees: tuple[DominatorTree, DominatorTree] | None = None

    def reason(self, position: int, max_tensors: int) -> str | None:
        live = self.sweep.live
        if not live:
            return "nothing that the near side produced is read on the far side: the parts are independent"
        if len(live) <= max_tensors:
            return None
        pending, newest = next(iter(live)), next(reversed(live))
        readers = self.readers[pending]
        reader = readers[bisect_left(readers, position)]
        # Built when the first cut is rejected: a chain needs no dominators.
        dominators, postdominators = self._trees = self._trees or self._build_trees()
        fork = dominators.meet(self.vertex[pending], self.vertex[newest])
        join = postdominators.meet(len(self.plan.inputs) + reader, self.vertex[newest])
        forks = f"forks at {self._called(fork)}" if fork is not None else "forks at the graph inputs"
        joins = f"joins at {self._called(join)}" if join is not None else "ends in an output without joining"
        return (
            f"{pending} is pending, still read by {_called(self.plan.nodes[reader])}; its branch {forks} and {joins}"
            f" ({len(live)} tensors would cross, {max_tensors} may)"
        )

    def _build_trees(self) -> tuple[DominatorTree, DominatorTree]:
        base, count = len(self.plan.inputs), len(self.plan.inputs) + len(self.plan.nodes)
        dominators, postdominators = DominatorTree(count), DominatorTree(count)
        for vertex in range(base):
            dominators.attach(vertex, ())
        for index, read in enumerate(self.plan.reads):
            dominators.attach(base + index, [self.vertex[value] for value in read])
        outputs = self.sweep.outputs
        for vertex in range(count - 1, -1, -1):
            produced = self.plan.nodes[vertex - base].outputs if vertex >= base else (self.plan.inputs[vertex],)
            values = [value for value in produced if value is not None]
            readers = {base + index for value in values for index in self.readers.get(value, ())}
            ends = any(value in outputs for value in values)
            postdominators.attach(vertex, () if ends else sorted(readers))
        return dominators, postdominators

    def _called(self, vertex: int) -> str:
        base = len(self.plan.inputs)
        return f"input {self.plan.inputs[vertex]}" if vertex < base else _called(self.plan.nodes[vertex - base])


def _called(node: Node) -> str:
    """A node as its user knows it: its name, or what it produces where it has none."""
    if node.name:
        return f"{node.op} '{node.name}'"
    results = ", ".join(str(value) for value in node.outputs if value is not None)
    return f"{node.op} -> {results}" if results else node.op


def _state_spans(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """For each state, the positions of the first and the last node that touch it."""
    spans: dict[str, tuple[int, int]] = {}
    for index, node in enumerate(nodes):
        for state in node.states:
            spans[state] = (spans.get(state, (index, index))[0], index)
    return spans


def _near_weights(plan: Schedule) -> list[int]:
    """Bytes of the distinct constants that the first i runtime nodes read, for every i; through free nodes too."""
    seen: set[object] = set()
    totals = [0]
    for node in plan.nodes:
        totals.append(totals[-1] + sum(_constant_sizes([*operands(node), *_inner_constants(node, seen)], seen)))
    return totals


def _inner_constants(node: Node, seen: set[object]) -> Iterable[Value]:
    """Constants of the bodies and called graphs of the node, of those not yet in `seen`, which is updated."""
    pending = [*node.graphs, *node.callees]
    while pending:
        graph = pending.pop()
        if graph in seen:
            continue
        seen.add(graph)
        yield from graph.constants
        for inner in graph.nodes:
            pending.extend((*inner.graphs, *inner.callees))


def _constant_sizes(values: Iterable[Value], seen: set[object]) -> Iterable[int]:
    """Sizes of the constants behind values, those not yet in `seen`, which is updated."""
    pending = list(values)
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        if value.constant is not None:
            seen.add(value)
            # Two values may share one span of the file: a buffer is counted once.
            span = (value.constant.buffer, value.constant.offset, value.constant.length)
            if span not in seen:
                seen.add(span)
                yield value.constant.length
        elif value.producer is not None and not value.producer.random and not value.producer.states:
            seen.add(value)
            pending.extend(operands(value.producer))


def _macs_shares(plan: Schedule, macs: Callable[[Node], int] | None) -> list[float] | None:
    if macs is None:
        return None
    totals = [0]
    for node in plan.nodes:
        totals.append(totals[-1] + macs(node))
    return [total / totals[-1] for total in totals] if totals[-1] else None
