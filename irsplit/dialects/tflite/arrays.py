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
    """The elements of a constant; packed 4-bit and 2-bit ones widened, strings as objects of bytes.

    Raises UnsupportedError for sparse constants, which a DENSIFY node of the model unpacks, and for constants without
    data; ModelError when the bytes are not as many as the type asks for.
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
    count = type.elements() or 0
    bits = type.dtype.bits
    if not bits:
        raise ValueError(f"elements of type {type.dtype} are not stored")
    packed = np.frombuffer(data, np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (packed[:, np.newaxis] >> shifts).reshape(-1)[:count] & ((1 << bits) - 1)
    if type.dtype in (dtypes.U4, dtypes.U2):
        return fields
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
    result = np.empty(count, object)
    result[:] = [bytes(data[start:end]) for start, end in pairwise(offsets)]
    return result
