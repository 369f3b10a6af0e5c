"""Copies of values and nodes with other wiring; `native` and weights are shared, never copied."""

from irsplit.ir.core import Graph, Node, Value


def clone_value(value: Value) -> Value:
    return Value(value.name, value.type, value.constant, value.native)


def clone_node(node: Node, mapping: dict[Value, Value]) -> Node:
    """A copy of `node` that reads what `mapping` says; its results, and those of its bodies, are added to `mapping`."""
    bodies = [clone_graph(graph, mapping) for graph in node.graphs]
    outputs: list[Value | None] = []
    for value in node.outputs:
        clone = None if value is None else clone_value(value)
        if value is not None and clone is not None:
            mapping[value] = clone
        outputs.append(clone)
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
    """A copy of `graph`; everything it defines is added to `mapping`, everything it captures must be there."""
    inputs = [mapping.setdefault(value, clone_value(value)) for value in graph.inputs]
    constants = [mapping.setdefault(value, clone_value(value)) for value in graph.constants]
    nodes = [clone_node(node, mapping) for node in graph.nodes]
    outputs = [mapping[value] for value in graph.outputs]
    return Graph(graph.name, inputs, outputs, nodes, constants, graph.placement, graph.native)
