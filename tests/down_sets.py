"""A cut by definition and brute force: sets closed under predecessors, path and dominator."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from irsplit.ir import Graph, Node, TensorType, Value


def reads_of(node: Node) -> set[Value]:
    """What the node, or anything in its bodies, reads from outside of the node."""
    inside: set[Value] = set()
    read: set[Value] = {value for value in node.inputs if value is not None}
    bodies = list(node.graphs)
    for body in bodies:
        inside.update((*body.inputs, *body.constants))
        read.update(body.outputs)
        for inner in body.nodes:
            inside.update(value for value in inner.outputs if value is not None)
            read.update(value for value in inner.inputs if value is not None)
            bodies.extend(inner.graphs)
    return read - inside


Vertex = Node | Value
"""A node, or a fed input."""


@dataclass(frozen=True)
class Sides:
    """One down-set: the near nodes, and what the definition says about it."""

    near: frozenset[Node]
    crossing: frozenset[Value]
    forwards: frozenset[Value]
    early: frozenset[Value]
    splits_state: bool

    @property
    def frames(self) -> bool:
        """Whether everything that crosses can be framed."""
        for value in self.crossing | self.forwards:
            type = value.type
            if not isinstance(type, TensorType) or type.dtype.storage is None:
                return False
            if type.shape is None or len(type.shape) > 8:
                return False
        return True

    def legal(self, max_tensors: int) -> bool:
        return not self.splits_state and 1 <= len(self.crossing) <= max_tensors and self.frames


class Brute:
    """The runtime graph by definition: live nodes that read an input, are random or stateful."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fed = [value for value in graph.inputs if value.constant is None]
        runtime: set[Value] = set(self.fed)
        candidates: list[Node] = []
        for node in graph.nodes:
            if reads_of(node) & runtime or node.random or node.states:
                candidates.append(node)
                runtime.update(value for value in node.outputs if value is not None)
        live: set[Node] = set()
        wanted = set(graph.outputs)
        for node in reversed(candidates):
            if node.states or wanted.intersection(node.outputs):
                live.add(node)
                wanted |= reads_of(node)
        self.nodes = [node for node in candidates if node in live]
        self.reads = {node: reads_of(node) & runtime for node in self.nodes}
        self.outputs = set(graph.outputs) & runtime

    def sides(self, near: frozenset[Node]) -> Sides:
        far = [node for node in self.nodes if node not in near]
        produced = {value for node in near for value in node.outputs if value is not None}
        read = {value for node in far for value in self.reads[node]}
        states = {state for node in near for state in node.states}
        return Sides(
            near,
            frozenset(produced & read),
            frozenset(read.intersection(self.fed)),
            frozenset((produced | set(self.fed)) & self.outputs),
            any(state in states for node in far for state in node.states),
        )

    def waits_for(self, node: Node) -> set[Node]:
        return {value.producer for value in self.reads[node] if value.producer is not None}

    @cached_property
    def down_sets(self) -> list[Sides]:
        """Every proper one, closed under predecessors."""
        sets: list[frozenset[Node]] = [frozenset()]
        for node in self.nodes:
            sets += [near | {node} for near in sets if self.waits_for(node) <= near]
        return [self.sides(near) for near in sets if 0 < len(near) < len(self.nodes)]

    def paths(self, start: Value) -> Iterator[list[Value]]:
        """Every path from `start` to an output, as the values along it."""
        if start in self.outputs:
            yield [start]
        for node in self.nodes:
            if start in self.reads[node]:
                for value in node.outputs:
                    if value is not None:
                        yield from ([start, *rest] for rest in self.paths(value))

    @cached_property
    def all_paths(self) -> list[set[Value]]:
        return [set(path) for value in self.fed for path in self.paths(value)]

    @cached_property
    def edges(self) -> dict[Vertex, list[Node]]:
        vertices: dict[Vertex, set[Value]] = {value: {value} for value in self.fed}
        vertices.update(
            (node, {value for value in node.outputs if value is not None}) for node in self.nodes
        )
        return {
            vertex: [node for node in self.nodes if self.reads[node] & produced]
            for vertex, produced in vertices.items()
        }

    def reached(self, starts: Iterable[Vertex], without: Vertex | None) -> set[Vertex]:
        found: set[Vertex] = set()
        pending = [vertex for vertex in starts if vertex is not without]
        while pending:
            vertex = pending.pop()
            if vertex not in found:
                found.add(vertex)
                pending.extend(node for node in self.edges[vertex] if node is not without)
        return found

    def ends(self, vertex: Vertex) -> bool:
        return bool(self.outputs & ({vertex} if isinstance(vertex, Value) else set(vertex.outputs)))

    def reaches_an_output(self, vertex: Vertex, without: Vertex | None = None) -> bool:
        return any(self.ends(found) for found in self.reached([vertex], without))

    @cached_property
    def dominators(self) -> dict[Vertex, set[Vertex]]:
        """For each vertex, those without which no input leads to it; else only itself."""
        fed = self.reached(self.fed, None)
        lost = {vertex: fed - self.reached(self.fed, vertex) for vertex in self.edges}
        return {
            vertex: {vertex, *(other for other in self.edges if vertex in lost[other])}
            for vertex in self.edges
        }

    @cached_property
    def postdominators(self) -> dict[Vertex, set[Vertex]]:
        """For each vertex, those without which it leads to no output; else only itself."""
        return {
            vertex: {other for other in self.edges if not self.reaches_an_output(vertex, other)}
            if self.reaches_an_output(vertex)
            else {vertex}
            for vertex in self.edges
        }

    def nearest(
        self, dominators: dict[Vertex, set[Vertex]], left: Vertex, right: Vertex
    ) -> Vertex | None:
        """The common dominator of both that all the others dominate."""
        common = dominators[left] & dominators[right]
        return max(common, key=lambda vertex: len(dominators[vertex]), default=None)

    def text(self, vertex: Vertex) -> str:
        return f"input {vertex}" if isinstance(vertex, Value) else str(vertex)

    @cached_property
    def by_text(self) -> dict[str, Vertex]:
        return {self.text(vertex): vertex for vertex in self.edges}
