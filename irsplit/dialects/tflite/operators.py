"""What is known of operators: which call subgraphs, which are random or cheap, and how many multiplications they do."""

from collections.abc import Callable, Mapping
from math import prod

from irsplit.dialects.tflite.schema import ENUMS, TABLES
from irsplit.dialects.tflite.states import VARIABLE
from irsplit.ir import Graph, HeadRole, Node, TensorType, Value, graphs_inside

CODES_BY_NUMBER: dict[int, str] = dict(enumerate(ENUMS["BuiltinOperator"].split()))
NUMBERS: dict[str, int] = {name: number for number, name in CODES_BY_NUMBER.items()}

# Fields of options tables that hold indices of subgraphs: the schema names all of them alike.
CALLS: dict[str, tuple[str, ...]] = {
    name: found
    for name, text in TABLES.items()
    if name.endswith("Options")
    and (
        found := tuple(
            field for field in (word.split(":")[0] for word in text.split()) if "subgraph" in field
        )
    )
}

RANDOM = frozenset({"tflite.RANDOM_UNIFORM", "tflite.RANDOM_STANDARD_NORMAL", "tflite.MULTINOMIAL"})

# Pure functions that cost no more than reading their operands once: shape arithmetic, masks, casts, element-wise maths.
_CHEAP = """
    ABS ADD ADD_N ARG_MAX ARG_MIN BITCAST BITWISE_XOR BROADCAST_ARGS BROADCAST_TO CAST CEIL CONCATENATION CUMSUM
    DEQUANTIZE DIV EQUAL EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD GATHER GATHER_ND GREATER GREATER_EQUAL LESS
    LESS_EQUAL LOGICAL_AND LOGICAL_NOT LOGICAL_OR MAXIMUM MINIMUM MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 QUANTIZE
    RANGE RANK REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RESHAPE REVERSE_V2 RIGHT_SHIFT ROUND
    SCATTER_ND SELECT SELECT_V2 SHAPE SIGN SLICE SPARSE_TO_DENSE SPLIT SPLIT_V SQUARE SQUEEZE STRIDED_SLICE SUB SUM TILE
    TRANSPOSE UNPACK WHERE ZEROS_LIKE
"""
CHEAP = frozenset(f"tflite.{name}" for name in _CHEAP.split())


def may_be_unset(op: str, place: int) -> bool:
    """Whether LiteRT lets an operand be a tensor without data: the shape of RESHAPE, which its options repeat."""
    return op == "tflite.RESHAPE" and place == 1


_REGISTERED = (
    "AudioSpectrogram",
    "Convolution2DTransposeBias",
    "MaxPoolingWithArgmax2D",
    "MaxUnpooling2D",
    "Mfcc",
    "NumericVerify",
    "TFLite_Detection_PostProcess",
)
"""Custom operators that LiteRT's own resolver has kernels for."""

_HEAD_ROLES: dict[str, HeadRole] = {
    "custom.TFLite_Detection_PostProcess": "detections",
    "ARG_MAX": "largest",
    "LOGISTIC": "likelihood",
    "CAST": "move",
    "DEQUANTIZE": "move",
    "EXPAND_DIMS": "move",
    "RESHAPE": "move",
    "SQUEEZE": "move",
}


def is_cheap(node: Node) -> bool:
    return node.op in CHEAP and not node.states


def is_shape(node: Node) -> bool:
    return node.op in ("tflite.SHAPE", "tflite.RANK")


def head_role(node: Node) -> HeadRole:
    return _HEAD_ROLES.get(node.op.removeprefix("tflite."), "")


def macs(node: Node) -> int:
    """Multiply-accumulate operations by the estimated shapes; called graphs as `summed` has it."""

    def own(node: Node) -> int:
        count = _MACS.get(node.op)
        return 0 if count is None else count(node)

    return summed(node, own)


def summed(node: Node, own: Callable[[Node], int]) -> int:
    """`own` of the node; of one that calls graphs, the sum over the nodes inside: loops once, the dearest branch.

    A graph that calls itself counts once.
    """
    if not node.callees:
        return own(node)
    sums: dict[Graph, int] = {}
    for graph in graphs_inside(node):
        sums[graph] = sum(_total(inner, own, sums) for inner in graph.nodes)
    return _total(node, own, sums)


def _total(node: Node, own: Callable[[Node], int], sums: Mapping[Graph, int]) -> int:
    """Of a node whose inner graphs have these sums."""
    if not node.callees:
        return own(node)
    totals = [sums.get(graph, 0) for graph in node.callees]
    return max(totals) if node.op == "tflite.IF" else sum(totals)


def _shape(values: tuple[Value | None, ...], index: int) -> tuple[int, ...]:
    """Estimated shape of an operand or result; (0,) when it is absent, so that products vanish."""
    value = values[index] if -len(values) <= index < len(values) else None
    type = None if value is None else value.type
    return (type.estimated_shape or (0,)) if isinstance(type, TensorType) else (0,)


def _convolution(filter: int, kernel: slice) -> Callable[[Node], int]:
    """Every result is a sum over the `kernel` dimensions of operand `filter`."""
    return lambda node: prod(_shape(node.outputs, 0)) * prod(_shape(node.inputs, filter)[kernel])


def _scattering(input: int, filter: int, skipped: int) -> Callable[[Node], int]:
    """Every element of operand `input` goes through all of operand `filter` but dimension `skipped`, its channels."""

    def count(node: Node) -> int:
        weights = list(_shape(node.inputs, filter))
        del weights[skipped]
        return prod(_shape(node.inputs, input)) * prod(weights)

    return count


def _batch_matmul(node: Node) -> int:
    options = node.native.table.table("builtin_options") if node.native is not None else None
    adjoint = options is not None and options.integer("adj_x")
    left = _shape(node.inputs, 0)
    return prod(_shape(node.outputs, 0)) * left[-2 if adjoint and len(left) > 1 else -1]


def _recurrent(node: Node) -> int:
    """Every step of every sequence goes through all weight matrices once."""
    sequence = _shape(node.inputs, 0)
    weights = [value for value in node.inputs[1:] if value is not None and not _is_state(value)]
    matrices = [value.type for value in weights if isinstance(value.type, TensorType)]
    return prod(sequence[:-1]) * sum(
        type.elements(1) or 0 for type in matrices if len(type.shape or ()) == 2
    )


def _is_state(value: Value) -> bool:
    return value.constant is not None and value.constant.encoding == VARIABLE


_MACS: dict[str, Callable[[Node], int]] = {
    "tflite.CONV_2D": _convolution(1, slice(1, None)),  # filter [out, height, width, in]
    "tflite.DEPTHWISE_CONV_2D": _convolution(1, slice(1, 3)),  # [1, height, width, channels]
    "tflite.CONV_3D": _convolution(1, slice(0, 4)),  # [depth, height, width, in, out]
    "tflite.FULLY_CONNECTED": _convolution(1, slice(1, None)),  # [out, in]
    "tflite.TRANSPOSE_CONV": _scattering(2, 1, 3),  # [out, height, width, in]
    "tflite.CONV_3D_TRANSPOSE": _scattering(2, 1, 4),  # [depth, height, width, out, in]
    "tflite.custom.Convolution2DTransposeBias": _scattering(0, 1, 3),
    "tflite.BATCH_MATMUL": _batch_matmul,
    "tflite.LSTM": _recurrent,
    "tflite.UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
    "tflite.BIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
    "tflite.RNN": _recurrent,
    "tflite.UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
    "tflite.BIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
    "tflite.SVDF": _recurrent,
}


def is_foreign(op: str) -> bool:
    """Whether no stock engine has a kernel for the operation: a custom one, but for those that LiteRT registers."""
    return op.startswith("tflite.custom.") and op.removeprefix("tflite.custom.") not in _REGISTERED
