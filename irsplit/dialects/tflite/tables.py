"""New tables for what passes add: tensors and operator codes that the source does not have."""

from irsplit.base.errors import UnsupportedError, short
from irsplit.dialects.tflite.builder import Edit, FieldValue, new
from irsplit.dialects.tflite.operators import NUMBERS
from irsplit.dialects.tflite.tensors import NUMBERS as TYPE_NUMBERS
from irsplit.ir import TensorType, Value

CUSTOM = "custom."
DEPRECATED_MAXIMUM = 127
"""The deprecated field of an operator code has one byte; this number refers to the other field."""


def new_operator_code(op: str) -> Edit:
    """The operator code of an operator in its first version.

    Args:
        op: The operator, such as `tflite.ADD` or `tflite.custom.Name`.

    Raises:
        UnsupportedError: TFLite has no such operator.
    """
    name = op.removeprefix("tflite.")
    if name.startswith(CUSTOM):
        number = NUMBERS["CUSTOM"]
        return new(
            "OperatorCode",
            deprecated_builtin_code=number,
            builtin_code=number,
            custom_code=name[len(CUSTOM) :],
        )

    if name not in NUMBERS:
        raise UnsupportedError(
            f"{short(op)} is no operator of TFLite; lower it to operators of TFLite before writing"
        )

    number = NUMBERS[name]
    return new(
        "OperatorCode",
        deprecated_builtin_code=min(number, DEPRECATED_MAXIMUM),
        builtin_code=number,
        version=1,
    )


def new_tensor(value: Value, buffer: int) -> Edit:
    """The tensor of a value, from its type.

    Args:
        value: The value, which needs a known element type and rank.
        buffer: The number of the buffer that has the value's bytes; 0 without bytes.

    Raises:
        UnsupportedError: TFLite has no such type.
    """
    type = value.type
    if not isinstance(type, TensorType) or type.dtype not in TYPE_NUMBERS or type.shape is None:
        raise UnsupportedError(
            f"{value} of type {type} has no tensor type in TFLite; give it a known one"
        )

    fields: dict[str, FieldValue] = {
        "shape": [dim if isinstance(dim, int) else 1 for dim in type.shape],
        "type": TYPE_NUMBERS[type.dtype],
        "buffer": buffer,
        "name": value.name,
        "has_rank": True,
    }
    if not type.is_static:
        fields["shape_signature"] = [dim if isinstance(dim, int) else -1 for dim in type.shape]

    quantization = type.quantization
    if quantization is not None:
        fields["quantization"] = new(
            "QuantizationParameters",
            scale=quantization.scale,
            zero_point=quantization.zero_point,
            quantized_dimension=quantization.axis or 0,
        )
    return new("Tensor", **fields)
