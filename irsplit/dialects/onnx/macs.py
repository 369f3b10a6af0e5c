"""Multiply-accumulate operations of ONNX operators, from the types of their operands and results."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

from irsplit.dialects.onnx.attributes import read_attributes
from irsplit.dialects.onnx.constants import constant_array
from irsplit.ir import Graph, Node, TensorType, Value, graphs_inside

Sizes = tuple[int, ...]


class Shapes:
    """Estimated shapes of a node's operands and results; () for those that are absent or have no rank."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def input(self, index: int) -> Sizes:
        return self.sizes(self.node.inputs[index] if index < len(self.node.inputs) else None)

    def output(self, index: int) -> Sizes:
        return self.sizes(self.node.outputs[index] if index < len(self.node.outputs) else None)

    def sizes(self, value: Value | None) -> Sizes:
        type = None if value is None else value.type
        return (type.estimated_shape or ()) if isinstance(type, TensorType) else ()


def macs(node: Node) -> int:
    """Multiply-accumulates of the node, bodies and called functions included."""

    def own(node: Node) -> int:
        return _RULES[node.op](Shapes(node)) if node.op in _RULES else 0

    return summed(node, own)


def summed(node: Node, own: Callable[[Node], int]) -> int:
    """`own` of the node; of one with bodies or called functions, the sum over the nodes inside as they run."""
    if not node.graphs and not node.callees:
        return own(node)
    sums: dict[Graph, int] = {}
    for graph in graphs_inside(node):
        sums[graph] = sum(_total(inner, own, sums) for inner in graph.nodes)
    return _total(node, own, sums)


def _total(node: Node, own: Callable[[Node], int], sums: Mapping[Graph, int]) -> int:
    """Of a node whose inner graphs have these sums."""
    totals = [sums[graph] for graph in (*node.graphs, *node.callees)]
    if node.op in _RULES or not totals:
        return own(node)
    return max(totals) if node.op == "onnx.If" else sum(totals) * _repetitions(Shapes(node))


def _repetitions(shapes: Shapes) -> int:
    """How often a body runs, as far as that is written down."""
    node = shapes.node
    if node.op == "onnx.Loop" and node.inputs and node.inputs[0] is not None:
        trips = constant_array(node.inputs[0])
        return 1 if trips is None or trips.size != 1 else max(0, int(trips.item()))
    if node.op == "onnx.Scan":
        scanned = read_attributes(node).get("num_scan_inputs")
        return _at(shapes.input(len(node.inputs) - 1), 0) if isinstance(scanned, int) else 1
    return 1


def _convolution(weight: int) -> Callable[[Shapes], int]:
    """Each result element sums over the weight's input channels and window: the weight is [M, C/group, window...]."""
    return lambda shapes: (
        prod(shapes.output(0)) * prod(shapes.input(weight)[1:]) if shapes.output(0) else 0
    )


def _transposed_convolution(shapes: Shapes) -> int:
    """Each input element is spread over output channels and window of the weight, which is [C, M/group, window...]."""
    return prod(shapes.input(0)) * prod(shapes.input(1)[1:]) if shapes.input(0) else 0


def _product(transposed: str = "", weight: int = 1) -> Callable[[Shapes], int]:
    """A matrix product sums over the last axis of the first operand, or the one before when it is transposed."""

    def rule(shapes: Shapes) -> int:
        left = shapes.input(0)
        flipped = bool(transposed and read_attributes(shapes.node).get(transposed))
        rows = shapes.output(0) or (*left[:-1], *shapes.input(weight)[1:])
        return prod(rows) * _at(left, -2 if flipped else -1) if left else 0

    return rule


def _blocked_product(shapes: Shapes) -> int:
    columns = read_attributes(shapes.node).get("N")
    return prod(shapes.input(0)) * columns if isinstance(columns, int) else 0


def _recurrent(shapes: Shapes) -> int:
    """Every step of every sequence meets all of the input and recurrent weights of each direction."""
    return prod(shapes.input(0)[:2]) * (prod(shapes.input(1)) + prod(shapes.input(2)))


def _attention(keys: int, past: int | None = None) -> Callable[[Shapes], int]:
    """Scores and their weighted sum: each query element meets every key position twice."""

    def rule(shapes: Shapes) -> int:
        positions = _at(shapes.input(keys), -2)
        if past is not None and shapes.input(past):
            positions += _at(shapes.input(past), -2)
        return 2 * prod(shapes.input(0)) * positions if shapes.input(0) else 0

    return rule


def _projected_attention(shapes: Shapes) -> int:
    """Contrib attention with its own projection: input [batch, sequence, size], weight [size, 3 * hidden]."""
    source, weight = shapes.input(0), shapes.input(1)
    return prod(source) * _at(weight, 1) + 2 * prod(source[:2]) * _at(source, 1) * (
        _at(weight, 1) // 3
    )


def _einsum(shapes: Shapes) -> int:
    """The product of all indices; an ellipsis counts for the axes that it stands for in the longest operand."""
    equation = read_attributes(shapes.node).get("equation")
    if not isinstance(equation, bytes) or len(shapes.node.inputs) < 2:
        return 0
    sizes: dict[str, int] = {}
    broadcast = 1
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    for index, term in enumerate(terms):
        dims = shapes.input(index)
        before, dots, after = term.partition("...")
        sizes.update(zip(before, dims, strict=False))
        sizes.update(zip(reversed(after), reversed(dims), strict=False))
        if dots:
            broadcast = max(broadcast, prod(dims[len(before) : len(dims) - len(after)]))
    return broadcast * prod(size for letter, size in sizes.items() if re.match("[A-Za-z]", letter))


def _at(sizes: Sequence[int], index: int) -> int:
    return sizes[index] if -len(sizes) <= index < len(sizes) else 1


_RULES: dict[str, Callable[[Shapes], int]] = {
    "onnx.Attention": _attention(1, 4),
    "onnx.CausalConvWithState": _convolution(1),
    "onnx.Conv": _convolution(1),
    "onnx.ConvInteger": _convolution(1),
    "onnx.ConvTranspose": _transposed_convolution,
    "onnx.DeformConv": _convolution(1),
    "onnx.Einsum": _einsum,
    "onnx.GRU": _recurrent,
    "onnx.Gemm": _product("transA"),
    "onnx.LSTM": _recurrent,
    "onnx.MatMul": _product(),
    "onnx.MatMulInteger": _product(),
    "onnx.QLinearConv": _convolution(3),
    "onnx.QLinearMatMul": _product(weight=3),
    "onnx.RNN": _recurrent,
    "com.microsoft.Attention": _projected_attention,
    "com.microsoft.DynamicQuantizeLSTM": _recurrent,
    "com.microsoft.DynamicQuantizeMatMul": _product(),
    "com.microsoft.FusedConv": _convolution(1),
    "com.microsoft.FusedGemm": _product("transA"),
    "com.microsoft.FusedMatMul": _product("transA"),
    "com.microsoft.GroupQueryAttention": _attention(1, 3),
    "com.microsoft.MatMulIntegerToFloat": _product(),
    "com.microsoft.MatMulNBits": _blocked_product,
    "com.microsoft.MultiHeadAttention": _attention(1, 6),
    "com.microsoft.QAttention": _projected_attention,
    "com.microsoft.QGemm": _product("transA", weight=3),
    "com.microsoft.QLinearConv": _convolution(3),
    "com.microsoft.TransposeMatMul": _product("transA"),
}
