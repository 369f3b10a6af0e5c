"""The invariants of the IR, checked in linear time after every pass."""

from irsplit.errors import VerifyError
from irsplit.ir.core import Graph, Model, Node, Value
from irsplit.ir.printer import around


def verify(model: Model) -> None:
    """Raise VerifyError when the model breaks an invariant; the text names it and shows the graph around the node."""
    seen: set[str] = set()
    for graph in model.graphs:
        if graph.name in seen:
            raise VerifyError(f"two graphs are named @{graph.name}; rename one")
        seen.add(graph.name)
    callable_graphs = set(model.graphs)
    for graph in model.graphs:
        _verify_graph(graph, [], callable_graphs)
    _verify_segments(model)


def _verify_graph(graph: Graph, outer: list[set[Value]], callable_graphs: set[Graph]) -> None:
    defined: set[Value] = set()
    scopes = [*outer, defined]
    names: set[str] = set()

    def define(value: Value, node: Node | None) -> None:
        if value.name in names:
            raise VerifyError(f"{value} is defined twice in graph @{graph.name}{around(graph, node)}")
        if value.producer is not node:
            raise VerifyError(f"{value} names another producer than {node or 'the graph'}{around(graph, node)}")
        names.add(value.name)
        defined.add(value)

    for value in (*graph.inputs, *graph.constants):
        define(value, None)
    for value in graph.constants:
        if value.constant is None:
            raise VerifyError(f"constant {value} of graph @{graph.name} has no bytes; give it a Constant")
    for node in graph.nodes:
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if not any(value in scope for scope in scopes):
                raise VerifyError(
                    f"input {index} ({value}) of {node} is used before it is produced; "
                    f"insert the producer before this node{around(graph, node)}"
                )
            if (node, index) not in value.uses:
                raise VerifyError(f"{value} does not list its use by {node}; use set_inputs{around(graph, node)}")
        for body in node.graphs:
            _verify_graph(body, scopes, callable_graphs)
        for callee in node.callees:
            if callee not in callable_graphs:
                raise VerifyError(f"{node} calls @{callee.name}, which is not in the model{around(graph, node)}")
        for value in node.outputs:
            if value is not None:
                define(value, node)
    for value in graph.outputs:
        if not any(value in scope for scope in scopes):
            raise VerifyError(f"output {value} of graph @{graph.name} is not produced in it; add its producer")


def _verify_segments(model: Model) -> None:
    """Each boundary is sent once, by a segment, to the next one, which receives as many values of the same types."""
    sent: dict[object, Node] = {}
    for graph in model.segments:
        for node in graph.nodes:
            if node.op not in ("irsplit.send", "irsplit.recv"):
                continue
            boundary = node.attributes.get("boundary")
            if node.op == "irsplit.send":
                if boundary in sent:
                    raise VerifyError(f"boundary {boundary} is sent twice{around(graph, node)}")
                sent[boundary] = node
                continue
            sender = sent.pop(boundary, None)
            if sender is None:
                raise VerifyError(f"boundary {boundary} is received, but no earlier segment sends it")
            types = [value.type for value in sender.inputs if value is not None]
            if types != [value.type for value in node.outputs if value is not None]:
                raise VerifyError(f"boundary {boundary} is received with other types than sent{around(graph, node)}")
    if sent:
        raise VerifyError(f"boundary {next(iter(sent))} is sent, but never received")
