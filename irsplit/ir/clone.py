"""Copies of values, nodes and graphs with other wiring; `native` and weights are shared."""

from irsplit.ir.core import Graph, Node, Value


def clone_value(value: Value) -> Value:
    """A value with the same name, type and constant, but without a producer or readers."""
    return Value(value.name, value.type, value.constant, value.native)


def clone_node(node: Node, mapping: dict[Value, Value]) -> Node:
    """Copy a node with its bodies.

    Args:
        node: The node to copy.
        mapping: What the copy reads in place of each value that the node reads. The results of the
            node, and what its bodies define, are added with their copies.

    Returns:
        The copy, which belongs to no graph yet.
    """
    bodies = [clone_graph(graph, mapping) for graph in node.graphs]

    outputs: list[Value | None] = []
    for value in node.outputs:
        if value is None:
            outputs.append(None)
        else:
            mapping[value] = clone_value(value)
            outputs.append(mapping[value])

    return Node(
        node.op,
        [None if value is None else mapping[value] for value in node.inputs],
        outputs,
        name=node.name,
        graphs=bodies,
        callees=node.callees,
        attributes=dict(node.attributes),
        states=node.states,
        random=node.random,
        native=node.native,
    )


def clone_graph(graph: Graph, mapping: dict[Value, Value]) -> Graph:
    """Copy a graph.

    Args:
        graph: The graph to copy.
        mapping: Must have a copy of everything that the graph captures. What the graph defines is
            added; inputs and constants that it has already are used as they are.

    Returns:
        The copy.
    """
    inputs = [mapping.setdefault(value, clone_value(value)) for value in graph.inputs]
    constants = [mapping.setdefault(value, clone_value(value)) for value in graph.constants]
    nodes = [clone_node(node, mapping) for node in graph.nodes]
    outputs = [mapping[value] for value in graph.outputs]
    return Graph(graph.name, inputs, outputs, nodes, constants, graph.placement, graph.native)
