"""Initialisers of resource variables: each segment gets those of the variables that it touches."""

from irsplit.dialects.tflite.states import CALL_ONCE, Resources
from irsplit.ir import Graph, Node, Value


def has_initialisers(graph: Graph) -> bool:
    """Whether the graph still has all CALL_ONCE nodes of the graph that it comes from."""
    source: list[Node] = [] if graph.native is None else graph.native.initialisers
    return {node.native for node in source} <= {node.native for node in graph.nodes}


def with_initialisers(graph: Graph) -> Graph:
    """Put the initialisers of a graph's variables before its nodes.

    A CALL_ONCE node has no results, so passes see no user of it and are free to drop it. This
    restores what such nodes do, as far as the graph needs it.

    Args:
        graph: A graph that comes from a subgraph of a file; it is not changed.

    Returns:
        A new graph with its share of the CALL_ONCE nodes of that subgraph, or the graph itself if
        the subgraph has none.
    """
    source: list[Node] = [] if graph.native is None else graph.native.initialisers
    if not source:
        return graph

    initialisers: list[Graph] = []
    for node in source:
        initialisers.extend(node.callees)
    nodes = [node for node in graph.nodes if node.op != CALL_ONCE]
    resources = Resources([graph, *initialisers])
    touched: set[str] = set()
    for node in nodes:
        touched.update(resources.touched_by(node))

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
    """The nodes of an initialiser that write the resources in `touched`, with all that they need.

    These nodes may read other resources, which must then be written first; so the set grows until
    it has all that is read. An initialiser is kept whole if it calls others or has custom
    operators, because what those do is not known.
    """
    if any(node.callees or node.op.startswith("tflite.custom.") for node in graph.nodes):
        is_needed = touched.intersection(resources.touched_in(graph))
        return graph if is_needed else Graph(graph.name, native=graph.native)

    needed = set(touched)
    kept: list[Node] = []
    while True:
        effects = [node for node in graph.nodes if needed.intersection(resources.writes(node))]
        kept = _backward_slice(graph, effects)
        read: set[str] = set()
        for node in kept:
            read.update(resources.touched_by(node))
        if read <= needed:
            break
        needed |= read

    if len(kept) == len(graph.nodes):
        return graph
    return Graph(
        graph.name, graph.inputs, graph.outputs, kept, graph.constants, native=graph.native
    )


def _backward_slice(graph: Graph, effects: list[Node]) -> list[Node]:
    """The nodes of `effects` and all that they depend on, in the order of the graph."""
    needed = set(effects)
    pending = list(effects)
    while pending:
        operands: list[Value] = [value for value in pending.pop().inputs if value is not None]
        producers = {value.producer for value in operands if value.producer is not None}
        fresh = producers - needed
        needed |= fresh
        pending.extend(fresh)
    return [node for node in graph.nodes if node in needed]
