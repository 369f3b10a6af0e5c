"""Affine quantization as nodes of ONNX: QuantizeLinear and DequantizeLinear, or arithmetic where the operator set of
the model does not have them yet; Cast around them for half precision."""

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

_BROADCASTING, _LINEAR, _CLIP_BY_INPUTS, _LINEAR_BY_CHANNEL = 7, 10, 11, 13
"""The operator sets that brought these."""
_REALS = (dtypes.F32, dtypes.F16, dtypes.BF16)


def affine(model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
    """New constants, and the nodes that compute `target` from `source`, one of which has a quantized type.

    Raises UnsupportedError for element types and operator sets that ONNX's own operators do not serve.
    """
    stored = target if _type(target).quantization is not None else source
    opset, real = model.native.opsets.get("", 0), source if stored is target else target
    if opset < _BROADCASTING or _type(real).dtype not in _REALS:
        raise UnsupportedError(
            f"{real}: {_type(real).dtype} in operator set {opset} cannot be quantized in the graph (f32, f16, bf16; "
            f"from {_BROADCASTING} on); convert the model, or leave quantization to the runtime"
        )
    maker = _Maker(stored, opset)
    if stored is target:
        maker.quantize(source)
    else:
        maker.dequantize(target)
    return maker.constants, maker.nodes


class _Maker:
    """Nodes beside one stored tensor; what they need is named after it."""

    def __init__(self, stored: Value, opset: int) -> None:
        self.stored, self.opset = stored, opset
        self.affine: Quantization = _type(stored).quantization or Quantization((1.0,), (0,))
        self.constants: list[Value] = []
        self.nodes: list[Node] = []

    @property
    def is_linear(self) -> bool:
        return self.opset >= (_LINEAR if self.affine.axis is None else _LINEAR_BY_CHANNEL)

    def quantize(self, real: Value) -> None:
        wide = real if _type(real).dtype == dtypes.F32 else self.cast(real, self.inner("f32"))
        if self.is_linear:
            self.linear("QuantizeLinear", wide, self.stored)
            return
        scaled = self.node(
            "Div", (wide, self.spread("scale", self.affine.scale)), self.inner("scaled")
        )
        # half a step up, and down to the integer below: the nearest one
        halves = [zero + 0.5 for zero in self.affine.zero_point]
        moved = self.node("Add", (scaled, self.spread("half", halves)), self.inner("moved"))
        nearest = self.clip(self.node("Floor", (moved,), self.inner("nearest")))
        self.cast(nearest, self.stored)

    def dequantize(self, real: Value) -> None:
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
        dims = () if self.affine.axis is None else (len(self.affine.scale),)
        scale = self.constant("scale", self.affine.scale, dtypes.F32, dims)
        zero = self.constant("zero_point", self.affine.zero_point, _type(self.stored).dtype, dims)
        axis: dict[str, Attribute] = {} if self.affine.axis is None else {"axis": self.affine.axis}
        self.node(op, (source, scale, zero), target, axis)

    def clip(self, value: Value) -> Value:
        """To what the stored type holds: a cast of more is not defined."""
        storage = _type(self.stored).dtype.storage
        low, high = (-128, 127) if storage == np.int8 else (0, 255)
        if self.opset < _CLIP_BY_INPUTS:
            return self.node(
                "Clip", (value,), self.inner("clipped"), {"min": float(low), "max": float(high)}
            )
        ends = [
            self.constant(name, [end], dtypes.F32, ())
            for name, end in (("low", low), ("high", high))
        ]
        return self.node("Clip", (value, *ends), self.inner("clipped"))

    def cast(self, source: Value, target: Value) -> Value:
        return self.node(
            "Cast", (source,), target, {"to": schema.ELEMENT_CODES[_type(target).dtype]}
        )

    def node(
        self,
        op: str,
        inputs: Sequence[Value],
        output: Value,
        attributes: dict[str, Attribute] | None = None,
    ) -> Value:
        self.nodes.append(Node(f"onnx.{op}", inputs, (output,), attributes=attributes))
        return output

    def inner(self, suffix: str) -> Value:
        return Value(
            f"{self.stored.name}_{suffix}", TensorType(dtypes.F32, _type(self.stored).shape)
        )

    def spread(self, suffix: str, numbers: Sequence[float]) -> Value:
        """One number, or one a channel with the shape that broadcasting wants."""
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
