"""Affine quantization as nodes of TFLite: QUANTIZE and DEQUANTIZE; scale and zero point are in the tensor's type."""

from irsplit.base import dtypes
from irsplit.base.errors import UnsupportedError
from irsplit.ir import Model, Node, Quantization, TensorType, Value


def affine(model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
    """New constants (none), and the node that computes `target` from `source`, one of which has a quantized type.

    Raises UnsupportedError for what the engines' kernels do not take.
    """
    into = _quantization(target)
    stored, real = (into, source) if into is not None else (_quantization(source), target)
    if not isinstance(real.type, TensorType) or real.type.dtype != dtypes.F32:
        raise UnsupportedError(
            f"{real}: QUANTIZE takes f32 alone; leave quantization to the runtime"
        )
    if stored is not None and stored.axis is not None:
        raise UnsupportedError(
            f"{real}: QUANTIZE has one scale for all channels; leave per-channel out"
        )
    return [], [
        Node("tflite.DEQUANTIZE" if into is None else "tflite.QUANTIZE", (source,), (target,))
    ]


def _quantization(value: Value) -> Quantization | None:
    return value.type.quantization if isinstance(value.type, TensorType) else None
