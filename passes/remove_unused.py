"""remove-unused: nodes whose results nobody reads are removed from every segment."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Graph, Model, Node, Value, uses_with_captures, walk
from irsplit.passes.base import Context


@dataclass(frozen=True)
class RemoveUnused:
    """Drop nodes that no output, no send and no state depends on.

    Bodies and called graphs stay whole.
    """

    name: ClassVar[str] = "remove-unused"

    def run(self, model: Model, context: Context) -> bool:
        """Clean every segment, or the entry graph of a model that is not partitioned."""
        changed = False
        for graph in model.segments or [model.entry]:
            changed = _remove_unused(graph) or changed
        return changed


def _remove_unused(graph: Graph) -> bool:
    """Remove the unused nodes of one graph; whether there were any.

    The walk is backwards: when it comes to a node, it has seen all nodes that read its results.
    """
    needed: set[Value | None] = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        # Both ends of a boundary stay: two segments agreed on what travels.
        is_boundary = node.op in ("irsplit.send", "irsplit.recv")
        if is_boundary or node.states or not needed.isdisjoint(node.outputs):
            needed.update(uses_with_captures(node))
            kept.append(node)
        else:
            _detach(node)

    changed = len(kept) != len(graph.nodes)
    graph.nodes = kept[::-1]
    return changed


def _detach(node: Node) -> None:
    """Let the node, and what is inside its bodies, read nothing any more.

    Values know their uses, and a removed node must not be one of them.
    """
    node.set_inputs(())
    for body in node.graphs:
        for inner in walk(body):
            inner.set_inputs(())
