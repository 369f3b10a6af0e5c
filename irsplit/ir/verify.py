"""The invariants of the IR, checked in linear time after every pass."""

from typing import NoReturn

from irsplit.base.errors import VerifyError, short
from irsplit.ir.core import DEEPEST_BODIES, Graph, Model, Node, Value
from irsplit.ir.printer import around


def verify(model: Model) -> None:
    """Raise VerifyError when the model breaks an invariant; the text names it and shows the graph around the node."""
    seen: set[str] = set()
    for graph in model.graphs:
        if graph.name in seen:
            raise VerifyError(f"two graphs are named @{short(graph.name)}; rename one")
        seen.add(graph.name)
    callable_graphs = set(model.graphs)
    for graph in model.graphs:
        _verify_graph(graph, set(), callable_graphs)
    _verify_segments(model)


def _verify_graph(
    graph: Graph, visible: set[Value], callable_graphs: set[Graph], depth: int = 0
) -> None:
    """`visible`: what the graphs around this one have defined so far; the same set again when this returns."""
    if depth > DEEPEST_BODIES:
        raise VerifyError(
            f"bodies are nested deeper than {DEEPEST_BODIES} in graph @{short(graph.name)}; flatten them"
        )
    names: set[str] = set()
    defined = [*graph.inputs, *graph.constants]
    for value in defined:
        if value.name in names or value.producer is not None:
            _refuse_definition(value, graph, None)
        names.add(value.name)
    for value in graph.constants:
        if value.constant is None:
            raise VerifyError(
                f"constant {value} of graph @{short(graph.name)} has no bytes; give it a Constant"
            )
    visible.update(defined)
    for node in graph.nodes:
        for index, value in enumerate(node.inputs):
            if value is not None and (value not in visible or node not in value.readers):
                _refuse_use(index, value, node, graph, visible)
        for body in node.graphs:
            _verify_graph(body, visible, callable_graphs, depth + 1)
        for callee in node.callees:
            if callee not in callable_graphs:
                raise VerifyError(
                    f"{node} calls @{short(callee.name)}, which is not in the model{around(graph, node)}"
                )
        for value in node.outputs:
            if value is None:
                continue
            if value.name in names or value.producer is not node:
                _refuse_definition(value, graph, node)
            names.add(value.name)
            visible.add(value)
            defined.append(value)
    for value in graph.outputs:
        if value not in visible:
            raise VerifyError(
                f"output {value} of graph @{short(graph.name)} is not produced in it; add its producer"
            )
    visible.difference_update(defined)


def _refuse_definition(value: Value, graph: Graph, node: Node | None) -> NoReturn:
    if value.producer is not node:
        raise VerifyError(
            f"{value} names another producer than {node or 'the graph'}{around(graph, node)}"
        )
    raise VerifyError(
        f"{value} is defined twice in graph @{short(graph.name)}; rename one{around(graph, node)}"
    )


def _refuse_use(
    index: int, value: Value, node: Node, graph: Graph, visible: set[Value]
) -> NoReturn:
    if value in visible:
        raise VerifyError(
            f"{value} does not list its use by {node}; use set_inputs{around(graph, node)}"
        )
    raise VerifyError(
        f"input {index} ({value}) of {node} is used before it is produced; "
        f"insert the producer before this node{around(graph, node)}"
    )


def _verify_segments(model: Model) -> None:
    """What a segment sends, the next one receives: each boundary once, as many values of the same types."""
    sent: dict[object, Node] = {}
    for graph in model.segments:
        for node in graph.nodes:
            if node.op == "irsplit.recv":
                _verify_receive(graph, node, sent.pop(node.attributes.get("boundary"), None))
        _verify_all_received(sent)
        for node in graph.nodes:
            if node.op == "irsplit.send":
                boundary = node.attributes.get("boundary")
                if boundary in sent:
                    raise VerifyError(f"boundary {boundary} is sent twice{around(graph, node)}")
                sent[boundary] = node
    _verify_all_received(sent)


def _verify_receive(graph: Graph, node: Node, sender: Node | None) -> None:
    boundary = node.attributes.get("boundary")
    if sender is None:
        raise VerifyError(
            f"boundary {boundary} is received, but the segment before does not send it{around(graph, node)}"
        )
    types = [value.type for value in sender.inputs if value is not None]
    if types != [value.type for value in node.outputs if value is not None]:
        raise VerifyError(
            f"boundary {boundary} is received with other types than sent{around(graph, node)}"
        )


def _verify_all_received(sent: dict[object, Node]) -> None:
    if sent:
        raise VerifyError(
            f"boundary {next(iter(sent))} is sent, but the next segment does not receive it"
        )
