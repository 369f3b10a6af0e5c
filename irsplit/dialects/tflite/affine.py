"""Affine quantization as nodes: QUANTIZE and DEQUANTIZE, with scale and zero point in the type."""

from irsplit.base import dtypes
from irsplit.base.errors import UnsupportedError
from irsplit.ir import Model, Node, Quantization, TensorType, Value


def affine(model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
    """Make the node that quantizes a value, or dequantizes one.

    Args:
        model: The model that gets the node; it is not changed.
        source: The value to read.
        target: The value to compute. Either it or `source` has a quantized type.

    Returns:
        New constants, of which there are none, and the node.

    Raises:
        UnsupportedError: The kernels of the engines do not take these types.
    """
    into = _quantization(target)
    if into is not None:
        op, stored, real = "tflite.QUANTIZE", into, source
    else:
        op, stored, real = "tflite.DEQUANTIZE", _quantization(source), target

    if not isinstance(real.type, TensorType) or real.type.dtype != dtypes.F32:
        raise UnsupportedError(
            f"{real}: QUANTIZE takes f32 alone; leave quantization to the runtime"
        )
    if stored is not None and stored.axis is not None:
        raise UnsupportedError(
            f"{real}: QUANTIZE has one scale for all channels; leave per-channel out"
        )
    return [], [Node(op, (source,), (target,))]


def _quantization(value: Value) -> Quantization | None:
    return value.type.quantization if isinstance(value.type, TensorType) else None
