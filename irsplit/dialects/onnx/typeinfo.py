"""TypeProto to types of the IR, and back for values that the source says nothing of."""

from functools import lru_cache

from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.wire import (
    Data,
    ProtoField,
    ProtoMessage,
    WireError,
    fields,
    read_int,
    read_text,
    scan,
)
from irsplit.ir import Dim, OpaqueType, TensorType, Type

MOST_DIMS = 255
"""Most dimensions of a tensor; numpy takes 64, engines fewer."""

_DEEPEST = 32
"""Most levels of types in types (sequences of sequences); protobuf allows no more than 50."""

_NESTED = {schema.TYPE_SEQUENCE: "seq", schema.TYPE_OPTIONAL: "optional"}


@lru_cache(4096)
def element_type(code: int, shape: tuple[Dim, ...] | None) -> Type:
    """Return a tensor type, or an opaque one for an element type that irsplit does not know."""
    dtype = schema.ELEMENT_TYPES.get(code)
    return OpaqueType(f"tensor(type {code})") if dtype is None else TensorType(dtype, shape)


# -- reading --------------------------------------------------------------------------------------


def read_info(
    data: Data, start: int, stop: int, shared: dict[bytes, Type | None]
) -> tuple[str, Type | None]:
    """Read name and type of the ValueInfoProto at data[start:stop].

    Args:
        data: Bytes that contain the message.
        start: Offset of the message.
        stop: Offset behind the message.
        shared: Types by their bytes. A type that occurs often is read once and added here.
    """
    name, type = "", None
    for key, _, begin, end in scan(data, start, stop):
        if key == schema.INFO_NAME:
            name = str(data[begin:end], "utf-8")
        elif key == schema.INFO_TYPE:
            # A large model has few different types: each is read once.
            encoded = bytes(data[begin:end])
            if encoded not in shared:
                shared[encoded] = read_type(data, begin, end)
            type = shared[encoded]

    return name, type


def read_type(data: Data, start: int, stop: int, depth: int = 0) -> Type | None:
    """Read the type in the TypeProto at data[start:stop].

    Args:
        data: Bytes that contain the message.
        start: Offset of the message.
        stop: Offset behind the message.
        depth: Number of types around this one.

    Returns:
        The type; None if the message says nothing.
    """
    if depth > _DEEPEST:
        raise WireError(start, f"types are nested deeper than {_DEEPEST}")

    # A TypeProto holds one kind of type; of several, the first is taken.
    for field in fields(data, start, stop):
        if field.key == schema.TYPE_TENSOR:
            return _tensor(data, field)
        if field.key in _NESTED:
            inner = _inner(data, field, schema.NESTED_TYPE, depth)
            return OpaqueType(f"{_NESTED[field.key]}({inner})")
        if field.key == schema.TYPE_MAP:
            return OpaqueType(f"map({_inner(data, field, schema.MAP_VALUE, depth)})")
        if field.key == schema.TYPE_SPARSE:
            return OpaqueType(f"sparse({_name(_tensor(data, field))})")
        if field.key == schema.TYPE_OPAQUE:
            return OpaqueType("opaque")

    return None


def _tensor(data: Data, message: ProtoField) -> Type | None:
    """The type in a TypeProto.Tensor; None if it names no element type."""
    code, shape = 0, None
    for field in fields(data, message.start, message.stop):
        if field.key == schema.ELEMENT_TYPE:
            code = read_int(data, field.start, field.stop)
        elif field.key == schema.ELEMENT_SHAPE:
            dims = fields(data, field.start, field.stop)
            shape = tuple(_dim(data, dim) for dim in dims if dim.key == schema.SHAPE_DIM)

    if shape is not None and len(shape) > MOST_DIMS:
        return OpaqueType(f"tensor of {len(shape)} dimensions")

    return element_type(code, shape) if code else None


def _dim(data: Data, message: ProtoField) -> Dim:
    """The dimension in a TensorShapeProto.Dimension; a negative number means unknown."""
    for field in fields(data, message.start, message.stop):
        if field.key == schema.DIM_VALUE:
            value = read_int(data, field.start, field.stop)
            return value if value >= 0 else None
        if field.key == schema.DIM_SYMBOL:
            return read_text(data, field.start, field.stop) or None
    return None


def _inner(data: Data, message: ProtoField, key: int, depth: int) -> str:
    """The name of the type inside a sequence, an optional or a map."""
    for field in fields(data, message.start, message.stop):
        if field.key == key:
            return _name(read_type(data, field.start, field.stop, depth + 1))
    return "?"


def _name(type: Type | None) -> str:
    if isinstance(type, TensorType):
        return f"tensor({type.dtype})"
    return "?" if type is None else type.text


# -- writing --------------------------------------------------------------------------------------


def value_info(name: str, type: Type | None) -> ProtoMessage:
    """Make a ValueInfoProto, with the name alone if ONNX has no such type."""
    info = ProtoMessage()
    info.text(schema.INFO_NAME, name)
    if isinstance(type, TensorType) and type.dtype in schema.ELEMENT_CODES:
        info.bytes(schema.INFO_TYPE, _encoded(type))
    return info


@lru_cache(4096)
def _encoded(type: TensorType) -> bytes:
    """The TypeProto of a tensor type."""
    tensor = ProtoMessage()
    tensor.number(schema.ELEMENT_TYPE, schema.ELEMENT_CODES[type.dtype])

    # An empty shape says that the tensor is a scalar, no shape that the rank is unknown.
    if type.shape is not None:
        shape = ProtoMessage()
        for size in type.shape:
            dim = ProtoMessage()
            if isinstance(size, int):
                dim.number(schema.DIM_VALUE, size)
            elif size is not None:
                dim.text(schema.DIM_SYMBOL, size)
            shape.message(schema.SHAPE_DIM, dim)
        tensor.message(schema.ELEMENT_SHAPE, shape)

    wrapped = ProtoMessage()
    wrapped.message(schema.TYPE_TENSOR, tensor)
    return wrapped.tobytes()
