"""Attributes of a node: scalars and lists read from its NodeProto, or written for a node that passes made."""

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

_FLOAT, _INT, _STRING, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 6, 7, 8
"""AttributeProto.AttributeType."""


@contextmanager
def late_reading(what: str) -> Generator[None]:
    """Bytes that `read` left alone may turn out damaged when somebody looks: ModelError says which."""
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
        raise ModelError(
            f"{what} is damaged: {short(str(error), 300)}; fetch the file again"
        ) from error


def read_attributes(node: Node) -> dict[str, Attribute]:
    """Numbers, strings and lists of them by name; tensors, graphs and types are left out. Raises ModelError."""
    if not isinstance(node.native, SourceNode):
        return dict(node.attributes)
    data = node.native.buffer.view
    with late_reading(f"{node} of {node.native.buffer.name}"):
        found = [_attribute(data, message) for message in _messages(node.native)]
    return {name: value for name, value in found if value is not None}


def attribute_tensor(node: Node, name: str) -> ProtoField | None:
    """Where the TensorProto of a tensor attribute lies in the node's buffer. Raises ModelError."""
    if not isinstance(node.native, SourceNode):
        return None
    data = node.native.buffer.view
    with late_reading(f"{node} of {node.native.buffer.name}"):
        for message in _messages(node.native):
            parts = {part.key: part for part in fields(data, message.start, message.stop)}
            label = parts.get(schema.ATTRIBUTE_NAME)
            if label is not None and read_text(data, label.start, label.stop) == name:
                return parts.get(schema.ATTRIBUTE_TENSOR)
    return None


def _messages(node: SourceNode) -> list[ProtoField]:
    found = fields(node.buffer.view, node.message.start, node.message.stop)
    return [field for field in found if field.key == schema.NODE_ATTRIBUTE]


def body_messages(data: Data, node: ProtoField) -> list[ProtoField]:
    """The GraphProtos in the attributes of a NodeProto, in order."""
    return [
        body
        for attribute in fields(data, node.start, node.stop)
        if attribute.key == schema.NODE_ATTRIBUTE
        for body in fields(data, attribute.start, attribute.stop)
        if body.key in schema.ATTRIBUTE_BODIES
    ]


def _attribute(data: Data, message: ProtoField) -> tuple[str, Attribute]:
    name, value = "", None
    integers: list[int] = []
    floats: list[float] = []
    strings: list[bytes] = []
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
    return name, value if value is not None else integers or floats or strings or None


def attribute_message(name: str, value: Attribute) -> ProtoMessage:
    """An AttributeProto; a list has the type of its first item, an empty one is a list of integers."""
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
