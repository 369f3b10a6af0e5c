"""TensorProto and SparseTensorProto: finds type and bytes without touching the bytes."""

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from irsplit.base.errors import short
from irsplit.base.lazy import LazyModule
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.external import DataFiles
from irsplit.dialects.onnx.typeinfo import MOST_DIMS, element_type
from irsplit.dialects.onnx.wire import (
    WireError,
    fields,
    last_fields,
    read_int,
    read_ints,
    read_text,
    scan,
    text_of,
)
from irsplit.ir import Buffer, Constant, TensorType, Type

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from onnx import numpy_helper
else:
    np = LazyModule("numpy")
    onnx = LazyModule("onnx")
    numpy_helper = LazyModule("onnx.numpy_helper")

TENSOR = "onnx.tensor"
"""Encoding of a constant that is a whole TensorProto, because it has typed fields or strings."""

SPARSE = "onnx.sparse"
"""Encoding of a constant that is a whole SparseTensorProto."""

_MOST_BYTES = 1 << 28
"""Most bytes of a sparse tensor that is made dense: a few bytes of a file may claim any size."""

_PACKED_AS_RAW = (schema.TENSOR_FLOATS_PACKED, schema.TENSOR_DOUBLES_PACKED)
"""Packed floats and doubles are the very bytes that raw data would be."""


class OnnxTensor(NamedTuple):
    """A tensor of the file: its name, its type and where its elements lie."""

    name: str
    type: Type
    constant: Constant


# -- reading --------------------------------------------------------------------------------------


def read_tensor(
    buffer: Buffer, start: int, stop: int, files: DataFiles, default_name: str = ""
) -> OnnxTensor:
    """Read a TensorProto, but not its elements.

    Elements that lie in the file as raw data need would become a plain constant. Others (typed
    fields, strings) stay a TensorProto.

    Args:
        buffer: The model file.
        start: Offset of the message.
        stop: Offset behind the message.
        files: The data files of the model.
        default_name: Name of a tensor that has none of its own.

    Raises:
        ModelError: A data file does not hold the elements.
        WireError: The message is damaged, or sizes do not match.
    """
    data = buffer.view
    dims: list[int] = []
    entries: dict[str, str] = {}
    code, name, is_external, has_typed = 0, default_name, False, False
    raw = packed = None

    for key, _, begin, end in scan(data, start, stop):
        if key == schema.TENSOR_DIMS or key == schema.TENSOR_DIMS_PACKED:
            dims += read_ints(data, begin, end)
        elif key == schema.TENSOR_TYPE:
            code = read_int(data, begin, end)
        elif key == schema.TENSOR_NAME:
            name = read_text(data, begin, end) or default_name
        elif key == schema.TENSOR_RAW:
            raw = begin, end
        elif key == schema.TENSOR_EXTERNAL:
            entries.update([read_entry(buffer, begin, end)])
        elif key == schema.TENSOR_LOCATION:
            is_external = read_int(data, begin, end) == schema.LOCATION_EXTERNAL
        elif key >> 3 in schema.TYPED_FIELDS:
            # Several typed fields continue each other, so only a single one can stand for raw data.
            packed = (begin, end) if not has_typed and key in _PACKED_AS_RAW else None
            has_typed = True

    _check_dims(dims, name, start)
    type = element_type(code, tuple(dims))
    size = type.size_bytes() if isinstance(type, TensorType) else None
    if is_external:
        return OnnxTensor(name, type, files.constant(name, entries, size))

    # Packed numbers are raw data too, if they are as many as the type needs.
    raw = raw or _of_size(packed, size)
    if raw is None:
        return OnnxTensor(name, type, Constant(buffer, start, stop - start, TENSOR))

    begin, end = raw
    if size is not None and end - begin != size:
        raise WireError(
            begin, f"tensor '{short(name)}' needs {size} bytes of data, but has {end - begin}"
        )

    return OnnxTensor(name, type, Constant(buffer, begin, end - begin))


def _of_size(span: tuple[int, int] | None, size: int | None) -> tuple[int, int] | None:
    """The span if it has `size` bytes, else None."""
    return span if span is not None and span[1] - span[0] == size else None


def read_sparse(buffer: Buffer, start: int, stop: int, files: DataFiles) -> OnnxTensor:
    """Read a SparseTensorProto, but not its elements. Its name is that of its values.

    Raises:
        ModelError: A data file does not hold the values.
        WireError: The message is damaged, or sizes do not match.
    """
    data = buffer.view
    dims: list[int] = []
    values = None

    for field in fields(data, start, stop):
        if field.key == schema.SPARSE_VALUES:
            values = read_tensor(buffer, field.start, field.stop, files)
        elif field.key in (schema.SPARSE_DIMS, schema.SPARSE_DIMS_PACKED):
            dims += read_ints(data, field.start, field.stop)

    if values is None:
        raise WireError(start, "a sparse tensor has no values")

    _check_dims(dims, values.name, start)
    dense = values.type
    type = TensorType(dense.dtype, tuple(dims)) if isinstance(dense, TensorType) else dense
    return OnnxTensor(values.name, type, Constant(buffer, start, stop - start, SPARSE))


def _check_dims(dims: list[int], name: str, start: int) -> None:
    if len(dims) > MOST_DIMS:
        raise WireError(
            start, f"tensor '{short(name)}' has {len(dims)} dimensions; {MOST_DIMS} are the most"
        )
    if any(dim < 0 for dim in dims):
        raise WireError(start, f"tensor '{short(name)}' has a negative dimension: {min(dims)}")


def read_entry(buffer: Buffer, start: int, stop: int) -> tuple[str, str]:
    """Read key and value of a StringStringEntryProto."""
    data = buffer.view
    by_key = last_fields(data, start, stop)
    key = text_of(data, by_key.get(schema.ENTRY_KEY))
    return key, text_of(data, by_key.get(schema.ENTRY_VALUE))


# -- elements -------------------------------------------------------------------------------------


def array_of(type: TensorType, constant: Constant) -> Any:
    """Return the elements as a numpy array: a view of the file where the type allows it."""
    if constant.encoding == TENSOR:
        return tensor_array(constant.view())
    if constant.encoding == SPARSE:
        return _dense(onnx.SparseTensorProto.FromString(constant.view().tobytes()))

    shape = [dim for dim in type.shape or () if isinstance(dim, int)]
    if type.dtype.storage is not None:
        return np.frombuffer(constant.view(), type.dtype.storage).reshape(shape)

    # The onnx package unpacks elements that numpy has no type for.
    packed = onnx.TensorProto(dims=shape, data_type=schema.ELEMENT_CODES[type.dtype])
    packed.raw_data = constant.view().tobytes()
    return numpy_helper.to_array(packed)


def tensor_array(message: memoryview) -> Any:
    """Return the elements of a TensorProto as a numpy array, which is a copy."""
    return numpy_helper.to_array(onnx.TensorProto.FromString(message.tobytes()))


def _dense(sparse: "onnx.SparseTensorProto") -> Any:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if prod(sparse.dims) * values.dtype.itemsize > _MOST_BYTES:
        raise ValueError(
            f"{prod(sparse.dims)} elements of a sparse tensor are too many to write out"
        )

    # Indices are positions in the flattened tensor, or one row of coordinates per value.
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense
