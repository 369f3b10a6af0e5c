"""From a segment to the graph that an engine runs: the last step before a dialect's writer."""

from irsplit.ir.core import Graph, Node, Value, uses_with_captures

_OF_THE_RUNTIME = ("irsplit.send", "irsplit.recv", "irsplit.load", "irsplit.store")


def engine_graph(segment: Graph) -> Graph:
    """The graph of a segment without the nodes that the runtime executes.

    Received and loaded values become inputs, sent and stored values become outputs. Loaded and
    stored values come last, in the order of `states`. A value that the segment only passes on (no
    node of it reads or produces the value) is left out: the runtime carries it past the engine.

    Args:
        segment: A segment, which is not changed.

    Returns:
        A new graph, which shares nodes and values with the segment.
    """
    nodes = [node for node in segment.nodes if not is_of_the_runtime(node)]
    pairs = states(segment)

    read: set[Value] = set()
    produced = set(segment.constants)
    for node in nodes:
        read.update(uses_with_captures(node))
        produced.update(value for value in node.outputs if value is not None)

    received = [*_values(segment, "irsplit.recv"), *(loaded for loaded, _ in pairs)]
    inputs = [value for value in (*segment.inputs, *received) if value in read]

    sent, stored = _values(segment, "irsplit.send"), [stored for _, stored in pairs]
    candidates = dict.fromkeys((*sent, *segment.outputs, *stored))
    outputs = [value for value in candidates if value in produced]
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
    """Whether the runtime executes the node instead of an engine: send, recv, load, store.

    The prefix `irsplit.` alone does not tell, because it is also a domain of operators.
    """
    return node.op in _OF_THE_RUNTIME


def states(graph: Graph) -> list[tuple[Value, Value]]:
    """The states of a graph: for each, the value that it loads and the one that it stores."""
    stored = {node.states: node.inputs[0] for node in graph.nodes if node.op == "irsplit.store"}

    pairs: list[tuple[Value, Value]] = []
    for node in graph.nodes:
        if node.op != "irsplit.load":
            continue
        before, after = node.outputs[0], stored.get(node.states)
        if before is not None and after is not None:
            pairs.append((before, after))
    return pairs


def _values(segment: Graph, op: str) -> list[Value]:
    """The operands and results of all nodes of one kind."""
    values: list[Value] = []
    for node in segment.nodes:
        if node.op == op:
            values.extend(filter(None, (*node.inputs, *node.outputs)))
    return values
