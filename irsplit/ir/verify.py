"""The invariants of the IR, checked in linear time after every pass."""

from typing import NoReturn

from irsplit.base.errors import VerifyError, short
from irsplit.ir.core import DEEPEST_BODIES, Graph, Model, Node, Value
from irsplit.ir.printer import around


def verify(model: Model) -> None:
    """Check all invariants of a model.

    * Names of graphs are unique, and so are names of values in one graph.
    * A value is defined before it is used, and knows its producer and its readers.
    * Constants have bytes; graphs that are called belong to the model.
    * What a segment sends is what the next segment receives.

    Args:
        model: The model, which is not changed.

    Raises:
        VerifyError: An invariant is broken; the text names it and shows the nodes around it.
    """
    names: set[str] = set()
    for graph in model.graphs:
        if graph.name in names:
            raise VerifyError(f"two graphs are named @{short(graph.name)}; rename one")
        names.add(graph.name)

    callable_graphs = set(model.graphs)
    for graph in model.graphs:
        _GraphVerifier(graph, set(), callable_graphs).verify()
    _verify_segments(model)


class _GraphVerifier:
    """Checks one graph.

    `visible` has what the surrounding graphs have defined so far. It grows while the graph is
    checked and is the same set again afterwards, so that checking nested bodies stays linear.
    """

    def __init__(
        self, graph: Graph, visible: set[Value], callable_graphs: set[Graph], depth: int = 0
    ) -> None:
        self._graph = graph
        self._visible = visible
        self._callable_graphs = callable_graphs
        self._depth = depth
        self._names: set[str] = set()
        self._defined: list[Value] = []

    def verify(self) -> None:
        graph, name = self._graph, short(self._graph.name)
        if self._depth > DEEPEST_BODIES:
            raise VerifyError(
                f"bodies are nested deeper than {DEEPEST_BODIES} in graph @{name}; flatten them"
            )

        self._verify_declarations()
        for node in graph.nodes:
            self._verify_node(node)
        for value in graph.outputs:
            if value not in self._visible:
                raise VerifyError(
                    f"output {value} of graph @{name} is not produced in it; add its producer"
                )
        self._visible.difference_update(self._defined)

    def _verify_declarations(self) -> None:
        for value in (*self._graph.inputs, *self._graph.constants):
            self._define(value, None)
        for value in self._graph.constants:
            if value.constant is None:
                name = short(self._graph.name)
                raise VerifyError(
                    f"constant {value} of graph @{name} has no bytes; give it a Constant"
                )

    def _verify_node(self, node: Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and (value not in self._visible or node not in value.readers):
                self._refuse_use(index, value, node)

        for body in node.graphs:
            _GraphVerifier(body, self._visible, self._callable_graphs, self._depth + 1).verify()
        for callee in node.callees:
            if callee not in self._callable_graphs:
                note = around(self._graph, node)
                raise VerifyError(
                    f"{node} calls @{short(callee.name)}, which is not in the model{note}"
                )

        for value in node.outputs:
            if value is not None:
                self._define(value, node)

    def _define(self, value: Value, producer: Node | None) -> None:
        """Record a definition, which must be the only one of its name."""
        if value.name in self._names or value.producer is not producer:
            self._refuse_definition(value, producer)
        self._names.add(value.name)
        self._visible.add(value)
        self._defined.append(value)

    def _refuse_definition(self, value: Value, node: Node | None) -> NoReturn:
        note = around(self._graph, node)
        if value.producer is not node:
            raise VerifyError(f"{value} names another producer than {node or 'the graph'}{note}")
        raise VerifyError(
            f"{value} is defined twice in graph @{short(self._graph.name)}; rename one{note}"
        )

    def _refuse_use(self, index: int, value: Value, node: Node) -> NoReturn:
        note = around(self._graph, node)
        if value in self._visible:
            raise VerifyError(f"{value} does not list its use by {node}; use set_inputs{note}")
        raise VerifyError(
            f"input {index} ({value}) of {node} is used before it is produced; "
            f"insert the producer before this node{note}"
        )


def _verify_segments(model: Model) -> None:
    """What a segment sends, the next one receives: each boundary once, with the same types."""
    sent: dict[object, Node] = {}
    for graph in model.segments:
        for node in graph.nodes:
            if node.op == "irsplit.recv":
                _verify_receive(graph, node, sent.pop(node.attributes.get("boundary"), None))
        _verify_all_received(sent)

        for node in graph.nodes:
            if node.op != "irsplit.send":
                continue
            boundary = node.attributes.get("boundary")
            if boundary in sent:
                raise VerifyError(f"boundary {boundary} is sent twice{around(graph, node)}")
            sent[boundary] = node
    _verify_all_received(sent)


def _verify_receive(graph: Graph, node: Node, sender: Node | None) -> None:
    boundary, note = node.attributes.get("boundary"), around(graph, node)
    if sender is None:
        raise VerifyError(
            f"boundary {boundary} is received, but the segment before does not send it{note}"
        )

    types = [value.type for value in sender.inputs if value is not None]
    if types != [value.type for value in node.outputs if value is not None]:
        raise VerifyError(f"boundary {boundary} is received with other types than sent{note}")


def _verify_all_received(sent: dict[object, Node]) -> None:
    if sent:
        raise VerifyError(
            f"boundary {next(iter(sent))} is sent, but the next segment does not receive it"
        )
