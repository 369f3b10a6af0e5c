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

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from irsplit.errors import CutError
from irsplit.ir import Graph, Node, Value, operands
from irsplit.passes.cut import Cut, Kind
from irsplit.passes.reasons import Branches, States, framable, independent, unframable
from irsplit.passes.schedule import Schedule, schedule

LISTED = 32
"""A rejected position lists at most this many of the values that would cross it."""


def find_cuts(graph: Graph | Schedule, max_tensors: int = 1, macs: Callable[[Node], int] | None = None) -> list[Cut]:
    """Every position between two runtime nodes, in execution order, legal or not.

    `macs` counts the multiply-accumulate operations of a node, for `Cut.macs_share`.
    """
    plan = graph if isinstance(graph, Schedule) else schedule(graph)
    sweep = _Sweep(plan, max_tensors)
    weights = _near_weights(plan)
    shares = _macs_shares(plan, macs)
    cuts: list[Cut] = []
    for position in range(1, len(plan.nodes)):
        sweep.advance()
        explain = sweep.objection()
        live = sweep.live
        kind: Kind | None = None
        if explain is None:
            kind = "frontier" if len(live) > 1 else "open" if sweep.forwards or sweep.early else "strict"
        cuts.append(
            Cut(
                position,
                plan.nodes[position - 1],
                kind,
                explain,
                tuple(live) if kind or len(live) <= LISTED else (*islice(live, LISTED - 1), next(reversed(live))),
                len(live),
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
    wanted = "+".join(part.removeprefix("%") for part in name.split("+"))
    matches = [cut for cut in cuts if cut.id == wanted]
    matches = matches or [cut for cut in cuts if "+".join(value.name for value in cut.tensors) == wanted]
    # A tensor that never crosses alone: the position behind its node, for the reason.
    matches = matches or [cut for cut in cuts if any(value and value.name == wanted for value in cut.after.outputs)]
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

    def __init__(self, plan: Schedule, max_tensors: int) -> None:
        self._plan = plan
        self._max_tensors = max_tensors
        self._position = 0
        self._last_read: dict[Value | None, int] = {}
        for index, read in enumerate(plan.reads):
            for value in read:
                self._last_read[value] = index
        self._outputs: set[Value | None] = set(plan.graph.outputs)
        self._unread = dict.fromkeys(value for value in plan.inputs if value in self._last_read)
        self._unframable = {value for value in self._unread if not framable(value)}
        self._states = States(plan)
        self._open_states: set[str] = set()
        self._pending = Branches(plan, max_tensors).pending
        self.live: dict[Value, None] = {}
        self.forwards = tuple(self._unread)
        self.early = tuple(value for value in plan.inputs if value in self._outputs)

    def advance(self) -> None:
        """Take the next node to the near side."""
        index = self._position
        node = self._plan.nodes[index]
        self._position += 1
        for value in node.outputs:
            if value is not None and value in self._last_read:
                self.live[value] = None
                if not framable(value):
                    self._unframable.add(value)
        if not self._outputs.isdisjoint(node.outputs):
            self.early += tuple(value for value in node.outputs if value is not None and value in self._outputs)
        for value in self._plan.reads[index]:
            if self._last_read[value] == index:
                self._retire(value)
        for state in node.states:
            first, last = self._states.spans[state]
            if index == first:
                self._open_states.add(state)
            if index == last:
                self._open_states.discard(state)

    def _retire(self, value: Value) -> None:
        """Nobody reads the value any more."""
        self._unframable.discard(value)
        if value in self.live:
            del self.live[value]
            return
        del self._unread[value]
        self.forwards = tuple(self._unread)

    def objection(self) -> Callable[[Cut], str] | None:
        """What words the reason why the current position is not legal; None when it is."""
        if self._open_states:
            return self._states.split
        if not self.live:
            return independent
        if len(self.live) > self._max_tensors:
            return self._pending
        return unframable if self._unframable else None


def _near_weights(plan: Schedule) -> list[int]:
    """Bytes of the distinct constants that the first i runtime nodes read, for every i; through free nodes too."""
    seen: set[object] = set()
    total = 0
    totals = [0]
    for node, frees in zip(plan.nodes, plan.frees, strict=True):
        total += sum(_constant_sizes(frees, seen))
        if node.graphs or node.callees:
            total += sum(_constant_sizes(_inner_constants(node, seen), seen))
        totals.append(total)
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
    """Sizes of the constants behind free values, those not yet in `seen`, which is updated."""
    pending = list(values)
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.constant is not None:
            # Two values may share one span of the file: a buffer is counted once.
            span = (value.constant.buffer, value.constant.offset, value.constant.length)
            if span not in seen:
                seen.add(span)
                yield value.constant.length
        elif value.producer is not None:
            pending.extend(operands(value.producer))


def _macs_shares(plan: Schedule, macs: Callable[[Node], int] | None) -> list[float] | None:
    if macs is None:
        return None
    totals = [0]
    for node in plan.nodes:
        totals.append(totals[-1] + macs(node))
    return [total / totals[-1] for total in totals] if totals[-1] else None
