"""From a segment to the graph that an engine runs: the last step before a dialect's writer."""

from irsplit.ir.core import Graph, operands


def engine_graph(segment: Graph) -> Graph:
    """The segment without its irsplit.* nodes: received values become inputs, sent values become outputs.

    A value that is only passed on (received or fed, then sent or returned without a node of the segment reading or
    producing it) is left out: the runtime carries it past the engine. The graph shares nodes and values with the
    segment, which stays as it is.
    """
    nodes = [node for node in segment.nodes if not node.op.startswith("irsplit.")]
    received = [value for node in segment.nodes if node.op == "irsplit.recv" for value in node.outputs if value]
    sent = [value for node in segment.nodes if node.op == "irsplit.send" for value in node.inputs if value]
    read = {value for node in nodes for value in operands(node)}
    produced = {value for node in nodes for value in node.outputs if value}.union(segment.constants)
    inputs = [value for value in (*segment.inputs, *received) if value in read]
    outputs = [value for value in dict.fromkeys((*sent, *segment.outputs)) if value in produced]
    return Graph(segment.name, inputs, outputs, nodes, list(segment.constants), segment.place, segment.native)
