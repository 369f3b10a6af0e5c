"""What is known of ONNX operators: which are random, which are cheap."""

from functools import cache

from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.attributes import read_attributes
from irsplit.dialects.onnx.constants import constant_array
from irsplit.ir import HeadRole, Node

_PREFIX = "onnx"

_RANDOM = frozenset(
    "onnx." + name
    for name in (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
) | frozenset(
    {
        "com.microsoft.BiasDropout",
        "com.microsoft.BitmaskBiasDropout",
        "com.microsoft.BitmaskDropout",
        "com.microsoft.Sampling",
    }
)

_MOVES = """
    BitCast Cast CastLike Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
    GatherElements GatherND Identity OneHot Pad Range Reshape ReverseSequence ScatterElements ScatterND Shape Size Slice
    SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Where
"""
_ELEMENTWISE = """
    Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Clip Cos DequantizeLinear Div Equal Erf Exp
    Floor Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mod
    Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal Relu Round Sigmoid Sign Sin Softplus Sqrt Sub Sum Tanh
    ThresholdedRelu Xor
"""
_SMALL_SUMS = """
    ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""
_CHEAP = frozenset(
    f"onnx.{name}" for names in (_MOVES, _ELEMENTWISE, _SMALL_SUMS) for name in names.split()
)

_PURE_DOMAINS = ("onnx.", "ai.onnx.", "com.microsoft.", "com.ms.")
"""Domains whose operators are functions of their operands; operators of others may be anything."""

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
    """The domain with one name for the default one."""
    return "" if domain in schema.DEFAULT_DOMAINS else domain


def name(domain: str, operator: str) -> str:
    """The IR's name of an operator."""
    return f"{domain or _PREFIX}.{operator}"


def domain(node: Node) -> str:
    """The domain of a node as ONNX spells it, empty for the default one."""
    prefix = node.op.rpartition(".")[0]
    return "" if prefix == _PREFIX else prefix


def is_random(node: Node) -> bool:
    """Whether the node gives another result each time, or may: custom operators are not known to be functions."""
    if node.op == "onnx.Dropout":
        return _drops(node)
    if node.graphs and any(inner.random for body in node.graphs for inner in body.nodes):
        return True
    return _may_be_random(node.op) and not node.callees


def is_unknown(op: str) -> bool:
    """Whether the operator is of a domain of which nobody here knows anything: it may be random, and no inference says
    the types of its results."""
    return not op.startswith(_PURE_DOMAINS)


@cache
def _may_be_random(op: str) -> bool:
    return op in _RANDOM or is_unknown(op)


def _drops(node: Node) -> bool:
    """Whether a Dropout is in training mode: an operand since opset 12, before that never in opset 7 to 11."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return read_attributes(node).get("is_test") == 0
    training = constant_array(node.inputs[2])
    return training is None or bool(training.any())


def is_cheap(node: Node) -> bool:
    """Whether the node is a pure function of a few operations an element, or of none at all."""
    return node.op in _CHEAP or (node.op == "onnx.Dropout" and not node.random)


def is_shape(node: Node) -> bool:
    return node.op in ("onnx.Shape", "onnx.Size")


def head_role(node: Node) -> HeadRole:
    """What the node does to the outputs of a model that ends with it."""
    if node.op == "onnx.NonMaxSuppression":
        return (
            "centered-selection"
            if read_attributes(node).get("center_point_box") == 1
            else "selection"
        )
    return _HEAD_ROLES.get(node.op.removeprefix("onnx."), "")
