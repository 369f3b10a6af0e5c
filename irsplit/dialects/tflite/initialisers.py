"""Initialisers of resource variables: each segment gets those of the variables that it touches, and no others."""

from irsplit.dialects.tflite.states import CALL_ONCE, Resources
from irsplit.ir import Graph, Node, Value


def has_initialisers(graph: Graph) -> bool:
    """Whether the graph still has all CALL_ONCE nodes of the graph that it comes from."""
    source: list[Node] = [] if graph.native is None else graph.native.initialisers
    return {node.native for node in source} <= {node.native for node in graph.nodes}


def with_initialisers(graph: Graph) -> Graph:
    """The graph with its share of the CALL_ONCE nodes of the graph that it comes from, before all other nodes.

    Passes see no user of a node without results, so they are free to drop it; what it does is restored here.
    """
    source: list[Node] = [] if graph.native is None else graph.native.initialisers
    if not source:
        return graph
    nodes = [node for node in graph.nodes if node.op != CALL_ONCE]
    resources = Resources([graph, *(callee for node in source for callee in node.callees)])
    touched = {name for node in nodes for name in resources.touched_by(node)}
    calls: list[Node] = []
    for node in source:
        callees = [_share(callee, touched, resources) for callee in node.callees]
        if any(callee.nodes for callee in callees):
            calls.append(Node(node.op, (), (), name=node.name, callees=callees, native=node.native))
    return Graph(
        graph.name,
        graph.inputs,
        graph.outputs,
        [*calls, *nodes],
        graph.constants,
        graph.placement,
        graph.native,
    )


def _share(graph: Graph, touched: set[str], resources: Resources) -> Graph:
    """The part of an initialiser that writes resources in `touched`, and what that part reads.

    Kept whole when it does more than compute and assign: what it calls or what a custom operator does is not known.
    """
    if any(node.callees or node.op.startswith("tflite.custom.") for node in graph.nodes):
        return (
            graph
            if touched.intersection(resources.touched_in(graph))
            else Graph(graph.name, native=graph.native)
        )
    wanted = set(touched)
    kept: list[Node] = []
    while True:
        effects = [node for node in graph.nodes if wanted.intersection(resources.writes(node))]
        kept = _backward_slice(graph, effects)
        read = {name for node in kept for name in resources.touched_by(node)}
        if read <= wanted:
            break
        wanted |= read
    if len(kept) == len(graph.nodes):
        return graph
    return Graph(
        graph.name, graph.inputs, graph.outputs, kept, graph.constants, native=graph.native
    )


def _backward_slice(graph: Graph, effects: list[Node]) -> list[Node]:
    """The nodes of `effects` and all that they depend on, in the order of the graph."""
    wanted = set(effects)
    pending = list(effects)
    while pending:
        operands: list[Value] = [value for value in pending.pop().inputs if value is not None]
        fresh = {value.producer for value in operands if value.producer is not None} - wanted
        wanted |= fresh
        pending.extend(fresh)
    return [node for node in graph.nodes if node in wanted]
