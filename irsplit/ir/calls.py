"""Graphs of a model that call each other by name: which comes first, and how to keep their names apart."""

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from irsplit.base.errors import ModelError, short
from irsplit.ir.core import Graph, Node, walk

DEEPEST_CALLS = 1000
"""Graphs that call graphs that call graphs; no exporter makes a tenth of it, and engines overflow their stacks."""


def callees_first(graphs: Sequence[Graph], where: str) -> list[Graph]:
    """The graphs and what they call, each behind those that it calls.

    Raises ModelError, which begins with `where`, when a graph calls itself, directly or through others, or when calls
    are nested too deep.
    """
    called = {
        graph: dict.fromkeys(callee for node in walk(graph) for callee in node.callees)
        for graph in graphs
    }
    try:
        order = list(TopologicalSorter(called).static_order())
    except CycleError as error:
        ring = " <- ".join(f"'{short(graph.name)}'" for graph in error.args[1])
        raise ModelError(
            f"{where}: a graph calls itself: {short(ring, 400)}; no engine runs that, break the ring"
        ) from error
    depth: dict[Graph, int] = {}
    for graph in order:
        depth[graph] = 1 + max((depth[callee] for callee in called.get(graph, ())), default=0)
        if depth[graph] > DEEPEST_CALLS:
            raise ModelError(
                f"{where}: graphs call each other more than {DEEPEST_CALLS} deep, up to '{short(graph.name)}'; no "
                "engine runs that, put the inner ones inline"
            )
    return order


def graphs_inside(node: Node) -> list[Graph]:
    """What the node owns and calls, and what the nodes in there do, however deep: the innermost first, each once."""
    order: list[Graph] = []
    seen: set[Graph] = set()
    pending = [(graph, False) for graph in (*node.graphs, *node.callees)]
    while pending:
        graph, is_done = pending.pop()
        if is_done:
            order.append(graph)
        elif graph not in seen:
            seen.add(graph)
            pending.append((graph, True))
            pending += [
                (each, False) for inner in graph.nodes for each in (*inner.graphs, *inner.callees)
            ]
    return order


def name_apart(graphs: Iterable[Graph]) -> None:
    """Give a graph whose name an earlier one has another name, with .2, .3 behind."""
    taken: set[str] = set()
    for graph in graphs:
        name, number = graph.name, 1
        while graph.name in taken:
            number += 1
            graph.name = f"{name}.{number}"
        taken.add(graph.name)
