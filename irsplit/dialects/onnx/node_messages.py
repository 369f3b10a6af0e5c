"""NodeProtos: reads what wiring needs, and leaves the attributes where they are."""

from pathlib import Path
from typing import NamedTuple

from irsplit.base.errors import UnsupportedError, short
from irsplit.dialects.onnx import operators, schema
from irsplit.dialects.onnx.wire import Data, ProtoField, WireError, fields, read_int, scan

_SMALL = 4096
"""Messages below this size are copied before they are searched, because that is faster."""

_EXTERNAL = bytes([schema.TENSOR_LOCATION, schema.LOCATION_EXTERNAL])
_BODY_KEYS = frozenset(schema.ATTRIBUTE_BODIES)
_TEXTS = frozenset(
    (schema.NODE_NAME, schema.NODE_OP, schema.NODE_DOMAIN, schema.NODE_OVERLOAD),
)


class NodeMessage(NamedTuple):
    """What a NodeProto says of itself."""

    message: ProtoField
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    op: str
    domain: str
    overload: str
    attributes: list[tuple[int, int]]
    """Start and stop of the attributes that may hold bodies."""
    weight: ProtoField | None
    """The tensor of a Constant node that lies in another file."""


def read_node(data: Data, message: ProtoField, path: Path) -> NodeMessage:
    """Read a NodeProto, except for its attributes.

    Args:
        data: The model file.
        message: The NodeProto.
        path: The model file, for error messages.

    Raises:
        WireError: The message is damaged or names no operator.
        UnsupportedError: An attribute of something other than a Constant lies in another file.
    """
    start, stop = message.start, message.stop
    node = data[start:stop]
    if stop - start < _SMALL:
        node = bytes(node)  # indexing bytes is faster than indexing a memoryview

    inputs: list[str] = []
    outputs: list[str] = []
    texts: dict[int, str] = {}
    attributes: list[tuple[int, int]] = []
    external: list[ProtoField] = []

    for key, _, begin, end in scan(node, 0, stop - start, start):
        if key == schema.NODE_INPUT:
            inputs.append(str(node[begin:end], "utf-8"))
        elif key == schema.NODE_OUTPUT:
            outputs.append(str(node[begin:end], "utf-8"))
        elif key in _TEXTS:
            texts[key] = str(node[begin:end], "utf-8")
        # Two quick looks at the bytes tell which of the many attributes need a closer one.
        elif key == schema.NODE_ATTRIBUTE:
            attribute = node[begin:end]
            if may_hold_bodies(attribute):
                attributes.append((start + begin, start + end))
            if end - begin < _SMALL and _EXTERNAL in bytes(attribute):
                external += _external_tensors(data, start + begin, start + end)

    name, op = texts.get(schema.NODE_NAME, ""), texts.get(schema.NODE_OP, "")
    domain = operators.plain_domain(texts.get(schema.NODE_DOMAIN, ""))
    if not op:
        raise WireError(message.head, f"node '{short(name)}' names no operator")
    if external and (op != "Constant" or domain or len(outputs) != 1 or not outputs[0]):
        raise UnsupportedError(
            f"{path}: node '{short(name)}' at byte {message.head} keeps an attribute in another "
            "file; write it inside of the model: onnx.save(onnx.load(MODEL), NEW)"
        )

    return NodeMessage(
        message,
        tuple(inputs),
        tuple(outputs),
        name,
        op,
        domain,
        texts.get(schema.NODE_OVERLOAD, ""),
        attributes,
        external[0] if external else None,
    )


def may_hold_bodies(attribute: Data) -> bool:
    """Whether the key of a graph occurs anywhere in these bytes.

    Most attributes are short and have no such byte, so they need no closer look.
    """
    return len(attribute) >= _SMALL or not _BODY_KEYS.isdisjoint(attribute)


def read_bodies(data: Data, node: NodeMessage) -> list[ProtoField]:
    """List the GraphProtos in the attributes of a node, in order."""
    bodies: list[ProtoField] = []
    for start, stop in node.attributes:
        for field in fields(data, start, stop):
            if field.key in schema.ATTRIBUTE_BODIES:
                bodies.append(field)
    return bodies


def _external_tensors(data: Data, start: int, stop: int) -> list[ProtoField]:
    """The tensors of the attribute at data[start:stop] that lie in other files."""
    tensors: list[ProtoField] = []
    for field in fields(data, start, stop):
        is_tensor = field.key in (schema.ATTRIBUTE_TENSOR, schema.ATTRIBUTE_TENSORS)
        if is_tensor and _is_external(data, field):
            tensors.append(field)
    return tensors


def _is_external(data: Data, tensor: ProtoField) -> bool:
    """Whether a TensorProto says that its elements lie in another file."""
    for field in fields(data, tensor.start, tensor.stop):
        if field.key == schema.TENSOR_LOCATION and read_int(data, field.start, field.stop):
            return True
    return False
