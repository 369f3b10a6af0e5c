"""The protobuf messages of the Open Inference Protocol, version 2, built from a table.

They live in a descriptor pool of their own, so that another package's copy of the same messages
(tritonclient, KServe) can be imported beside them. The numbers of messages and fields are those
of the protocol. The protocol nests some of the messages in others; here all are at the top level,
which makes no difference to their bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from irsplit.runtime.serving.protocol.bounds import MOST_PARAMETERS, MOST_TENSORS, check_count
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    Parameter,
    Parameters,
    ServiceError,
    WireTensor,
    check_parameters,
    checked_shape,
    to_bytes,
)

SERVICE = "inference.GRPCInferenceService"

_FIELDS: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("1 live bool",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("1 ready bool",),
    "ModelReadyRequest": ("1 name string", "2 version string"),
    "ModelReadyResponse": ("1 ready bool",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("1 name string", "2 version string", "3 extensions string*"),
    "ModelMetadataRequest": ("1 name string", "2 version string"),
    "TensorMetadata": ("1 name string", "2 datatype string", "3 shape int64*"),
    "ModelMetadataResponse": (
        "1 name string",
        "2 versions string*",
        "3 platform string",
        "4 inputs TensorMetadata*",
        "5 outputs TensorMetadata*",
    ),
    "InferParameter": (
        "1 bool_param bool",
        "2 int64_param int64",
        "3 string_param string",
        "4 double_param double",
        "5 uint64_param uint64",
    ),
    "ParameterEntry": ("1 key string", "2 value InferParameter"),
    "InferTensorContents": (
        "1 bool_contents bool*",
        "2 int_contents int32*",
        "3 int64_contents int64*",
        "4 uint_contents uint32*",
        "5 uint64_contents uint64*",
        "6 fp32_contents float*",
        "7 fp64_contents double*",
        "8 bytes_contents bytes*",
    ),
    "InferTensor": (
        "1 name string",
        "2 datatype string",
        "3 shape int64*",
        "4 parameters ParameterEntry*",
        "5 contents InferTensorContents",
    ),
    "RequestedOutput": ("1 name string", "2 parameters ParameterEntry*"),
    "ModelInferRequest": (
        "1 model_name string",
        "2 model_version string",
        "3 id string",
        "4 parameters ParameterEntry*",
        "5 inputs InferTensor*",
        "6 outputs RequestedOutput*",
        "7 raw_input_contents bytes*",
    ),
    "ModelInferResponse": (
        "1 model_name string",
        "2 model_version string",
        "3 id string",
        "4 parameters ParameterEntry*",
        "5 outputs InferTensor*",
        "6 raw_output_contents bytes*",
    ),
}
_ONEOF = ("InferParameter",)
"""Messages of whose fields only one is set."""

_SCALARS = ("bool", "int32", "int64", "uint32", "uint64", "string", "float", "double", "bytes")
_TYPES = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}") for name in _SCALARS
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    """The table as the descriptor of a .proto file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference_v2.proto", package="inference", syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name in _ONEOF:
            message.oneof_decl.add(name="choice")
        for text in fields:
            _add_field(message, text)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, text: str) -> None:
    """Add a field to a message; its text is a number, a name, and a type with * if repeated."""
    number, name, kind = text.split()
    type_name = kind.rstrip("*")
    scalar = _TYPES.get(type_name)

    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    field.type = field.TYPE_MESSAGE if scalar is None else scalar
    if scalar is None:
        field.type_name = f".inference.{type_name}"
    if message.name in _ONEOF:
        field.oneof_index = 0


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """Return the class of a message of the table, such as "ModelInferRequest"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


_InferParameter = message("InferParameter")
_Entry = message("ParameterEntry")
_InferTensor = message("InferTensor")
_Request = message("ModelInferRequest")
_Response = message("ModelInferResponse")

_CONTENTS = {
    "BOOL": "bool",
    "INT8": "int",
    "INT16": "int",
    "INT32": "int",
    "INT64": "int64",
    "UINT8": "uint",
    "UINT16": "uint",
    "UINT32": "uint",
    "UINT64": "uint64",
    "FP32": "fp32",
    "FP64": "fp64",
    "BYTES": "bytes",
}
"""By datatype: the field of InferTensorContents that has the elements if they are not sent raw."""

_MOST_ELEMENTS = 1 << 22
"""The most elements in such a field: a Python object takes 16 times what a byte of it takes."""

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire types of fields that have a fixed size, and the size."""
_WIDTHS = {"float": 4, "double": 8}
"""Types whose packed elements have a fixed size, and the size."""


def _fields_by_number(fields: tuple[str, ...]) -> dict[int, tuple[str, str]]:
    """Name and type of the fields of a message."""
    by_number: dict[int, tuple[str, str]] = {}
    for text in fields:
        number, name, kind = text.split()
        by_number[int(number)] = (name, kind.rstrip("*"))
    return by_number


_WIRE = {name: _fields_by_number(fields) for name, fields in _FIELDS.items()}
_MOST = {
    ("ModelInferRequest", "inputs"): MOST_TENSORS,
    ("ModelInferRequest", "outputs"): MOST_TENSORS,
    ("ModelInferRequest", "raw_input_contents"): MOST_TENSORS,
    ("ModelInferRequest", "parameters"): MOST_PARAMETERS,
    ("InferTensor", "parameters"): MOST_PARAMETERS,
    ("RequestedOutput", "parameters"): MOST_PARAMETERS,
}
"""How often a field may come."""
_MOST_FIELDS = 1 << 16
"""The most fields of a request, with those of the messages in it. Elements that are not packed
are fields too."""
_MOST_SHAPE_BYTES = 1 << 12

_PARAMETER_FIELDS = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


def parsed(name: str, data: bytes) -> Any:
    """Parse a message.

    Args:
        name: Name of the message in the table.
        data: Its bytes.

    Raises:
        ServiceError: MALFORMED, if the bytes are not such a message.
    """
    try:
        return message(name).FromString(data)
    except (DecodeError, ValueError) as error:
        raise ServiceError(Code.MALFORMED, f"not a {name}: {error}") from error


def check_size(data: bytes) -> int:
    """Refuse a ModelInferRequest with more fields than anybody needs, before it is parsed.

    As objects, fields take many times the memory of their bytes, and nobody else is served while
    they are made. The check is as long as the fields that a request may have, not as the request.

    Args:
        data: Bytes of the message.

    Returns:
        Its size in bytes without the raw contents.

    Raises:
        ServiceError: The message is malformed, or has too many fields.
    """
    try:
        return _FieldCounter().check("ModelInferRequest", data, 0, len(data))
    except IndexError:
        raise ServiceError(
            Code.MALFORMED, "not a ModelInferRequest: it ends within a field"
        ) from None


class _FieldCounter:
    """Walks over the fields of a message, and of the messages in it, without making objects.

    A field is a tag and a value. The tag is a varint: the field's number, and in its lowest three
    bits the wire type, which tells where the value ends. Values of the wire type _BYTES begin with
    their length; some of them are messages, which are walked over in turn.
    """

    def __init__(self) -> None:
        self._fields = 0

    def check(self, name: str, data: bytes, start: int, stop: int) -> int:
        """Check the fields of the message `name` at data[start:stop].

        Returns:
            The size of the message without raw contents.

        Raises:
            IndexError: The message ends within a field.
            ServiceError: There are too many fields, or one that is malformed.
        """
        measured = stop - start
        counts: dict[int, int] = {}
        while start < stop:
            tag, start = _varint(data, start, stop)
            number, wire = tag >> 3, tag & 7
            self._fields += 1
            check_count("fields", self._fields, _MOST_FIELDS)

            # Unknown fields are counted like others: parsing would keep them.
            start, size = _value(name, wire, data, start, stop)
            field, kind = _WIRE[name].get(number, ("", ""))
            counts[number] = counts.get(number, 0) + 1
            check_count(f"times {field}", counts[number], _MOST.get((name, field), _MOST_FIELDS))

            # Raw contents stay bytes when they are parsed, so they are as cheap as they look.
            if field == "raw_input_contents":
                measured -= size
            elif wire == _BYTES:
                self._check_bytes(name, field, kind, data, start, start + size)
            start += size
        return measured

    def _check_bytes(
        self, name: str, field: str, kind: str, data: bytes, start: int, stop: int
    ) -> None:
        """Check a value of the wire type _BYTES: a message, a shape, or packed elements."""
        if kind in _WIRE:
            self.check(kind, data, start, stop)
        elif field == "shape":
            check_count("bytes of a shape", stop - start, _MOST_SHAPE_BYTES)
        elif name == "InferTensorContents" and kind != "bytes":
            elements = _packed_elements(kind, data, start, stop)
            check_count(f"elements in {field}", elements, _MOST_ELEMENTS)


def _value(name: str, wire: int, data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Where a value begins, behind its length, and its size; a varint is skipped: its size is 0.

    Raises IndexError for a value that ends behind `stop`, ServiceError for an unknown wire type.
    """
    size = 0
    if wire == _BYTES:
        size, start = _varint(data, start, stop)
    elif wire in _FIXED:
        size = _FIXED[wire]
    elif wire == _VARINT:
        _, start = _varint(data, start, stop)
    else:
        raise ServiceError(Code.MALFORMED, f"not a {name}: a field of wire type {wire}")

    if size > stop - start:
        raise IndexError
    return start, size


def _packed_elements(kind: str, data: bytes, start: int, stop: int) -> int:
    """How many elements of a type are packed in data[start:stop]; 0 if there are few anyway."""
    size = stop - start
    if kind in _WIDTHS:
        return size // _WIDTHS[kind]
    if size <= _MOST_ELEMENTS:
        return 0
    # varints: the last byte of each is less than 128
    return int(np.count_nonzero(np.frombuffer(data, np.uint8, size, start) < 128))


def _varint(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Read an integer of variable length, and return where it ends.

    Each byte has seven bits, lowest first; all bytes but the last have their top bit set.
    Raises IndexError for one that does not end in data[start:stop], or has more than ten bytes.
    """
    value = shift = 0
    while True:
        if start >= stop or shift > 63:
            raise IndexError
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
        shift += 7


def request_to_message(request: InferRequest) -> Any:
    """Convert a request to a ModelInferRequest."""
    return _Request(
        model_name=request.model,
        model_version=request.version,
        id=request.id,
        parameters=_entries(request.parameters),
        inputs=_headers(request.inputs),
        raw_input_contents=[bytes(tensor.data) for tensor in request.inputs],
    )


def request_from_bytes(data: bytes) -> InferRequest:
    """Read a ModelInferRequest.

    Raises:
        ServiceError: The bytes are not a request, or one that is too large.
    """
    check_size(data)
    try:
        return request_from_message(parsed("ModelInferRequest", data))
    except ValueError as error:
        raise ServiceError(Code.INVALID, str(error)) from error


def request_from_message(message: Any) -> InferRequest:
    """Convert a ModelInferRequest to a request.

    Raises:
        ValueError: A tensor is not valid, or asks for an extension that is not served.
    """
    inputs = _tensors(message.inputs, message.raw_input_contents)
    for output in message.outputs:
        check_parameters(entry.key for entry in output.parameters)
    return InferRequest(
        message.model_name,
        message.model_version,
        inputs,
        message.id,
        _parameters(message.parameters),
        tuple(output.name for output in message.outputs),
    )


def response_to_message(response: InferResponse) -> Any:
    """Convert an answer to a ModelInferResponse."""
    return _Response(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        parameters=_entries(response.parameters),
        outputs=_headers(response.outputs),
        raw_output_contents=[bytes(tensor.data) for tensor in response.outputs],
    )


def response_from_message(message: Any) -> InferResponse:
    """Convert a ModelInferResponse to an answer.

    Raises:
        ValueError: A tensor is not valid.
    """
    outputs = _tensors(message.outputs, message.raw_output_contents)
    return InferResponse(
        message.model_name,
        message.model_version,
        outputs,
        message.id,
        _parameters(message.parameters),
    )


def _headers(tensors: Sequence[WireTensor]) -> list[Any]:
    """Tensors without their elements, which are sent raw."""
    return [
        _InferTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for tensor in tensors
    ]


def _tensors(tensors: Any, raw: Any) -> list[WireTensor]:
    """Tensors whose elements are either all raw, or all in the tensors themselves."""
    if raw and len(raw) != len(tensors):
        raise ValueError(
            f"{len(tensors)} tensors and {len(raw)} raw contents; send every tensor raw, or none"
        )
    # An empty list of raw contents means that the tensors have their elements themselves.
    contents = raw or [None] * len(tensors)
    return [_tensor(tensor, data) for tensor, data in zip(tensors, contents, strict=True)]


def _tensor(tensor: Any, raw: bytes | None) -> WireTensor:
    try:
        check_parameters(entry.key for entry in tensor.parameters)
        data = _elements(tensor) if raw is None else raw
        if raw is not None and tensor.contents.ListFields():
            raise ValueError("it has raw contents and others; send one of them")
        return WireTensor(tensor.name, tensor.datatype, checked_shape(tensor.shape), data)
    except ValueError as error:
        raise ValueError(f"tensor '{tensor.name}': {error}") from error


def _elements(tensor: Any) -> bytes:
    """The bytes of elements that are not sent raw, but in the field for their datatype."""
    kind = _CONTENTS.get(tensor.datatype)
    if kind is None:
        raise ValueError(
            f"there is no field for elements of datatype '{tensor.datatype}'; send them raw"
        )
    expected = f"{kind}_contents"
    for field, _ in tensor.contents.ListFields():
        if field.name != expected:
            raise ValueError(f"{tensor.datatype} goes into {expected}, not {field.name}")

    elements = getattr(tensor.contents, expected)
    if len(elements) > _MOST_ELEMENTS:
        raise ValueError(
            f"{len(elements)} elements in {expected}, the limit is {_MOST_ELEMENTS}; send them raw"
        )
    return to_bytes(tensor.datatype, elements)


def _entries(parameters: Parameters) -> list[Any]:
    entries: list[Any] = []
    for key, value in parameters.items():
        parameter = _InferParameter(**{_PARAMETER_FIELDS[type(value)]: value})
        entries.append(_Entry(key=key, value=parameter))
    return entries


def _parameters(entries: Any) -> dict[str, Parameter]:
    """Parameters by key; of several with one key the last one counts, and empty ones do not."""
    values = {entry.key: entry.value for entry in entries}
    parameters: dict[str, Parameter] = {}
    for key, value in values.items():
        field = value.WhichOneof("choice")
        if field is not None:
            parameters[key] = getattr(value, field)
    return parameters
