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
    """Return the elements of a constant, or of the result of a Constant node.

    Returns:
        A numpy array; None when the elements are not known, or the value is no tensor.

    Raises:
        ModelError: The bytes of the constant are damaged.
    """
    if value.constant is not None:
        if not isinstance(value.type, TensorType):
            return None

        with late_reading(f"constant {value}"):
            return array_of(value.type, value.constant)

    node = value.producer
    if node is None or node.op != "onnx.Constant":
        return None

    tensor = attribute_tensor(node, "value")
    if tensor is not None:
        with late_reading(f"constant {value}"):
            return tensor_array(node.native.buffer.view[tensor.start : tensor.stop])

    # Since opset 12 a Constant may hold plain numbers or strings: value_float, value_ints, ...
    for name, item in read_attributes(node).items():
        if name.startswith("value_"):
            return np.asarray(item, np.float32 if "float" in name else None)

    return None
