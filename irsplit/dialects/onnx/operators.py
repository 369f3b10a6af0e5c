"""What is known of ONNX operators: which are random, which are cheap, which class they are in."""

from functools import cache

from irsplit.dialects.base import OperatorClass
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.attributes import read_attributes
from irsplit.dialects.onnx.constants import constant_array
from irsplit.dialects.operator_classes import class_by_filter, class_of_name
from irsplit.ir import HeadRole, Node

_PREFIX = "onnx"

_RANDOM_ONNX = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
_RANDOM_MICROSOFT = (
    "BiasDropout",
    "BitmaskBiasDropout",
    "BitmaskDropout",
    "Sampling",
)
_RANDOM = frozenset(
    [f"onnx.{name}" for name in _RANDOM_ONNX]
    + [f"com.microsoft.{name}" for name in _RANDOM_MICROSOFT]
)

_MOVES = """
    BitCast Cast CastLike Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike
    Flatten Gather GatherElements GatherND Identity OneHot Pad Range Reshape ReverseSequence
    ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu
    Unsqueeze Where
"""
_ELEMENTWISE = """
    Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Clip Cos DequantizeLinear
    Div Equal Erf Exp Floor Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less
    LessOrEqual Log Max Mean Min Mod Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal Relu Round
    Sigmoid Sign Sin Softplus Sqrt Sub Sum Tanh ThresholdedRelu Xor
"""
_SMALL_SUMS = """
    ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
_CHEAP = frozenset(f"onnx.{name}" for name in (_MOVES + _ELEMENTWISE + _SMALL_SUMS).split())

_PURE_DOMAINS = ("onnx.", "ai.onnx.", "com.microsoft.", "com.ms.")
"""Domains whose operators are functions of their operands. Those of other domains may be anything.
"""

_HEAD_ROLES: dict[str, HeadRole] = {
    "ArgMax": "largest",
    "Sigmoid": "likelihood",
    "Cast": "move",
    "DequantizeLinear": "move",
    "Flatten": "move",
    "Identity": "move",
    "Reshape": "move",
    "Squeeze": "move",
    "Unsqueeze": "move",
    "Gather": "pick",
    "GatherElements": "pick",
    "GatherND": "pick",
}


def plain_domain(domain: str) -> str:
    """The domain, with the empty string for every spelling of the default one."""
    return "" if domain in schema.DEFAULT_DOMAINS else domain


def name(domain: str, operator: str) -> str:
    """The IR's name of an operator, such as "onnx.Conv"."""
    return f"{domain or _PREFIX}.{operator}"


def domain(node: Node) -> str:
    """The domain of a node as ONNX spells it; the empty string is the default domain."""
    prefix = node.op.rpartition(".")[0]
    return "" if prefix == _PREFIX else prefix


def is_random(node: Node) -> bool:
    """Whether the node may give another result each time.

    Custom operators count as random, because nothing says that they are pure functions.
    """
    # A Dropout that is not in training mode passes its operand on.
    if node.op == "onnx.Dropout":
        return _drops(node)
    if _has_random_body(node):
        return True

    return _may_be_random(node.op) and not node.callees


def _has_random_body(node: Node) -> bool:
    return any(any(inner.random for inner in body.nodes) for body in node.graphs)


def is_unknown(op: str) -> bool:
    """Whether the operator is of a domain that irsplit knows nothing about.

    Such an operator may be random, and shape inference says nothing of its results.
    """
    return not op.startswith(_PURE_DOMAINS)


@cache
def _may_be_random(op: str) -> bool:
    return op in _RANDOM or is_unknown(op)


def _drops(node: Node) -> bool:
    """Whether a Dropout is in training mode.

    Since opset 12 an operand says so. Before, the attribute `is_test` did until opset 6, and in
    opsets 7 to 11 a Dropout never drops anything.
    """
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return read_attributes(node).get("is_test") == 0

    training = constant_array(node.inputs[2])
    return training is None or bool(training.any())


def operator_class(node: Node) -> OperatorClass:
    """The class of an operator, by its name and, for convolutions, by the shape of the filters."""
    if node.op.startswith("onnx."):
        return class_by_filter(node)
    # Fused and quantized operators of other domains have their filters in another place.
    return class_of_name(node.op)


def is_cheap(node: Node) -> bool:
    """Whether the node is pure and does at most a few operations per element."""
    return node.op in _CHEAP or (node.op == "onnx.Dropout" and not node.random)


def is_shape(node: Node) -> bool:
    """Whether the node reads only the shape of its operand."""
    return node.op in ("onnx.Shape", "onnx.Size")


def head_role(node: Node) -> HeadRole:
    """What the node does to the outputs of a model that ends with it."""
    if node.op != "onnx.NonMaxSuppression":
        return _HEAD_ROLES.get(node.op.removeprefix("onnx."), "")
    is_centered = read_attributes(node).get("center_point_box") == 1
    return "centered-selection" if is_centered else "selection"
