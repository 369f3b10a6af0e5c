"""Types of tensors: element types, dynamic dimensions, affine quantization."""

from irsplit.base import dtypes
from irsplit.base.dtypes import DType
from irsplit.base.errors import UnsupportedError, short
from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.dialects.tflite.schema import ENUMS
from irsplit.ir import Dim, Quantization, TensorType

MOST_DIMS = 255
"""The most dimensions of a tensor; engines take far fewer."""
DTYPES: dict[str, DType] = {
    "FLOAT32": dtypes.F32, "FLOAT16": dtypes.F16, "INT32": dtypes.I32, "UINT8": dtypes.U8,
    "INT64": dtypes.I64, "STRING": dtypes.STR, "BOOL": dtypes.BOOL, "INT16": dtypes.I16,
    "COMPLEX64": dtypes.C64, "INT8": dtypes.I8, "FLOAT64": dtypes.F64, "COMPLEX128": dtypes.C128,
    "UINT64": dtypes.U64, "RESOURCE": dtypes.RESOURCE, "VARIANT": dtypes.VARIANT,
    "UINT32": dtypes.U32, "UINT16": dtypes.U16, "INT4": dtypes.I4, "BFLOAT16": dtypes.BF16,
    "INT2": dtypes.I2, "UINT4": dtypes.U4, "FLOAT8_E4M3FN": dtypes.F8E4M3FN,
    "FLOAT8_E5M2": dtypes.F8E5M2,
}  # fmt: skip
NAMES: tuple[str, ...] = tuple(ENUMS["TensorType"].split())
"""The names of the element types in the schema by number."""
NUMBERS: dict[DType, int] = {DTYPES[name]: number for number, name in enumerate(NAMES)}


def tensor_type(table: Table) -> TensorType:
    """The type of a tensor.

    Args:
        table: A table of the kind Tensor.

    Raises:
        UnsupportedError: The element type is unknown, or there are too many dimensions.
    """
    number = table.integer("type")
    if not 0 <= number < len(NAMES):
        raise UnsupportedError(
            f"{table.source.name}: tensor '{short(table.text('name') or '')}' has element type "
            f"{number}, which is newer than the TFLite schema that irsplit knows; update irsplit"
        )
    return TensorType(DTYPES[NAMES[number]], _shape(table), _quantization(table))


def _shape(table: Table) -> tuple[Dim, ...]:
    """The dimensions; those that may change (negative in the signature) are unknown."""
    shape = table.numbers("shape")
    if len(shape) > MOST_DIMS:
        name = short(table.text("name") or "")
        raise UnsupportedError(
            f"{table.source.name}: tensor '{name}' has {len(shape)} dimensions, and irsplit takes "
            f"{MOST_DIMS}; convert the model again"
        )

    signature = table.numbers("shape_signature")
    dims = signature if len(signature) == len(shape) else shape
    return tuple(None if dim < 0 else dim for dim in dims)


def _quantization(table: Table) -> Quantization | None:
    """The affine quantization; other kinds are in `native` alone."""
    quantization = table.table("quantization")
    if quantization is None:
        return None
    scale = quantization.reals("scale")
    if not scale or quantization.integer("details_type"):
        return None

    zero_point = quantization.numbers("zero_point") or (0,)
    if len(zero_point) == 1:
        zero_point *= len(scale)
    if len(zero_point) != len(scale):
        return None
    axis = quantization.integer("quantized_dimension") if len(scale) > 1 else None
    return Quantization(scale, zero_point, axis)
