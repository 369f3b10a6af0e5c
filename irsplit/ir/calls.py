"""Graphs of a model that call each other by name: which comes first, and how to keep their names apart."""

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from irsplit.base.errors import ModelError
from irsplit.ir.core import Graph, walk


def callees_first(graphs: Sequence[Graph], where: str) -> list[Graph]:
    """The graphs and what they call, each behind those that it calls.

    Raises ModelError, which begins with `where`, when a graph calls itself, directly or through others.
    """
    called = {
        graph: dict.fromkeys(callee for node in walk(graph) for callee in node.callees)
        for graph in graphs
    }
    try:
        return list(TopologicalSorter(called).static_order())
    except CycleError as error:
        ring = " <- ".join(f"'{graph.name}'" for graph in error.args[1])
        raise ModelError(
            f"{where}: a graph calls itself: {ring}; no engine runs that, break the ring"
        ) from error


def name_apart(graphs: Iterable[Graph]) -> None:
    """Give a graph whose name an earlier one has another name, with .2, .3 behind."""
    taken: set[str] = set()
    for graph in graphs:
        name, number = graph.name, 1
        while graph.name in taken:
            number += 1
            graph.name = f"{name}.{number}"
        taken.add(graph.name)
