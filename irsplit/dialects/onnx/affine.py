"""Affine quantization as ONNX nodes.

The nodes are QuantizeLinear and DequantizeLinear where the model's operator set has them, and
arithmetic where it does not. Half precision is cast to f32 before and from f32 after.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irsplit.base import dtypes
from irsplit.base.dtypes import DType
from irsplit.base.errors import UnsupportedError
from irsplit.base.lazy import LazyModule
from irsplit.dialects.onnx import schema
from irsplit.ir import Attribute, Constant, Model, Node, Quantization, TensorType, Value

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

# Versions of the default operator set that introduced what the nodes need.
_BROADCASTING = 7
_LINEAR = 10
_CLIP_BY_INPUTS = 11
_LINEAR_BY_CHANNEL = 13

_REALS = (dtypes.F32, dtypes.F16, dtypes.BF16)


def affine(model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
    """Make the nodes that quantize or dequantize a value.

    Args:
        model: The model that the nodes will be part of; its operator set decides which they are.
        source: The value to convert.
        target: The value to compute. Exactly one of the two has a quantized type.

    Returns:
        New constants, and the nodes that compute `target` from `source`.

    Raises:
        UnsupportedError: ONNX has no operators for this element type in this operator set.
    """
    quantizes = _type(target).quantization is not None
    stored, real = (target, source) if quantizes else (source, target)
    opset = model.native.opsets.get("", 0)
    if opset < _BROADCASTING or _type(real).dtype not in _REALS:
        raise UnsupportedError(
            f"{real}: {_type(real).dtype} in operator set {opset} cannot be quantized in the graph "
            f"(f32, f16, bf16; from {_BROADCASTING} on); convert the model, or leave quantization "
            "to the runtime"
        )

    maker = _Maker(stored, opset)
    if quantizes:
        maker.quantize(source)
    else:
        maker.dequantize(target)
    return maker.constants, maker.nodes


class _Maker:
    """Makes the nodes between a stored (quantized) value and a real one.

    The names of new values begin with the name of the stored one.
    """

    def __init__(self, stored: Value, opset: int) -> None:
        self.stored = stored
        self.opset = opset
        self.affine: Quantization = _type(stored).quantization or Quantization((1.0,), (0,))
        self.constants: list[Value] = []
        self.nodes: list[Node] = []

    @property
    def is_linear(self) -> bool:
        """Whether the operator set has QuantizeLinear for this quantization."""
        return self.opset >= (_LINEAR if self.affine.axis is None else _LINEAR_BY_CHANNEL)

    def quantize(self, real: Value) -> None:
        """Add the nodes that compute the stored value."""
        wide = real if _type(real).dtype == dtypes.F32 else self.cast(real, self.inner("f32"))
        if self.is_linear:
            self.linear("QuantizeLinear", wide, self.stored)
            return

        scale = self.spread("scale", self.affine.scale)
        scaled = self.node("Div", (wide, scale), self.inner("scaled"))

        # Half a step up, then down to the integer below: that is the nearest integer.
        halves = [zero + 0.5 for zero in self.affine.zero_point]
        moved = self.node("Add", (scaled, self.spread("half", halves)), self.inner("moved"))
        nearest = self.clip(self.node("Floor", (moved,), self.inner("nearest")))
        self.cast(nearest, self.stored)

    def dequantize(self, real: Value) -> None:
        """Add the nodes that compute the real value."""
        is_f32 = _type(real).dtype == dtypes.F32
        wide = real if is_f32 else self.inner("f32")
        if self.is_linear:
            self.linear("DequantizeLinear", self.stored, wide)
        else:
            number = self.cast(self.stored, self.inner("number"))
            zeros = self.spread("zero_point", self.affine.zero_point)
            steps = self.node("Sub", (number, zeros), self.inner("steps"))
            self.node("Mul", (steps, self.spread("scale", self.affine.scale)), wide)

        if not is_f32:
            self.cast(wide, real)

    def linear(self, op: str, source: Value, target: Value) -> None:
        """Add a QuantizeLinear or DequantizeLinear."""
        dims = () if self.affine.axis is None else (len(self.affine.scale),)
        scale = self.constant("scale", self.affine.scale, dtypes.F32, dims)
        zero = self.constant("zero_point", self.affine.zero_point, _type(self.stored).dtype, dims)
        axis: dict[str, Attribute] = {} if self.affine.axis is None else {"axis": self.affine.axis}
        self.node(op, (source, scale, zero), target, axis)

    def clip(self, value: Value) -> Value:
        """Limit a value to what the stored type holds: casting more than that is undefined."""
        storage = _type(self.stored).dtype.storage
        low, high = (-128, 127) if storage == np.int8 else (0, 255)
        clipped = self.inner("clipped")
        if self.opset < _CLIP_BY_INPUTS:
            return self.node("Clip", (value,), clipped, {"min": float(low), "max": float(high)})

        lowest = self.constant("low", [low], dtypes.F32, ())
        highest = self.constant("high", [high], dtypes.F32, ())
        return self.node("Clip", (value, lowest, highest), clipped)

    def cast(self, source: Value, target: Value) -> Value:
        code = schema.ELEMENT_CODES[_type(target).dtype]
        return self.node("Cast", (source,), target, {"to": code})

    def node(
        self,
        op: str,
        inputs: Sequence[Value],
        output: Value,
        attributes: dict[str, Attribute] | None = None,
    ) -> Value:
        """Add a node; returns its output."""
        self.nodes.append(Node(f"onnx.{op}", inputs, (output,), attributes=attributes))
        return output

    def inner(self, suffix: str) -> Value:
        """A new f32 value with the shape of the stored one."""
        type = TensorType(dtypes.F32, _type(self.stored).shape)
        return Value(f"{self.stored.name}_{suffix}", type)

    def spread(self, suffix: str, numbers: Sequence[float]) -> Value:
        """A constant of one number, or of one per channel, that broadcasts to the stored shape."""
        axis, rank = self.affine.axis, len(_type(self.stored).shape or ())
        dims = () if axis is None else (len(numbers), *(1,) * (rank - 1 - axis))
        return self.constant(suffix, numbers, dtypes.F32, dims)

    def constant(
        self, suffix: str, numbers: Sequence[float], dtype: DType, dims: tuple[int, ...]
    ) -> Value:
        data = Constant.of(np.array(numbers, dtype.storage).tobytes())
        self.constants.append(Value(f"{self.stored.name}_{suffix}", TensorType(dtype, dims), data))
        return self.constants[-1]


def _type(value: Value) -> TensorType:
    assert isinstance(value.type, TensorType), f"{value} is no tensor"
    return value.type
