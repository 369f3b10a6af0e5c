"""prune-buffers: each segment keeps exactly the constants and called graphs that it uses."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Graph, Model, Value, uses_with_captures, walk
from irsplit.passes.base import Context


@dataclass(frozen=True)
class PruneBuffers:
    """Drop constants, inputs with a default, and called graphs that nothing reads.

    Operator codes, opset imports, functions and metadata follow from this: a writer emits those of
    the graphs that it is given.
    """

    name: ClassVar[str] = "prune-buffers"

    def run(self, model: Model, context: Context) -> bool:
        """Prune every segment, or the entry graph of a model that is not partitioned."""
        roots = model.segments or [model.entry]
        changed = False
        for graph in roots:
            changed = _prune_constants(graph) or changed

        reachable = _called(roots).union(roots)
        graphs = [graph for graph in model.graphs if graph in reachable]
        changed = changed or len(graphs) != len(model.graphs)
        model.graphs = graphs
        return changed


def _prune_constants(graph: Graph) -> bool:
    """Drop the constants and defaults that no node and no output uses."""
    used: set[Value] = set(graph.outputs)
    for node in graph.nodes:
        used.update(uses_with_captures(node))

    # A constant of an input is its default. An input without one stays: callers give it.
    unused = set(graph.constants)
    unused.update(value for value in graph.inputs if value.constant is not None)
    unused -= used
    if not unused:
        return False

    graph.constants = [value for value in graph.constants if value not in unused]
    graph.inputs = [value for value in graph.inputs if value not in unused]
    return True


def _called(roots: list[Graph]) -> set[Graph]:
    """Return the graphs that the roots call, and those that these call."""
    called: set[Graph] = set()
    pending = list(roots)
    while pending:
        for node in walk(pending.pop()):
            for graph in node.callees:
                if graph in called:
                    continue

                called.add(graph)
                pending.append(graph)
    return called
