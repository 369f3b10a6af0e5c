"""Topological order: exporters may leave nodes unsorted, the IR may not."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from irsplit.ir import Node, uses_with_captures


def in_order(nodes: list[Node], cycle: Callable[[Node], Exception]) -> list[Node]:
    """The nodes of one graph in topological order, as near to the given order as possible; unchanged when sorted.

    Raises what `cycle` makes of a node that lies on one.
    """
    if _is_sorted(nodes):
        return nodes
    position = {node: index for index, node in enumerate(nodes)}
    sources = [
        {
            position[value.producer]
            for value in uses_with_captures(node)
            if value.producer in position
        }
        for node in nodes
    ]
    readers: list[list[int]] = [[] for _ in nodes]
    for index, before in enumerate(sources):
        for source in before:
            readers[source].append(index)
    missing = [len(before) for before in sources]
    ready = [index for index, count in enumerate(missing) if not count]
    heapify(ready)
    ordered: list[Node] = []
    while ready:
        index = heappop(ready)
        ordered.append(nodes[index])
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, reader)
    if len(ordered) < len(nodes):
        raise cycle(next(node for node, count in zip(nodes, missing, strict=True) if count))
    return ordered


def _is_sorted(nodes: list[Node]) -> bool:
    """Whether no node reads what a node at or after its own place produces."""
    later = set(nodes)
    for node in nodes:
        read = uses_with_captures(node) if node.graphs else node.inputs
        if any(value is not None and value.producer in later for value in read):
            return False
        later.discard(node)
    return True
