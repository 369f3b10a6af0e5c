"""From a segment to the graph that an engine runs: the last step before a dialect's writer."""

from irsplit.ir.core import Graph, Node, Value, uses_with_captures

_OF_THE_RUNTIME = ("irsplit.send", "irsplit.recv", "irsplit.load", "irsplit.store")


def engine_graph(segment: Graph) -> Graph:
    """The segment without nodes of the runtime: received and loaded values become inputs, sent and stored ones outputs.

    Loaded and stored values come last, in the order of `states`. A value that is only passed on (received or fed, then
    sent or returned without a node of the segment reading or producing it) is left out: the runtime carries it past
    the engine. The graph shares nodes and values with the segment, which stays as it is.
    """
    nodes = [node for node in segment.nodes if not is_of_the_runtime(node)]
    pairs = states(segment)
    received = [*_values(segment, "irsplit.recv"), *(loaded for loaded, _ in pairs)]
    sent, stored = _values(segment, "irsplit.send"), [stored for _, stored in pairs]
    read = {value for node in nodes for value in uses_with_captures(node)}
    produced = {value for node in nodes for value in node.outputs if value}.union(segment.constants)
    inputs = [value for value in (*segment.inputs, *received) if value in read]
    outputs = [
        value for value in dict.fromkeys((*sent, *segment.outputs, *stored)) if value in produced
    ]
    return Graph(
        segment.name,
        inputs,
        outputs,
        nodes,
        list(segment.constants),
        segment.placement,
        segment.native,
    )


def is_of_the_runtime(node: Node) -> bool:
    """Whether no engine sees the node: it sends, receives, loads or stores. `irsplit` is a domain of operators too."""
    return node.op in _OF_THE_RUNTIME


def states(graph: Graph) -> list[tuple[Value, Value]]:
    """What the graph loads and what it stores in its place, a pair for each state."""
    stored = {node.states: node.inputs[0] for node in graph.nodes if node.op == "irsplit.store"}
    loaded = [
        (node.outputs[0], stored.get(node.states))
        for node in graph.nodes
        if node.op == "irsplit.load"
    ]
    return [(before, after) for before, after in loaded if before is not None and after is not None]


def _values(segment: Graph, op: str) -> list[Value]:
    """Operands and results of the segment's nodes of this kind."""
    nodes = [node for node in segment.nodes if node.op == op]
    return [value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None]
