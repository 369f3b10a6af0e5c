"""Dominator tree of a directed acyclic graph, grown in topological order."""

from collections.abc import Sequence


class DominatorTree:
    """Immediate dominators, and the nearest common dominator of two vertices in logarithmic time.

    Vertices are attached in topological order, each with its predecessors. None stands for the
    virtual root above all of them. Ancestors are found with skew-binary jump pointers (Myers, "An
    applicative random-access stack", 1983): a vertex is added in constant work, and a climb takes
    O(log n).

    Args:
        count: How many vertices there are; they are numbered from 0.

    Example:
        >>> tree = DominatorTree(4)
        >>> tree.attach(0, ())
        >>> for vertex, predecessors in ((1, [0]), (2, [0]), (3, [1, 2])):
        ...     tree.attach(vertex, predecessors)
        >>> tree.meet(1, 2)
        0
    """

    def __init__(self, count: int) -> None:
        self._root = count
        self._parent = [count] * (count + 1)
        self._jump = [count] * (count + 1)
        self._depth = [0] * (count + 1)

    def attach(self, vertex: int, predecessors: Sequence[int]) -> None:
        """Add a vertex below the nearest common dominator of its predecessors.

        Args:
            vertex: The number of the vertex, which was not attached before.
            predecessors: Vertices that were; the vertex is put below the root without any.
        """
        parent = predecessors[0] if predecessors else self._root
        for other in predecessors[1:]:
            parent = self._meet(parent, other)

        self._parent[vertex] = parent
        self._depth[vertex] = self._depth[parent] + 1

        # Two jumps of one length merge into one, as two trees of a skew-binary number do.
        jump = self._jump[parent]
        first = self._depth[parent] - self._depth[jump]
        second = self._depth[jump] - self._depth[self._jump[jump]]
        self._jump[vertex] = self._jump[jump] if first == second else parent

    def meet(self, a: int, b: int) -> int | None:
        """Return the nearest vertex that dominates both; None when only the root does.

        A vertex dominates itself.
        """
        vertex = self._meet(a, b)
        return None if vertex == self._root else vertex

    def _meet(self, a: int, b: int) -> int:
        """Return the nearest common ancestor of two vertices, which may be the root."""
        if self._depth[a] < self._depth[b]:
            a, b = b, a

        # Climb to one depth; the jumps of two vertices of one depth are equally long.
        while self._depth[a] > self._depth[b]:
            jump = self._jump[a]
            a = jump if self._depth[jump] >= self._depth[b] else self._parent[a]

        while a != b:
            if self._jump[a] == self._jump[b]:
                a, b = self._parent[a], self._parent[b]
            else:
                a, b = self._jump[a], self._jump[b]
        return a
