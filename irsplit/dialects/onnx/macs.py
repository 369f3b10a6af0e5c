"""Multiply-accumulate operations of ONNX operators, from the shapes of their operands and results.

`_RULES` holds a function for each operator that multiplies and adds. An operator that is not in the
table costs nothing, unless it has bodies or calls functions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

from irsplit.dialects.onnx.attributes import read_attributes
from irsplit.dialects.onnx.constants import constant_array
from irsplit.ir import Graph, Node, TensorType, Value, graphs_inside

Sizes = tuple[int, ...]


class Shapes:
    """Estimated shapes of a node's operands and results; () for those without a rank or absent."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def input(self, index: int) -> Sizes:
        """Shape of the operand with this index."""
        return self.sizes(self.node.inputs[index] if index < len(self.node.inputs) else None)

    def output(self, index: int) -> Sizes:
        """Shape of the result with this index."""
        return self.sizes(self.node.outputs[index] if index < len(self.node.outputs) else None)

    def sizes(self, value: Value | None) -> Sizes:
        """Estimated shape of a value, with 1 for every open dimension."""
        if value is None or not isinstance(value.type, TensorType):
            return ()
        return value.type.estimated_shape or ()


def macs(node: Node) -> int:
    """Count the multiply-accumulates of the node, with its bodies and called functions."""
    return summed(node, _own_macs)


def _own_macs(node: Node) -> int:
    """Multiply-accumulates of the operator itself; 0 for operators without a rule."""
    rule = _RULES.get(node.op)
    return 0 if rule is None else rule(Shapes(node))


# -- nodes with bodies ----------------------------------------------------------------------------


def summed(node: Node, own: Callable[[Node], int]) -> int:
    """Return the cost of `node` including everything it contains (see `Dialect.summed`).

    The sums of the inner graphs are computed from the innermost graph outwards, so each graph is
    visited once, however many nodes call it.
    """
    if not node.graphs and not node.callees:
        return own(node)

    sums: dict[Graph, int] = {}

    for graph in graphs_inside(node):
        sums[graph] = sum(_total(inner, own, sums) for inner in graph.nodes)

    return _total(node, own, sums)


def _total(node: Node, own: Callable[[Node], int], sums: Mapping[Graph, int]) -> int:
    """Cost of a node whose inner graphs cost `sums`."""
    totals = [sums[graph] for graph in (*node.graphs, *node.callees)]
    # An operator with a rule may also be a function: then the rule is more exact.
    if node.op in _RULES or not totals:
        return own(node)
    # Of a conditional, only one branch runs: the most expensive one counts.
    return max(totals) if node.op == "onnx.If" else sum(totals) * _repetitions(Shapes(node))


def _repetitions(shapes: Shapes) -> int:
    """How often a body runs, if that is constant, else 1."""
    node = shapes.node
    if node.op == "onnx.Loop" and node.inputs and node.inputs[0] is not None:
        trips = constant_array(node.inputs[0])
        return 1 if trips is None or trips.size != 1 else max(0, int(trips.item()))
    # A Scan runs once for each element along the first axis of its last operand.
    if node.op == "onnx.Scan":
        scanned = read_attributes(node).get("num_scan_inputs")
        return _at(shapes.input(len(node.inputs) - 1), 0) if isinstance(scanned, int) else 1

    return 1


# -- rules ----------------------------------------------------------------------------------------


def _convolution(weight: int) -> Callable[[Shapes], int]:
    """Each result element is a sum over the weight's input channels and window.

    The weight is [output channels, input channels / groups, window...].
    """

    def rule(shapes: Shapes) -> int:
        results = shapes.output(0)
        return prod(results) * prod(shapes.input(weight)[1:]) if results else 0

    return rule


def _transposed_convolution(shapes: Shapes) -> int:
    """Each input element is spread over the weight's output channels and window.

    The weight is [input channels, output channels / groups, window...].
    """
    image = shapes.input(0)
    return prod(image) * prod(shapes.input(1)[1:]) if image else 0


def _product(transposed: str = "", weight: int = 1) -> Callable[[Shapes], int]:
    """A matrix product sums over the last axis of the first operand.

    Args:
        transposed: Name of the attribute that transposes the first operand, if there is one: then
            the sum is over the axis before the last.
        weight: Index of the second operand.
    """

    def rule(shapes: Shapes) -> int:
        left = shapes.input(0)
        if not left:
            return 0

        # The shape of the result is the product of all but the summed axis, batch axes included.
        flipped = bool(transposed and read_attributes(shapes.node).get(transposed))
        results = shapes.output(0) or (*left[:-1], *shapes.input(weight)[1:])
        return prod(results) * _at(left, -2 if flipped else -1)

    return rule


def _blocked_product(shapes: Shapes) -> int:
    """MatMulNBits: the attribute N is the number of result columns."""
    columns = read_attributes(shapes.node).get("N")
    return prod(shapes.input(0)) * columns if isinstance(columns, int) else 0


def _recurrent(shapes: Shapes) -> int:
    """Every step of every sequence uses all input and recurrent weights of each direction."""
    steps = prod(shapes.input(0)[:2])
    return steps * (prod(shapes.input(1)) + prod(shapes.input(2)))


def _attention(keys: int, past: int | None = None) -> Callable[[Shapes], int]:
    """Scores and their weighted sum: each query element meets every key position twice.

    Args:
        keys: Index of the keys among the operands.
        past: Index of the keys of earlier calls, if the operator takes them.
    """

    def rule(shapes: Shapes) -> int:
        queries = shapes.input(0)
        positions = _at(shapes.input(keys), -2)
        if past is not None and shapes.input(past):
            positions += _at(shapes.input(past), -2)
        return 2 * prod(queries) * positions if queries else 0

    return rule


def _projected_attention(shapes: Shapes) -> int:
    """Contrib attention that makes queries, keys and values itself.

    The input is [batch, sequence, size], the weight [size, 3 * hidden].
    """
    source, weight = shapes.input(0), shapes.input(1)
    projection = prod(source) * _at(weight, 1)
    attention = 2 * prod(source[:2]) * _at(source, 1) * (_at(weight, 1) // 3)
    return projection + attention


def _einsum(shapes: Shapes) -> int:
    """The product of the sizes of all indices.

    An ellipsis counts as the axes that it stands for in the operand where they are largest.
    """
    equation = read_attributes(shapes.node).get("equation")
    if not isinstance(equation, bytes) or len(shapes.node.inputs) < 2:
        return 0

    sizes: dict[str, int] = {}
    broadcast = 1
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")

    for index, term in enumerate(terms):
        dims = shapes.input(index)
        before, dots, after = term.partition("...")
        # Letters before the ellipsis name the first axes, letters behind it the last ones.
        sizes.update(zip(before, dims, strict=False))
        sizes.update(zip(reversed(after), reversed(dims), strict=False))
        if dots:
            broadcast = max(broadcast, prod(dims[len(before) : len(dims) - len(after)]))

    return broadcast * prod(size for letter, size in sizes.items() if re.match("[A-Za-z]", letter))


def _at(sizes: Sequence[int], index: int) -> int:
    """The size at this index, or 1 if there is none."""
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
