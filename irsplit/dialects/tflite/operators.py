"""What irsplit knows of TFLite's operators.

Which of them call subgraphs, which are random or cheap, and how many multiplications they do.
"""

from collections.abc import Callable, Mapping
from math import prod

from irsplit.dialects.tflite.schema import ENUMS, TABLES
from irsplit.dialects.tflite.states import VARIABLE
from irsplit.ir import Graph, HeadRole, Node, TensorType, Value, graphs_inside

CODES_BY_NUMBER: dict[int, str] = dict(enumerate(ENUMS["BuiltinOperator"].split()))
NUMBERS: dict[str, int] = {name: number for number, name in CODES_BY_NUMBER.items()}


def _fields_that_call(table: str) -> tuple[str, ...]:
    """The fields of a table that hold numbers of subgraphs: the schema names all of them alike."""
    fields = [word.split(":")[0] for word in TABLES[table].split()]
    return tuple(field for field in fields if "subgraph" in field)


CALLS: dict[str, tuple[str, ...]] = {
    table: _fields_that_call(table)
    for table in TABLES
    if table.endswith("Options") and _fields_that_call(table)
}
"""The fields of tables of options that hold numbers of subgraphs."""

RANDOM = frozenset({"tflite.RANDOM_UNIFORM", "tflite.RANDOM_STANDARD_NORMAL", "tflite.MULTINOMIAL"})

_CHEAP = """
    ABS ADD ADD_N ARG_MAX ARG_MIN BITCAST BITWISE_XOR BROADCAST_ARGS BROADCAST_TO CAST CEIL
    CONCATENATION CUMSUM DEQUANTIZE DIV EQUAL EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD GATHER
    GATHER_ND GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_NOT LOGICAL_OR MAXIMUM
    MINIMUM MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 QUANTIZE RANGE RANK REDUCE_ALL REDUCE_ANY
    REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RESHAPE REVERSE_V2 RIGHT_SHIFT ROUND SCATTER_ND SELECT
    SELECT_V2 SHAPE SIGN SLICE SPARSE_TO_DENSE SPLIT SPLIT_V SQUARE SQUEEZE STRIDED_SLICE SUB SUM
    TILE TRANSPOSE UNPACK WHERE ZEROS_LIKE
"""
CHEAP = frozenset(f"tflite.{name}" for name in _CHEAP.split())
"""Pure functions that cost no more than reading their operands once: arithmetic of shapes, masks,
casts, element-wise mathematics."""


def may_be_unset(op: str, place: int) -> bool:
    """Whether LiteRT allows an operand to be a tensor without data.

    That is the shape of RESHAPE, which the operator's options repeat.
    """
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
"""Custom operators for which LiteRT's own resolver has kernels."""

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
    """Whether recomputing the node costs no more than reading its operands."""
    return node.op in CHEAP and not node.states


def is_shape(node: Node) -> bool:
    """Whether the node reads the shape of its operand and none of its elements."""
    return node.op in ("tflite.SHAPE", "tflite.RANK")


def is_foreign(op: str) -> bool:
    """Whether no stock engine has a kernel for the operator: a custom one unknown to LiteRT."""
    return op.startswith("tflite.custom.") and op.removeprefix("tflite.custom.") not in _REGISTERED


def head_role(node: Node) -> HeadRole:
    """What the node does to the outputs of a model that ends with it."""
    return _HEAD_ROLES.get(node.op.removeprefix("tflite."), "")


def macs(node: Node) -> int:
    """Multiply-accumulate operations of a node, by the estimated shapes of its tensors.

    Args:
        node: Any node; operators without multiplications count 0.

    Returns:
        The number, including the graphs that the node calls (see `summed`).
    """

    def own(node: Node) -> int:
        count = _MACS.get(node.op)
        return 0 if count is None else count(node)

    return summed(node, own)


def summed(node: Node, own: Callable[[Node], int]) -> int:
    """A cost of a node, including everything that it calls.

    A node without callees costs `own(node)`. Otherwise it costs the sum over the nodes inside: for
    a conditional, of the most expensive branch alone; for a loop, of one round. The graphs inside
    are summed innermost first, so each is looked at once, and a graph that calls itself counts
    once.

    Args:
        node: The node.
        own: The cost of a node without callees.
    """
    if not node.callees:
        return own(node)

    sums: dict[Graph, int] = {}
    for graph in graphs_inside(node):
        sums[graph] = sum(_total(inner, own, sums) for inner in graph.nodes)
    return _total(node, own, sums)


def _total(node: Node, own: Callable[[Node], int], sums: Mapping[Graph, int]) -> int:
    """The cost of a node, given the sums of the graphs that it calls."""
    if not node.callees:
        return own(node)
    totals = [sums.get(graph, 0) for graph in node.callees]
    return max(totals) if node.op == "tflite.IF" else sum(totals)


# -- multiplications ------------------------------------------------------------------------------


def _shape(values: tuple[Value | None, ...], index: int) -> tuple[int, ...]:
    """Estimated shape of an operand or result; (0,) if it is absent, so that products vanish."""
    value = values[index] if -len(values) <= index < len(values) else None
    if value is None or not isinstance(value.type, TensorType):
        return (0,)
    return value.type.estimated_shape or (0,)


def _convolution(filter: int, kernel: slice) -> Callable[[Node], int]:
    """Each element of the result is a sum over some dimensions of a filter.

    Args:
        filter: Which operand the filter is.
        kernel: The dimensions of the filter that are summed over.
    """
    return lambda node: prod(_shape(node.outputs, 0)) * prod(_shape(node.inputs, filter)[kernel])


def _scattering(input: int, filter: int, skipped: int) -> Callable[[Node], int]:
    """Each element of an operand is multiplied with a filter, and the products are scattered.

    Args:
        input: Which operand is scattered.
        filter: Which operand the filter is.
        skipped: The dimension of the filter that has the operand's channels.
    """

    def count(node: Node) -> int:
        weights = list(_shape(node.inputs, filter))
        del weights[skipped]
        return prod(_shape(node.inputs, input)) * prod(weights)

    return count


def _batch_matmul(node: Node) -> int:
    """Each element of the result is a sum over the inner dimension."""
    options = node.native.table.table("builtin_options") if node.native is not None else None
    adjoint = options is not None and options.integer("adj_x")
    left = _shape(node.inputs, 0)
    if not left:
        return 0

    inner_axis = -2 if adjoint and len(left) > 1 else -1
    return prod(_shape(node.outputs, 0)) * left[inner_axis]


def _recurrent(node: Node) -> int:
    """Each step of each sequence is multiplied with all weight matrices once."""
    sequence = _shape(node.inputs, 0)
    weights = 0
    for value in node.inputs[1:]:
        if value is None or _is_state(value) or not isinstance(value.type, TensorType):
            continue
        if len(value.type.shape or ()) == 2:
            weights += value.type.elements(1) or 0
    return prod(sequence[:-1]) * weights


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
