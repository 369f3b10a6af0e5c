"""Topological order: exporters may leave nodes unsorted, the IR may not."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from irsplit.ir import Node, uses_with_captures


def in_order(nodes: list[Node], cycle: Callable[[Node], Exception]) -> list[Node]:
    """Sort the nodes of one graph topologically.

    Nodes stay as near to their given order as possible: of all nodes whose inputs are computed,
    the first one is always next (Kahn's algorithm with a heap). A sorted list is returned as it is.

    Args:
        nodes: The nodes in the order of the file.
        cycle: Makes the exception to raise, for a node that depends on its own result.
    """
    if _is_sorted(nodes):
        return nodes

    # For every node: which nodes read its results, and of how many nodes it waits for results.
    position = {node: index for index, node in enumerate(nodes)}
    readers: list[list[int]] = [[] for _ in nodes]
    missing: list[int] = []

    for index, node in enumerate(nodes):
        sources = {
            position[value.producer]
            for value in uses_with_captures(node)
            if value.producer in position
        }
        missing.append(len(sources))
        for source in sources:
            readers[source].append(index)

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
    """Whether no node reads the result of itself or of a later node."""
    later = set(nodes)
    for node in nodes:
        # Only nodes with bodies have captures; asking every node would cost a lot of time.
        operands = uses_with_captures(node) if node.graphs else node.inputs
        if any(value is not None and value.producer in later for value in operands):
            return False

        later.discard(node)

    return True
