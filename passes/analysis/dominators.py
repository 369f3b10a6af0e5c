"""Dominator tree of a directed acyclic graph, grown in topological order."""

from collections.abc import Sequence


class DominatorTree:
    """Immediate dominators, and the nearest common dominator of two vertices in logarithmic time.

    Vertices are attached in topological order, each with its predecessors; None stands for the virtual root above all
    of them. Ancestors are found with skew-binary jump pointers (Myers, "An applicative random-access stack", 1983):
    constant work to add a vertex, O(log n) to climb.
    """

    def __init__(self, count: int) -> None:
        self._root = count
        self._parent = [count] * (count + 1)
        self._jump = [count] * (count + 1)
        self._depth = [0] * (count + 1)

    def attach(self, vertex: int, predecessors: Sequence[int]) -> None:
        """Add `vertex` below the nearest common dominator of its predecessors, or below the root without any."""
        parent = predecessors[0] if predecessors else self._root
        for other in predecessors[1:]:
            parent = self._meet(parent, other)
        self._parent[vertex] = parent
        self._depth[vertex] = self._depth[parent] + 1
        jump = self._jump[parent]
        even = (
            self._depth[parent] - self._depth[jump]
            == self._depth[jump] - self._depth[self._jump[jump]]
        )
        self._jump[vertex] = self._jump[jump] if even else parent

    def meet(self, a: int, b: int) -> int | None:
        """The nearest vertex that dominates both (a vertex dominates itself); None when only the root does."""
        vertex = self._meet(a, b)
        return None if vertex == self._root else vertex

    def _meet(self, a: int, b: int) -> int:
        if self._depth[a] < self._depth[b]:
            a, b = b, a
        while self._depth[a] > self._depth[b]:
            a = self._jump[a] if self._depth[self._jump[a]] >= self._depth[b] else self._parent[a]
        while a != b:
            if self._jump[a] == self._jump[b]:
                a, b = self._parent[a], self._parent[b]
            else:
                a, b = self._jump[a], self._jump[b]
        return a
