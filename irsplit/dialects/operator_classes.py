"""Operator classes by name and by shape, for dialects whose operators have the usual names."""

from irsplit.dialects.base import OperatorClass
from irsplit.ir import Dim, Node, TensorType, Value

_CONVOLUTIONS = ("conv", "transposeconv")
_MATMULS = (
    "gemm",
    "matmul",
    "fullyconnected",
    "batchmatmul",
    "lstm",
    "gru",
    "rnn",
    "svdf",
    "attention",
)


def class_of_name(op: str) -> OperatorClass:
    """Guess the class of an operator from its name, whichever dialect it belongs to.

    Args:
        op: The IR's name of the operator, such as "onnx.Conv" or "tflite.DEPTHWISE_CONV_2D".

    Returns:
        The class. A convolution is `depthwise` only if its name says so: dialects where
        attributes or shapes decide have to look at those.
    """
    name = op.rpartition(".")[2].replace("_", "").lower()
    if "depthwise" in name:
        return "depthwise"
    if any(word in name for word in _CONVOLUTIONS):
        return "conv"
    if any(word in name for word in _MATMULS):
        return "matmul"
    return "other"


def class_by_filter(node: Node) -> OperatorClass:
    """Return the class of an operator whose filters are laid out as (output, input, height, width).

    A convolution is `depthwise` if each of its filters reads one channel of an image that has
    several. Filters are the second operand, images (NCHW) the first. When either shape is
    unknown, the name alone decides.
    """
    by_name = class_of_name(node.op)
    if by_name != "conv" or len(node.inputs) < 2:
        return by_name

    image, filters = (_shape(value) for value in node.inputs[:2])
    if not image or not filters or min(len(image), len(filters)) < 2:
        return by_name
    return "depthwise" if filters[1] == 1 and image[1] != 1 else "conv"


def _shape(value: Value | None) -> tuple[Dim, ...] | None:
    """The shape of a tensor; None for what is missing, no tensor or of unknown rank."""
    if value is None or not isinstance(value.type, TensorType):
        return None
    return value.type.shape
