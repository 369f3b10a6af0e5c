"""Constants as numpy arrays."""

from itertools import pairwise
from struct import unpack_from
from typing import TYPE_CHECKING, Any

from irsplit.base import dtypes
from irsplit.base.errors import ModelError, UnsupportedError
from irsplit.base.lazy import LazyModule
from irsplit.ir import TensorType, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = LazyModule("numpy")


def array(value: Value) -> "NDArray[Any]":
    """The elements of a constant as an array.

    Args:
        value: A constant.

    Returns:
        An array of the value's shape. Packed 4-bit and 2-bit elements become bytes, strings become
        objects of type bytes.

    Raises:
        UnsupportedError: The value has no data, or is sparse: a DENSIFY node of the model unpacks
            it when the model runs.
        ModelError: The constant has more or fewer bytes than its type asks for.
    """
    constant, type = value.constant, value.type
    if constant is None or not isinstance(type, TensorType) or type.shape is None:
        raise UnsupportedError(
            f"{value} is no constant tensor; it has no elements before the model runs"
        )
    if constant.encoding != "raw":
        raise UnsupportedError(
            f"{value} is stored as {constant.encoding}; run the model to see its elements"
        )

    shape = tuple(dim if isinstance(dim, int) else -1 for dim in type.shape)
    try:
        return _decode(constant.view(), type).reshape(shape)
    except ValueError as error:
        raise ModelError(
            f"{value} of type {type.dtype}{list(shape)} holds {constant.length} bytes: {error}"
        ) from error


def _decode(data: memoryview, type: TensorType) -> "NDArray[Any]":
    if type.dtype == dtypes.STR:
        return _strings(data)
    if type.dtype.storage is not None:
        return np.frombuffer(data, type.dtype.storage)
    if not type.dtype.bits:
        raise ValueError(f"elements of type {type.dtype} are not stored")
    return _unpack(data, type)


def _unpack(data: memoryview, type: TensorType) -> "NDArray[Any]":
    """Elements of less than a byte, the first one in the lowest bits of each byte."""
    count, bits = type.elements() or 0, type.dtype.bits
    packed = np.frombuffer(data, np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (packed[:, np.newaxis] >> shifts).reshape(-1)[:count] & ((1 << bits) - 1)
    if type.dtype in (dtypes.U4, dtypes.U2):
        return fields

    # Extends the sign: 0b1111 becomes 0b0111, and less the sign's bit, -1.
    sign = 1 << (bits - 1)
    return ((fields ^ sign).astype(np.int8) - np.int8(sign)).astype(np.int8)


def _strings(data: memoryview) -> "NDArray[Any]":
    """A count, one offset more than there are strings, and the bytes of the strings."""
    if len(data) < 4:
        return np.empty(0, object)

    (count,) = unpack_from("<i", data)
    if count < 0 or 4 * (count + 2) > len(data):
        raise ValueError(f"{count} strings do not fit")
    offsets = unpack_from(f"<{count + 1}i", data, 4)
    if list(offsets) != sorted(offsets) or offsets[0] < 0 or offsets[-1] > len(data):
        raise ValueError("the strings lie outside")

    strings = np.empty(count, object)
    strings[:] = [bytes(data[start:end]) for start, end in pairwise(offsets)]
    return strings
