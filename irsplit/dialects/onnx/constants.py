"""Elements of values that are known before the model runs."""

from typing import TYPE_CHECKING, Any

from irsplit.base.lazy import LazyModule
from irsplit.dialects.onnx.attributes import attribute_tensor, late_reading, read_attributes
from irsplit.dialects.onnx.tensors import array_of, tensor_array
from irsplit.ir import TensorType, Value

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


def constant_array(value: Value) -> Any:
    """The elements of a constant or of a Constant node's result; None when they are not known, or not a tensor's."""
    node = value.producer
    if value.constant is not None:
        with late_reading(f"constant {value}"):
            return (
                array_of(value.type, value.constant) if isinstance(value.type, TensorType) else None
            )
    if node is None or node.op != "onnx.Constant":
        return None
    tensor = attribute_tensor(node, "value")
    if tensor is not None:
        with late_reading(f"constant {value}"):
            return tensor_array(node.native.buffer.view[tensor.start : tensor.stop])
    for name, item in read_attributes(node).items():
        if name.startswith("value_"):
            return np.asarray(item, np.float32 if "float" in name else None)
    return None
