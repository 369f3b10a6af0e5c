"""Graphs that call each other by name: their order, and how to keep their names unique."""

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from irsplit.base.errors import ModelError, short
from irsplit.ir.core import Graph, Node, walk

DEEPEST_CALLS = 1000
"""The longest chain of calls; exporters stay below 100, and engines overflow their stacks."""


def callees_first(graphs: Sequence[Graph], where: str) -> list[Graph]:
    """Sort graphs and all that they call so that callees come before their callers.

    Args:
        graphs: The graphs to start from.
        where: What error messages begin with, usually the model's file.

    Returns:
        The given graphs and those that they call, each once.

    Raises:
        ModelError: A graph calls itself, directly or through others, or calls are nested too deep.
    """
    called: dict[Graph, dict[Graph, None]] = {}
    for graph in graphs:
        callees = called.setdefault(graph, {})
        for node in walk(graph):
            callees.update(dict.fromkeys(node.callees))

    try:
        order = list(TopologicalSorter(called).static_order())
    except CycleError as error:
        ring = " <- ".join(f"'{short(graph.name)}'" for graph in error.args[1])
        raise ModelError(
            f"a graph calls itself: {short(ring, 400)}",
            where=where,
            remedy="no engine runs that, break the ring",
        ) from error

    _check_depth(order, called, where)
    return order


def _check_depth(
    order: Iterable[Graph], called: dict[Graph, dict[Graph, None]], where: str
) -> None:
    depth: dict[Graph, int] = {}
    for graph in order:
        depth[graph] = 1 + max((depth[callee] for callee in called.get(graph, ())), default=0)
        if depth[graph] > DEEPEST_CALLS:
            raise ModelError(
                f"graphs call each other more than {DEEPEST_CALLS} deep, "
                f"up to '{short(graph.name)}'",
                where=where,
                remedy="no engine runs that, put the inner ones inline",
            )


def graphs_inside(node: Node) -> list[Graph]:
    """All graphs that a node owns or calls, directly or through the nodes in them.

    The walk keeps a stack of its own, because calls may be nested deeper than Python's recursion
    limit. A graph is on it twice: to push what it contains, and, below that, to be listed.

    Args:
        node: Any node.

    Returns:
        Each graph once, the innermost first.
    """
    order: list[Graph] = []
    seen: set[Graph] = set()
    pending = [(graph, False) for graph in (*node.graphs, *node.callees)]
    while pending:
        graph, is_done = pending.pop()
        if is_done:
            order.append(graph)
            continue
        if graph in seen:
            continue

        seen.add(graph)
        pending.append((graph, True))
        for inner in graph.nodes:
            pending.extend((contained, False) for contained in (*inner.graphs, *inner.callees))
    return order


def name_apart(graphs: Iterable[Graph]) -> None:
    """Rename graphs so that all names differ: later ones of one name get a suffix .2, .3, ..."""
    taken: set[str] = set()
    for graph in graphs:
        name, number = graph.name, 1
        while graph.name in taken:
            number += 1
            graph.name = f"{name}.{number}"
        taken.add(graph.name)
