"""remove-unused: nodes whose results nobody reads, in every segment."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Graph, Model, operands
from irsplit.passes.base import Context


@dataclass(frozen=True)
class RemoveUnused:
    """Drop nodes that no output, no send and no state depends on; bodies and called graphs stay whole."""

    name: ClassVar[str] = "remove-unused"

    def run(self, model: Model, context: Context) -> bool:
        changed = [_remove_unused(graph) for graph in model.segments or [model.entry]]
        return any(changed)


def _remove_unused(graph: Graph) -> bool:
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.op == "irsplit.send" or node.states or any(value in needed for value in node.outputs):
            needed.update(operands(node))
            kept.append(node)
        else:
            node.set_inputs(())
    changed = len(kept) != len(graph.nodes)
    graph.nodes = kept[::-1]
    return changed
