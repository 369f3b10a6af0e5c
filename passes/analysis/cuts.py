"""Where a graph can be cut: every position in execution order, legal or rejected with its reason.

A position splits the runtime nodes (those that depend on a runtime input) into a device side,
which holds the predecessors of all its nodes, and a server side. Its boundary is what the device
side produces and the server side reads. The cut is legal when

1. no node with bodies is cut through: a node is one position, and what its bodies capture counts
   as its operands;
2. no two nodes that share a state are on different sides;
3. no branch is pending: one produced value crosses, or up to `max_tensors` at a frontier;
4. everything that crosses can be framed.

With `recompute`, values that the server side can compute again from what crosses do not count as
crossing.

Free nodes (without a runtime input, neither random nor stateful) and dead ones are on no side. The
former are cloned to every segment that reads them, the latter are removed. Everything in this
module is linear in the size of the graph, but for a logarithm in the search for forks and joins.
"""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from math import inf

from irsplit.base.errors import CutError, short
from irsplit.ir import Graph, Node, Value, uses_with_captures, without_collector
from irsplit.passes.analysis.boundaries import Boundary, boundaries
from irsplit.passes.analysis.cut import Cut, CutKind
from irsplit.passes.analysis.orders import orders
from irsplit.passes.analysis.recompute import Recompute, size_bytes
from irsplit.passes.analysis.schedule import Schedule, schedule


@without_collector()
def find_cuts(
    graph: Graph | Schedule,
    max_tensors: int = 1,
    macs: Callable[[Node], int] | None = None,
    recompute: Recompute | None = None,
) -> list[Cut]:
    """List every position between two runtime nodes, in execution order, legal or not.

    Args:
        graph: The graph to cut, or its schedule.
        max_tensors: How many produced values may cross at a legal cut. With more than one, the
            legal cuts of other orders are listed too where they are better than all before them:
            no cut with as few weights on the device side has as few bytes.
        macs: Counts the multiply-accumulates of a node, for `Cut.macs_share`.
        recompute: What the server side may compute again instead of receiving it. A position that
            is legal without it is legal with it.

    Returns:
        The cuts by ascending position.

    Example:
        >>> from irsplit.ir import parse_model
        >>> model = parse_model('''graph @main(%x: f32[4]) -> (%y) {
        ...   %a = test.op(%x) : f32[4]
        ...   %y = test.op(%a) : f32[4]
        ... }''')
        >>> [(cut.id, cut.kind, cut.size_bytes()) for cut in find_cuts(model.entry)]
        [('1', 'strict', 16)]
    """
    plan = graph if isinstance(graph, Schedule) else schedule(graph)
    cuts = _cuts_of(plan, max_tensors, macs, recompute)
    if max_tensors == 1:
        return cuts

    others: list[Cut] = []
    for order in orders(plan):
        others += [cut for cut in _cuts_of(order, max_tensors, macs, recompute) if cut.legal]
    return sorted([*cuts, *_better_ones(cuts, others)], key=lambda cut: cut.position)


def legal_cuts(
    graph: Graph | Schedule, max_tensors: int = 1, recompute: Recompute | None = None
) -> list[Cut]:
    """List the legal cuts alone; the arguments are those of `find_cuts`."""
    return [cut for cut in find_cuts(graph, max_tensors, recompute=recompute) if cut.legal]


def select_cut(cuts: Sequence[Cut], name: str) -> Cut:
    """Return the cut that a user means by `name`.

    Args:
        cuts: The positions to choose from, as `find_cuts` lists them.
        name: The id of a cut, or the names of the tensors that cross with + between them, each
            with or without its %.

    Raises:
        CutError: The name is unknown, or the cut is not legal; then the error has the reason.
    """
    tensors = "+".join(part.removeprefix("%") for part in name.split("+"))
    matches = _named(cuts, name) or _named(cuts, tensors)
    if not matches:
        raise CutError(_no_cut(cuts, name, tensors))

    # A tensor can be the only one to cross at several positions: the nodes between may read graph
    # inputs alone.
    cut = next((cut for cut in matches if cut.legal), matches[0])
    if not cut.legal:
        raise CutError(f"cut '{short(name)}' is not legal: {cut.reason}")
    return cut


def _named(cuts: Sequence[Cut], name: str) -> list[Cut]:
    """Return the cuts with this id, or with these tensors, or behind the node that makes them."""
    by_id = [cut for cut in cuts if cut.id == name]
    if by_id:
        return by_id

    by_tensors = [cut for cut in cuts if _tensor_names(cut) == name]
    if by_tensors:
        return by_tensors

    # A tensor that never crosses alone: the position behind its node has the reason.
    return [cut for cut in cuts if any(value and value.name == name for value in cut.after.outputs)]


def _no_cut(cuts: Sequence[Cut], name: str, tensors: str) -> str:
    """Word that there is no such cut, and which there are.

    Args:
        cuts: The positions to choose from.
        name: What the user asked for.
        tensors: The same as names of tensors, without %, of which a similar one is suggested.
    """
    legal = [cut for cut in cuts if cut.legal]
    ids = ", ".join(cut.id for cut in legal) or "none"
    similar = get_close_matches(tensors, [_tensor_names(cut) for cut in legal])
    hint = f"did you mean {short(similar[0])}? " if similar else ""
    return f"there is no cut '{short(name)}'; {hint}legal cuts by id: {ids} (see 'irsplit cuts')"


def _tensor_names(cut: Cut) -> str:
    return "+".join(value.name for value in cut.tensors)


def _better_ones(cuts: Sequence[Cut], others: Sequence[Cut]) -> list[Cut]:
    """Return those of `others` with fewer bytes than all cuts before them.

    A cut is before another one when it has fewer weights, or as many and no more nodes.
    """
    listed = set(cuts)
    candidates = [*(cut for cut in cuts if cut.legal), *others]
    fewest: float = inf
    better: list[Cut] = []
    for cut in sorted(candidates, key=lambda cut: (cut.weight_bytes, cut.position)):
        size = sum(map(size_bytes, cut.boundary))
        if size >= fewest:
            continue

        fewest = size
        if cut not in listed:
            better.append(cut)
    return better


def _cuts_of(
    plan: Schedule,
    max_tensors: int,
    macs: Callable[[Node], int] | None,
    recompute: Recompute | None,
) -> list[Cut]:
    """List the positions of one order.

    Args:
        plan: The schedule in that order.
        max_tensors: See `find_cuts`, as for the others.
        macs: Counts the multiply-accumulates of a node; None leaves their shares out.
        recompute: What the server side may compute again.
    """
    weights = _weights_before(plan)
    shares = _macs_shares(plan, macs)
    cuts: list[Cut] = []
    for position, boundary in enumerate(boundaries(plan, max_tensors, recompute), 1):
        cuts.append(
            Cut(
                order=plan,
                position=position,
                after=plan.nodes[position - 1],
                kind=_kind_of(boundary),
                explain=boundary.explain,
                tensors=boundary.sent,
                crossing=boundary.crossing,
                shapes=boundary.shapes,
                rematerialised=boundary.recomputed,
                forwards=boundary.forwards,
                early_outputs=boundary.early,
                weight_bytes=weights[position],
                macs_share=None if shares is None else shares[position],
            )
        )
    return cuts


def _kind_of(boundary: Boundary) -> CutKind | None:
    if boundary.explain is not None:
        return None
    if boundary.crossing > 1:
        return "frontier"
    return "open" if boundary.forwards or boundary.early else "strict"


def _weights_before(plan: Schedule) -> list[int]:
    """Return, for every i, the bytes of the distinct constants that the first i nodes read.

    Constants that are read through free nodes, and those inside bodies and callees, count too.
    """
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
    """Yield the constants that bodies and called graphs declare, to any depth.

    Args:
        node: A node with bodies or callees.
        seen: The graphs that were walked before, which are left out; updated.
    """
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
    """Yield the sizes of the constants behind free values.

    Args:
        values: Constants and results of free nodes.
        seen: The values and spans of files that were counted before, which are left out; updated.
    """
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
    """Return, for every i, the share of the multiply-accumulates of the first i nodes.

    It is None without a way to count them, and where there are none.
    """
    if macs is None:
        return None

    totals = [0]
    for node in plan.nodes:
        totals.append(totals[-1] + macs(node))
    if not totals[-1]:
        return None
    return [total / totals[-1] for total in totals]
