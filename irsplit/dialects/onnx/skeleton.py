"""The model without its weights, for those who only want to know types: large tensors become inputs or stubs."""

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
"""Initializers with fewer bytes may be shapes, axes or pads, whose elements inference asks for."""
_SLIM_FROM = 4096
"""Nodes with shorter messages have no tensor worth leaving out."""


class Skeleton(ModelWriter):
    """The entry with its nodes in order, its large initializers as inputs, and large tensors inside nodes as stubs.

    `results` are added to the outputs. With `stubs` off tensors inside nodes stay: an engine wants them.
    """

    def __init__(self, model: Model, results: Iterable[Value] = (), stubs: bool = True) -> None:
        super().__init__(model, model.entry, Weights())
        self.results = list(results)
        self.stubs = stubs

    def constants(self, graph: Graph, source: SourceGraph) -> list[Value]:
        constants = super().constants(graph, source)
        return (
            constants
            if graph is not self.entry
            else [value for value in constants if not _is_left_out(value)]
        )

    def inputs(self, graph: Graph, source: SourceGraph) -> list[Value]:
        inputs = super().inputs(graph, source)
        if graph is not self.entry:
            return inputs
        return list(dict.fromkeys((*inputs, *filter(_is_left_out, graph.constants))))

    def outputs(self, graph: Graph) -> list[Value]:
        return (
            list(dict.fromkeys((*graph.outputs, *self.results)))
            if graph is self.entry
            else graph.outputs
        )

    def nodes(self, message: ProtoMessage, key: int, graph: Graph, source: SourceGraph) -> None:
        for node in graph.nodes:
            native: SourceNode = node.native
            known = _STAND_INS.get(node.op) if self.stubs else None
            if known is not None:
                message.message(key, known(node))
            elif self.stubs and native.message.stop - native.message.start >= _SLIM_FROM:
                message.message(
                    key,
                    _slim(
                        ProtoSpan(native.buffer, native.message.start, native.message.stop), "node"
                    ),
                )
            else:
                message.span(native.buffer, native.message.head, native.message.stop)


def _is_left_out(value: Value) -> bool:
    constant = value.constant
    return constant is not None and (
        constant.length >= _LARGEST_SHAPE or constant.encoding == SPARSE
    )


def _same(node: Node) -> ProtoMessage:
    """An operator whose result has the type of its first operand."""
    return _message("Identity", node)


def _crop(node: Node) -> ProtoMessage:
    """The experimental Crop takes a border (left, top, right, bottom) off the last two of four axes."""
    border = read_attributes(node).get("border")
    left, top, right, bottom = (
        border if isinstance(border, list) and len(border) == 4 else (0, 0, 0, 0)
    )
    ends = [-size if isinstance(size, int) and size else 2**31 - 1 for size in (bottom, right)]
    return _message("Slice", node, starts=[top, left], ends=ends, axes=[2, 3])


def _message(operator: str, node: Node, **attributes: Attribute) -> ProtoMessage:
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
"""Operators that ONNX dropped before version 1.0 and engines still run: what has the same type, for inference."""

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
"""Where in a message other messages lie that may hold tensors."""


def _slim(span: ProtoSpan, kind: str) -> ProtoMessage:
    """The message with every large tensor in it as a stub that says dimensions and element type alone."""
    if kind == "tensor":
        return stub(span)
    message, children = ProtoMessage(), _CHILDREN[kind]
    for field in fields(span.buffer.view, span.start, span.stop):
        if field.key in children and field.stop - field.start >= SMALLEST_EXTERNAL:
            message.message(
                field.key,
                _slim(ProtoSpan(span.buffer, field.start, field.stop), children[field.key]),
            )
        else:
            message.span(span.buffer, field.head, field.stop)
    return message
