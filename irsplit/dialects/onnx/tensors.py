"""TensorProto and SparseTensorProto: the type and the place of the bytes, without touching them."""

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.external import DataFiles
from irsplit.dialects.onnx.typeinfo import element_type
from irsplit.dialects.onnx.wire import WireError, fields, read_int, read_ints, read_text
from irsplit.ir import Buffer, Constant, TensorType, Type

TENSOR = "onnx.tensor"
"""Encoding of a constant that is a whole TensorProto: typed fields, strings."""
SPARSE = "onnx.sparse"
"""Encoding of a constant that is a whole SparseTensorProto."""


class Tensor(NamedTuple):
    name: str
    type: Type
    constant: Constant


def read_tensor(buffer: Buffer, start: int, stop: int, files: DataFiles) -> Tensor:
    """The tensor at buffer[start:stop]. Raises ModelError for external data out of reach, WireError for bad sizes."""
    data = buffer.view
    dims: list[int] = []
    entries: dict[str, str] = {}
    elements: set[int] = set()
    code, name, external, raw, packed = 0, "", False, None, None
    for field in fields(data, start, stop):
        match field.key:
            case schema.TENSOR_DIMS | schema.TENSOR_DIMS_PACKED:
                dims += read_ints(data, field)
            case schema.TENSOR_TYPE:
                code = read_int(data, field)
            case schema.TENSOR_NAME:
                name = read_text(data, field)
            case schema.TENSOR_RAW:
                raw = field
            case schema.TENSOR_EXTERNAL:
                entries.update([read_entry(buffer, field.start, field.stop)])
            case schema.TENSOR_LOCATION:
                external = read_int(data, field) == schema.LOCATION_EXTERNAL
            case schema.TENSOR_FLOATS_PACKED | schema.TENSOR_DOUBLES_PACKED if not elements:
                packed = field
                elements.add(field.key >> 3)
            case _ if field.key >> 3 in schema.TYPED_FIELDS:
                packed = None
                elements.add(field.key >> 3)
            case _:
                pass
    if any(dim < 0 for dim in dims):
        raise WireError(start, f"tensor '{name}' has a negative dimension: {dims}")
    type = element_type(code, tuple(dims))
    size = type.size_bytes() if isinstance(type, TensorType) else None
    if external:
        return Tensor(name, type, files.constant(name, entries, size))
    if raw is None and size is not None and packed is not None and packed.stop - packed.start == size:
        raw = packed  # packed floats and doubles are the very bytes that raw data would be
    if raw is None:
        return Tensor(name, type, Constant(buffer, start, stop - start, TENSOR))
    if size is not None and raw.stop - raw.start != size:
        raise WireError(raw.start, f"tensor '{name}' needs {size} bytes of data, but has {raw.stop - raw.start}")
    return Tensor(name, type, Constant(buffer, raw.start, raw.stop - raw.start))


def read_sparse(buffer: Buffer, start: int, stop: int, files: DataFiles) -> Tensor:
    """The sparse tensor at buffer[start:stop]; its name is that of its values."""
    data = buffer.view
    dims: list[int] = []
    values = None
    for field in fields(data, start, stop):
        if field.key == schema.SPARSE_VALUES:
            values = read_tensor(buffer, field.start, field.stop, files)
        elif field.key in (schema.SPARSE_DIMS, schema.SPARSE_DIMS_PACKED):
            dims += read_ints(data, field)
    if values is None:
        raise WireError(start, "a sparse tensor has no values")
    dense = values.type
    type = TensorType(dense.dtype, tuple(dims)) if isinstance(dense, TensorType) else dense
    return Tensor(values.name, type, Constant(buffer, start, stop - start, SPARSE))


def read_entry(buffer: Buffer, start: int, stop: int) -> tuple[str, str]:
    """A StringStringEntryProto."""
    data = buffer.view
    key = value = ""
    for field in fields(data, start, stop):
        if field.key == schema.ENTRY_KEY:
            key = read_text(data, field)
        elif field.key == schema.ENTRY_VALUE:
            value = read_text(data, field)
    return key, value


def array_of(type: TensorType, constant: Constant) -> Any:
    """The elements as a numpy array: a view of the file where the type allows it."""
    if constant.encoding == TENSOR:
        return numpy_helper.to_array(onnx.TensorProto.FromString(constant.view().tobytes()))
    if constant.encoding == SPARSE:
        return _dense(onnx.SparseTensorProto.FromString(constant.view().tobytes()))
    shape = [dim for dim in type.shape or () if isinstance(dim, int)]
    if type.dtype.storage is not None:
        return np.frombuffer(constant.view(), type.dtype.storage).reshape(shape)
    packed = onnx.TensorProto(dims=shape, data_type=schema.ELEMENT_CODES[type.dtype])
    packed.raw_data = constant.view().tobytes()
    return numpy_helper.to_array(packed)


def _dense(sparse: onnx.SparseTensorProto) -> Any:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense
