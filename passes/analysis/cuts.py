"""Where a graph can be cut: every position in execution order, legal or rejected with its reason.

A position splits the runtime nodes (those that depend on a runtime input) into a near side, closed under
predecessors, and a far side. Its boundary is what the near side produced and the far side reads. The cut is legal when

1. no node with bodies is cut through: a node is one position, and what its bodies capture counts as its operands;
2. no two nodes that share a state end up on different sides;
3. no branch is pending: exactly one produced value crosses (up to `max_tensors` for a wider frontier);
4. everything that crosses can be framed.

With `recompute`, values that the far side can compute again from what crosses do not count as crossing.

Free nodes (no runtime input, neither random nor stateful) and dead ones are on no side: the former are cloned to every
segment that reads them, the latter removed. Everything here is linear in the size of the graph but for a logarithm
in the search for forks and joins.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import islice
from math import inf
from typing import NamedTuple

from irsplit.base.errors import CutError, short
from irsplit.ir import Graph, Node, Value, uses_with_captures, without_collector
from irsplit.passes.analysis.cut import Cut, CutKind
from irsplit.passes.analysis.live_values import LiveValues
from irsplit.passes.analysis.orders import orders
from irsplit.passes.analysis.reasons import (
    Branches,
    SplitStates,
    crowded,
    framable,
    independent,
    repeated,
    unframable,
)
from irsplit.passes.analysis.recompute import Recompute, size_bytes
from irsplit.passes.analysis.schedule import Schedule, schedule
from irsplit.runtime.frame.limits import MAX_TENSORS

LISTED = 32
"""A rejected position lists at most this many of the values that would cross it."""


@without_collector()
def find_cuts(
    graph: Graph | Schedule,
    max_tensors: int = 1,
    macs: Callable[[Node], int] | None = None,
    recompute: Recompute | None = None,
) -> list[Cut]:
    """Every position between two runtime nodes, in execution order, legal or not.

    With several tensors allowed, also the legal cuts of other orders that are better than all before them: no cut with
    as few weights on the near side has as few bytes. `macs` counts the multiply-accumulate operations of a node, for
    `Cut.macs_share`. With `recompute`, values that the far side can compute again do not cross. What is legal without
    stays legal with it.
    """
    plan = graph if isinstance(graph, Schedule) else schedule(graph)
    cuts = _positions(plan, max_tensors, macs, recompute)
    if max_tensors == 1:
        return cuts
    others = [
        cut
        for order in orders(plan)
        for cut in _positions(order, max_tensors, macs, recompute)
        if cut.legal
    ]
    return sorted([*cuts, *_better_ones(cuts, others)], key=lambda cut: cut.position)


def _better_ones(cuts: Sequence[Cut], others: Sequence[Cut]) -> list[Cut]:
    """Those of the `others` that have fewer bytes than everything with as few weights, and as few nodes, before it."""
    known = set(cuts)
    best: float = inf
    better: list[Cut] = []
    legal = (cut for cut in cuts if cut.legal)
    for cut in sorted([*legal, *others], key=lambda cut: (cut.weight_bytes, cut.position)):
        size = sum(map(size_bytes, cut.boundary))
        if size < best:
            best = size
            if cut not in known:
                better.append(cut)
    return better


def _positions(
    plan: Schedule,
    max_tensors: int,
    macs: Callable[[Node], int] | None,
    recompute: Recompute | None,
) -> list[Cut]:
    weights = _near_weights(plan)
    shares = _macs_shares(plan, macs)
    boundaries = _boundaries(plan, max_tensors, None)
    if recompute is not None:
        boundaries = map(_better, boundaries, _boundaries(plan, max_tensors, recompute))
    cuts: list[Cut] = []
    for position, boundary in enumerate(boundaries, 1):
        kind: CutKind | None = None
        if boundary.explain is None:
            kind = (
                "frontier"
                if boundary.crossing > 1
                else "open"
                if boundary.forwards or boundary.early
                else "strict"
            )
        cuts.append(
            Cut(
                plan,
                position,
                plan.nodes[position - 1],
                kind,
                boundary.explain,
                boundary.sent,
                boundary.crossing,
                boundary.shapes,
                boundary.recomputed,
                boundary.forwards,
                boundary.early,
                weights[position],
                None if shares is None else shares[position],
            )
        )
    return cuts


def legal_cuts(
    graph: Graph | Schedule, max_tensors: int = 1, recompute: Recompute | None = None
) -> list[Cut]:
    return [cut for cut in find_cuts(graph, max_tensors, recompute=recompute) if cut.legal]


def select_cut(cuts: Sequence[Cut], name: str) -> Cut:
    """The cut that a user means by `name`: an id, or the names of the tensors that cross, with + between them.

    Raises CutError for an unknown name and, with the reason, for a cut that is not legal.
    """
    wanted = "+".join(part.removeprefix("%") for part in name.split("+"))
    matches = _named(cuts, name) or _named(cuts, wanted)
    if not matches:
        known = ", ".join(cut.id for cut in cuts if cut.legal) or "none"
        near = get_close_matches(
            wanted, ["+".join(value.name for value in cut.tensors) for cut in cuts if cut.legal]
        )
        hint = f"did you mean {short(near[0])}? " if near else ""
        raise CutError(
            f"there is no cut '{short(name)}'; {hint}legal cuts by id: {known} (see 'irsplit cuts')"
        )
    # A tensor can be the only one to cross at several positions: raw inputs may be read in between.
    cut = next((cut for cut in matches if cut.legal), matches[0])
    if not cut.legal:
        raise CutError(f"cut '{short(name)}' is not legal: {cut.reason}")
    return cut


def _named(cuts: Sequence[Cut], name: str) -> list[Cut]:
    matches = [cut for cut in cuts if cut.id == name]
    matches = matches or [
        cut for cut in cuts if "+".join(value.name for value in cut.tensors) == name
    ]
    # A tensor that never crosses alone: the position behind its node, for the reason.
    return matches or [
        cut for cut in cuts if any(value and value.name == name for value in cut.after.outputs)
    ]


class _Boundary(NamedTuple):
    """What the far side of a position reads, and why the position is not legal."""

    sent: tuple[Value, ...]
    crossing: int
    """How many values are to be sent; of very many, `sent` has some and the newest."""
    shapes: tuple[Value, ...]
    recomputed: tuple[Value, ...]
    forwards: tuple[Value, ...]
    early: tuple[Value, ...]
    explain: Callable[[Cut], str] | None


def _boundaries(
    plan: Schedule, max_tensors: int, recompute: Recompute | None
) -> Iterator[_Boundary]:
    """The boundary at every position."""
    sweep = _Sweep(plan, max_tensors, recompute)
    for _ in range(1, len(plan.nodes)):
        sweep.advance()
        yield sweep.boundary()


def _better(plain: _Boundary, recomputing: _Boundary) -> _Boundary:
    """Of one position's boundaries, the legal one; the smaller one when both are."""
    if plain.explain is not None:
        return recomputing
    if recomputing.explain is not None:
        return plain
    sizes = [
        sum(size_bytes(value) for value in (*boundary.sent, *boundary.shapes, *boundary.forwards))
        for boundary in (plain, recomputing)
    ]
    return plain if sizes[0] <= sizes[1] else recomputing


class _Sweep:
    """What crosses the current position, kept up to date while it moves towards the outputs."""

    def __init__(self, plan: Schedule, max_tensors: int, recompute: Recompute | None) -> None:
        self._plan = plan
        self._max_tensors = max_tensors
        self._position = 0
        self._crossing = LiveValues(plan, recompute)
        self._outputs: set[Value | None] = set(plan.graph.outputs)
        self._unread = dict.fromkeys(
            value for value in plan.inputs if value in self._crossing.last_read
        )
        self._forwards = tuple(self._unread)
        self._early = tuple(value for value in plan.inputs if value in self._outputs)
        self._states = SplitStates(plan)
        self._open_states: set[str] = set()
        self._pending = Branches(plan, max_tensors).pending
        self._legal: tuple[int, tuple[Value, ...], int] = (0, (), 0)
        """The latest legal position, what is sent there, and how many outputs are ready."""
        self._legal_forwards: tuple[Value, ...] = ()

    def advance(self) -> None:
        """Take the next node to the near side."""
        index = self._position
        node = self._plan.nodes[index]
        self._position += 1
        self._crossing.produce(node.outputs, self._position)
        if not self._outputs.isdisjoint(node.outputs):
            self._early += tuple(
                value for value in node.outputs if value is not None and value in self._outputs
            )
        for value in self._plan.reads[index]:
            last = self._crossing.last_read.get(value) == index
            if last and not self._crossing.retire(value, self._position):
                del self._unread[value]
                self._forwards = tuple(self._unread)
        for state in node.states:
            first, last = self._states.spans[state]
            if index == first:
                self._open_states.add(state)
            if index == last:
                self._open_states.discard(state)

    def boundary(self) -> _Boundary:
        values, shapes, recomputed = self._crossing.groups
        # What could be computed from graph inputs alone is sent when nothing else is; then shapes are.
        if not values:
            values, recomputed = recomputed, {}
        if not values:
            values, shapes = shapes, {}
        if len(values) > self._max_tensors:
            whole = len(values) <= LISTED
            some = tuple(values) if whole else (*islice(values, LISTED - 1), next(reversed(values)))
            explain = self._states.split if self._open_states else self._pending
            return _Boundary(some, len(values), (), (), self._forwards, self._early, explain)
        sent, forwards = tuple(values), self._crossing.forwards(recomputed, self._forwards)
        explain = self._objection(sent, tuple(shapes), forwards, bool(shapes or recomputed))
        return _Boundary(
            sent, len(sent), tuple(shapes), tuple(recomputed), forwards, self._early, explain
        )

    def _objection(
        self,
        sent: tuple[Value, ...],
        shapes: tuple[Value, ...],
        forwards: tuple[Value, ...],
        recomputes: bool,
    ) -> Callable[[Cut], str] | None:
        """What words the reason why the current position is not legal; None when it is."""
        if self._open_states:
            return self._states.split
        if not sent:
            return independent
        if not all(map(framable, (*sent, *forwards))):
            return unframable
        if len(sent) + len(shapes) + len(forwards) > MAX_TENSORS:
            return crowded
        position, *before = self._legal
        if (
            recomputes
            and before == [sent, len(self._early)]
            and set(self._legal_forwards).issubset(forwards)
        ):
            return partial(repeated, position)
        self._legal, self._legal_forwards = (self._position, sent, len(self._early)), forwards
        return None


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
            pending.extend(uses_with_captures(value.producer))


def _macs_shares(plan: Schedule, macs: Callable[[Node], int] | None) -> list[float] | None:
    if macs is None:
        return None
    totals = [0]
    for node in plan.nodes:
        totals.append(totals[-1] + macs(node))
    return [total / totals[-1] for total in totals] if totals[-1] else None
