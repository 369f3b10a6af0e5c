"""Find which outputs of a model depend on some of its tensors.

The other outputs are the same with any boundary, and tell nothing about it.
"""

from collections.abc import Collection, Sequence

from irsplit.ir import Graph, Node, uses_with_captures


def reached_outputs(graphs: Sequence[Graph], arriving: Sequence[Collection[str]]) -> set[str]:
    """Find the outputs that depend on tensors that arrive changed.

    State carries a change from the nodes that write it to those that read it, also from one call
    to the next. So calls are followed until no further state changes.

    Args:
        graphs: Graphs that run one after the other and know values by their names, as segments do.
        arriving: For each graph, names of the tensors that change on their way to it.

    Returns:
        Names of the outputs.
    """
    states: set[str] = set()
    while True:
        before = len(states)
        outputs = _one_call(graphs, arriving, states)
        if len(states) == before:
            return outputs


def _one_call(
    graphs: Sequence[Graph], arriving: Sequence[Collection[str]], states: set[str]
) -> set[str]:
    """The outputs that change in one call; adds to `states` those that it changes."""
    changed: set[str] = set()
    outputs: set[str] = set()
    for graph, names in zip(graphs, arriving, strict=True):
        changed.update(names)
        for node in graph.nodes:
            if _depends(node, changed, states):
                changed.update(value.name for value in node.outputs if value is not None)
                states.update(node.states)
        outputs.update(value.name for value in graph.outputs if value.name in changed)
    return outputs


def _depends(node: Node, changed: set[str], states: set[str]) -> bool:
    """Whether a node reads a changed value or state."""
    if not states.isdisjoint(node.states):
        return True
    return any(value.name in changed for value in uses_with_captures(node))
