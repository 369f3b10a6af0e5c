"""Attributes of nodes: read from a NodeProto, or written for a node that a pass made."""

import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from irsplit.base.errors import ModelError, short
from irsplit.base.lazy import LazyModule
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.source import SourceNode
from irsplit.dialects.onnx.wire import (
    Data,
    ProtoField,
    ProtoMessage,
    fields,
    read_int,
    read_ints,
    read_text,
)
from irsplit.ir import Attribute, Node

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

# Values of AttributeProto.AttributeType.
_FLOAT, _INT, _STRING, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 6, 7, 8


@contextmanager
def late_reading(what: str) -> Generator[None]:
    """Turn errors of damaged bytes into a ModelError that names what was read.

    The reader leaves many bytes alone, so damage may show only when somebody looks at them.
    """
    try:
        yield
    except (
        ArithmeticError,
        DecodeError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        reason = short(str(error), 300)
        raise ModelError(f"{what} is damaged: {reason}; fetch the file again") from error


def read_attributes(node: Node) -> dict[str, Attribute]:
    """Read numbers, strings and lists of them, by name. Tensors, graphs and types are left out.

    Raises:
        ModelError: The node's bytes are damaged.
    """
    if not isinstance(node.native, SourceNode):
        return dict(node.attributes)

    data = node.native.buffer.view
    attributes: dict[str, Attribute] = {}

    with late_reading(f"{node} of {node.native.buffer.name}"):
        for message in _messages(node.native):
            name, value = _attribute(data, message)
            if value is not None:
                attributes[name] = value

    return attributes


def attribute_tensor(node: Node, name: str) -> ProtoField | None:
    """Find the TensorProto of a tensor attribute in the node's buffer; None if there is none.

    Raises:
        ModelError: The node's bytes are damaged.
    """
    if not isinstance(node.native, SourceNode):
        return None

    data = node.native.buffer.view

    with late_reading(f"{node} of {node.native.buffer.name}"):
        for message in _messages(node.native):
            by_key = {field.key: field for field in fields(data, message.start, message.stop)}
            label = by_key.get(schema.ATTRIBUTE_NAME)
            if label is not None and read_text(data, label.start, label.stop) == name:
                return by_key.get(schema.ATTRIBUTE_TENSOR)

    return None


def _messages(node: SourceNode) -> list[ProtoField]:
    """The AttributeProtos of a node."""
    all_fields = fields(node.buffer.view, node.message.start, node.message.stop)
    return [field for field in all_fields if field.key == schema.NODE_ATTRIBUTE]


def body_messages(data: Data, node: ProtoField) -> list[ProtoField]:
    """Find the GraphProtos in the attributes of the NodeProto, in order."""
    bodies: list[ProtoField] = []
    for attribute in fields(data, node.start, node.stop):
        if attribute.key != schema.NODE_ATTRIBUTE:
            continue

        for field in fields(data, attribute.start, attribute.stop):
            if field.key in schema.ATTRIBUTE_BODIES:
                bodies.append(field)

    return bodies


def _attribute(data: Data, message: ProtoField) -> tuple[str, Attribute]:
    """Name and value of an AttributeProto; the value is None for what is left out."""
    name, value = "", None
    integers: list[int] = []
    floats: list[float] = []
    strings: list[bytes] = []

    # The field that holds the value says its type; the type field is not needed.
    for field in fields(data, message.start, message.stop):
        payload = data[field.start : field.stop]
        match field.key:
            case schema.ATTRIBUTE_NAME:
                name = read_text(data, field.start, field.stop)
            case schema.ATTRIBUTE_INT:
                value = read_int(data, field.start, field.stop)
            case schema.ATTRIBUTE_FLOAT:
                (value,) = struct.unpack("<f", payload)
            case schema.ATTRIBUTE_STRING:
                value = bytes(payload)
            case schema.ATTRIBUTE_INTS | schema.ATTRIBUTE_INTS_PACKED:
                integers += read_ints(data, field.start, field.stop)
            case schema.ATTRIBUTE_FLOATS | schema.ATTRIBUTE_FLOATS_PACKED:
                floats += np.frombuffer(payload, "<f4").tolist()
            case schema.ATTRIBUTE_STRINGS:
                strings.append(bytes(payload))
            case _:
                pass

    if value is None:
        value = integers or floats or strings or None
    return name, value


def attribute_message(name: str, value: Attribute) -> ProtoMessage:
    """Make an AttributeProto.

    A list has the type of its first item. An empty list is one of integers.
    """
    message = ProtoMessage()
    message.text(schema.ATTRIBUTE_NAME, name)

    match value:
        case int():
            message.number(schema.ATTRIBUTE_INT, int(value))
            kind = _INT
        case float():
            message.raw(bytes([schema.ATTRIBUTE_FLOAT]) + struct.pack("<f", value))
            kind = _FLOAT
        case str() | bytes():
            message.bytes(schema.ATTRIBUTE_STRING, _bytes(value))
            kind = _STRING
        case None:
            raise TypeError(f"attribute {name} has no value")
        case _:
            kind = _list(message, value)

    message.number(schema.ATTRIBUTE_TYPE, kind)
    return message


def _list(message: ProtoMessage, items: Sequence[Attribute]) -> int:
    """Add the items to an AttributeProto. Returns its type."""
    if items and isinstance(items[0], str | bytes):
        for item in items:
            message.bytes(schema.ATTRIBUTE_STRINGS, _bytes(item))
        return _STRINGS

    if items and isinstance(items[0], float):
        message.bytes(schema.ATTRIBUTE_FLOATS_PACKED, np.asarray(items, "<f4").tobytes())
        return _FLOATS

    for item in np.asarray(items, np.int64).tolist():
        message.number(schema.ATTRIBUTE_INTS, item)

    return _INTS


def _bytes(value: Attribute) -> bytes:
    assert isinstance(value, str | bytes)
    return value.encode() if isinstance(value, str) else value
