"""prune-buffers: each segment keeps exactly the constants and called graphs that it uses."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Graph, Model, uses_with_captures, walk
from irsplit.passes.base import Context


@dataclass(frozen=True)
class PruneBuffers:
    """Drop constants, defaulted inputs and called graphs that nothing reads.

    Operator codes, opset imports, functions and metadata follow: a writer emits those of the graphs it is given.
    """

    name: ClassVar[str] = "prune-buffers"

    def run(self, model: Model, context: Context) -> bool:
        roots = model.segments or [model.entry]
        changed = [_prune_constants(graph) for graph in roots]
        called = _called(roots)
        graphs = [graph for graph in model.graphs if graph in called or graph in roots]
        changed.append(len(graphs) != len(model.graphs))
        model.graphs = graphs
        return any(changed)


def _prune_constants(graph: Graph) -> bool:
    used = {value for node in graph.nodes for value in uses_with_captures(node)}.union(
        graph.outputs
    )
    constants = [value for value in graph.constants if value in used]
    inputs = [value for value in graph.inputs if value.constant is None or value in used]
    changed = len(constants) != len(graph.constants) or len(inputs) != len(graph.inputs)
    graph.constants, graph.inputs = constants, inputs
    return changed


def _called(roots: list[Graph]) -> set[Graph]:
    called: set[Graph] = set()
    pending = list(roots)
    while pending:
        for node in walk(pending.pop()):
            fresh = [graph for graph in node.callees if graph not in called]
            called.update(fresh)
            pending.extend(fresh)
    return called
