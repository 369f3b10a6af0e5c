"""The model without its weights, for type inference: large tensors become inputs or stubs."""

from collections.abc import Callable, Iterable

from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.attributes import attribute_message, read_attributes
from irsplit.dialects.onnx.source import SourceGraph, SourceNode
from irsplit.dialects.onnx.tensors import SPARSE
from irsplit.dialects.onnx.weights import SMALLEST_EXTERNAL, Weights, stub
from irsplit.dialects.onnx.wire import ProtoMessage, ProtoSpan, fields
from irsplit.dialects.onnx.writer import ModelWriter
from irsplit.ir import Attribute, Graph, Model, Node, Value

_LARGEST_SHAPE = 256
"""Initializers with fewer bytes may be shapes, axes or pads: inference needs their elements."""

_SLIM_FROM = 4096
"""Nodes with shorter messages hold no tensor that is worth leaving out."""


class Skeleton(ModelWriter):
    """Writes the entry graph of a model without its weights.

    Nodes are in topological order. Large initializers become inputs, and large tensors inside of
    nodes become stubs.

    Args:
        model: The model.
        results: Values to add to the outputs.
        stubs: Whether to leave out tensors inside of nodes. An engine needs them.
    """

    def __init__(self, model: Model, results: Iterable[Value] = (), stubs: bool = True) -> None:
        super().__init__(model, model.entry, Weights())
        self.results = list(results)
        self.stubs = stubs

    def constants(self, graph: Graph, source: SourceGraph) -> list[Value]:
        constants = super().constants(graph, source)
        if graph is not self.entry:
            return constants
        return [value for value in constants if not _is_left_out(value)]

    def inputs(self, graph: Graph, source: SourceGraph) -> list[Value]:
        inputs = super().inputs(graph, source)
        if graph is not self.entry:
            return inputs
        return list(dict.fromkeys((*inputs, *filter(_is_left_out, graph.constants))))

    def outputs(self, graph: Graph) -> list[Value]:
        if graph is not self.entry:
            return graph.outputs
        return list(dict.fromkeys((*graph.outputs, *self.results)))

    def nodes(self, message: ProtoMessage, key: int, graph: Graph, source: SourceGraph) -> None:
        for node in graph.nodes:
            native: SourceNode = node.native
            # An engine gets the nodes as they are, because it runs them.
            stand_in = _STAND_INS.get(node.op) if self.stubs else None
            size = native.message.stop - native.message.start
            if stand_in is not None:
                message.message(key, stand_in(node))
            elif self.stubs and size >= _SLIM_FROM:
                span = ProtoSpan(native.buffer, native.message.start, native.message.stop)
                message.message(key, _slim(span, "node"))
            else:
                message.span(native.buffer, native.message.head, native.message.stop)


def _is_left_out(value: Value) -> bool:
    constant = value.constant
    if constant is None:
        return False
    return constant.length >= _LARGEST_SHAPE or constant.encoding == SPARSE


# -- operators that ONNX no longer knows ----------------------------------------------------------


def _same(node: Node) -> ProtoMessage:
    """An operator whose result has the type of its first operand."""
    return _message("Identity", node)


def _crop(node: Node) -> ProtoMessage:
    """The experimental Crop, which takes a border off the last two of four axes."""
    border = read_attributes(node).get("border")
    if not isinstance(border, list) or len(border) != 4:
        border = [0, 0, 0, 0]
    left, top, right, bottom = border

    # A border of 0 at the end means up to the end, which Slice spells as a large number.
    ends = [-size if isinstance(size, int) and size else 2**31 - 1 for size in (bottom, right)]
    return _message("Slice", node, starts=[top, left], ends=ends, axes=[2, 3])


def _message(operator: str, node: Node, **attributes: Attribute) -> ProtoMessage:
    """A NodeProto with the node's first operand and first result."""
    message = ProtoMessage()
    message.texts(schema.NODE_INPUT, [value.name for value in node.inputs[:1] if value is not None])
    message.texts(
        schema.NODE_OUTPUT, [value.name for value in node.outputs[:1] if value is not None]
    )
    message.text(schema.NODE_OP, operator)

    for name, value in attributes.items():
        message.message(schema.NODE_ATTRIBUTE, attribute_message(name, value))

    return message


_STAND_INS: dict[str, Callable[[Node], ProtoMessage]] = {
    "onnx.Affine": _same,
    "onnx.Crop": _crop,
    "onnx.ImageScaler": _same,
    "onnx.ParametricSoftplus": _same,
    "onnx.ScaledTanh": _same,
}
"""Nodes with a result of the same type, for operators that ONNX dropped before version 1.0.

Engines still run these operators, but inference does not know them.
"""


# -- tensors inside of nodes ----------------------------------------------------------------------

_CHILDREN: dict[str, dict[int, str]] = {
    "node": {schema.NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        schema.ATTRIBUTE_TENSOR: "tensor",
        schema.ATTRIBUTE_TENSORS: "tensor",
        schema.ATTRIBUTE_GRAPH: "graph",
        schema.ATTRIBUTE_GRAPHS: "graph",
    },
    "graph": {schema.GRAPH_NODE: "node", schema.GRAPH_INITIALIZER: "tensor"},
}
"""For each kind of message: its fields that are messages and may hold tensors, with their kinds."""


def _slim(span: ProtoSpan, kind: str) -> ProtoMessage:
    """Copy a message with a stub for every large tensor in it, which keeps its type alone."""
    if kind == "tensor":
        return stub(span)

    message, children = ProtoMessage(), _CHILDREN[kind]

    for field in fields(span.buffer.view, span.start, span.stop):
        if field.key in children and field.stop - field.start >= SMALLEST_EXTERNAL:
            child = ProtoSpan(span.buffer, field.start, field.stop)
            message.message(field.key, _slim(child, children[field.key]))
        else:
            message.span(span.buffer, field.head, field.stop)

    return message
