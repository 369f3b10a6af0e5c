"""Protobuf messages of the Open Inference Protocol, version 2, built from a table.

They live in a descriptor pool of their own, so that another package's copy of the same messages (tritonclient, KServe)
can be imported beside them. Message and field numbers are the protocol's; nested messages are written flat here, which
their bytes do not show.
"""

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
"""Messages whose fields exclude each other."""

_TYPES = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "string", "float", "double", "bytes")
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference_v2.proto", package="inference", syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name in _ONEOF:
            message.oneof_decl.add(name="choice")
        for text in fields:
            number, field_name, kind = text.split()
            scalar = _TYPES.get(kind.rstrip("*"))
            field = message.field.add(name=field_name, number=int(number))
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            field.type = field.TYPE_MESSAGE if scalar is None else scalar
            if scalar is None:
                field.type_name = f".inference.{kind.rstrip('*')}"
            if name in _ONEOF:
                field.oneof_index = 0
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """The class of a message of the table."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


_InferParameter = message("InferParameter")
_Entry = message("ParameterEntry")
_InferTensor = message("InferTensor")
_Request = message("ModelInferRequest")
_Response = message("ModelInferResponse")

_CONTENTS = {
    "BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64", "UINT8": "uint", "UINT16": "uint",
    "UINT32": "uint", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes",
}  # fmt: skip
"""Datatype to the field of InferTensorContents that has its elements, when they are not sent raw."""

_MOST_ELEMENTS = 1 << 22
"""In such a field: as Python's objects they take 16 times what a byte takes on the way."""

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire types of fields of a fixed size."""
_WIDTHS = {"float": 4, "double": 8}
"""Kinds whose elements, packed, have a fixed size."""
_WIRE = {
    name: {int(number): (field, kind.rstrip("*")) for number, field, kind in map(str.split, fields)}
    for name, fields in _FIELDS.items()
}
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
"""Of a request, those of the messages in it included: elements that are not packed are fields too."""
_MOST_SHAPE_BYTES = 1 << 12

_PARAMETER_FIELDS = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


def request_to_message(request: InferRequest) -> Any:
    return _Request(
        model_name=request.model,
        model_version=request.version,
        id=request.id,
        parameters=_entries(request.parameters),
        inputs=[
            _InferTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in request.inputs
        ],
        raw_input_contents=[bytes(t.data) for t in request.inputs],
    )


def parsed(name: str, data: bytes) -> Any:
    """A message of the table. Raises ServiceError MALFORMED for bytes that are none."""
    try:
        return message(name).FromString(data)
    except (DecodeError, ValueError) as error:
        raise ServiceError(Code.MALFORMED, f"not a {name}: {error}") from error


def check_size(data: bytes) -> int:
    """Bytes of a ModelInferRequest but for its raw contents.

    Raises ServiceError for one with more parts than anybody needs: as objects they take many times their bytes, and
    nobody else is served while they are made. It costs no more than the parts that there may be.
    """
    try:
        return _Measure().of("ModelInferRequest", data, 0, len(data))
    except IndexError:
        raise ServiceError(
            Code.MALFORMED, "not a ModelInferRequest: it ends within a field"
        ) from None


def request_from_bytes(data: bytes) -> InferRequest:
    """Raises ServiceError for what is no request, or too large a one."""
    check_size(data)
    try:
        return request_from_message(parsed("ModelInferRequest", data))
    except ValueError as error:
        raise ServiceError(Code.INVALID, str(error)) from error


class _Measure:
    """Counts the fields of a message and of those in it, without making anything of them."""

    def __init__(self) -> None:
        self._fields = 0

    def of(self, name: str, data: bytes, start: int, stop: int) -> int:
        """Bytes of the message at data[start:stop] but for raw contents. Raises IndexError where it ends too early."""
        measured = stop - start
        counts: dict[int, int] = {}
        while start < stop:
            tag, start = _varint(data, start, stop)
            number, wire = tag >> 3, tag & 7
            self._fields += 1
            check_count("fields", self._fields, _MOST_FIELDS)
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
            field, kind = _WIRE[name].get(number, ("", ""))
            counts[number] = counts.get(number, 0) + 1
            check_count(f"times {field}", counts[number], _MOST.get((name, field), _MOST_FIELDS))
            if field == "raw_input_contents":
                measured -= size
            elif wire == _BYTES:
                self._look_into(name, field, kind, data, start, start + size)
            start += size
        return measured

    def _look_into(
        self, name: str, field: str, kind: str, data: bytes, start: int, stop: int
    ) -> None:
        if kind in _WIRE:
            self.of(kind, data, start, stop)
        elif field == "shape":
            check_count("bytes of a shape", stop - start, _MOST_SHAPE_BYTES)
        elif name == "InferTensorContents" and kind != "bytes":
            width = _WIDTHS.get(kind)
            few = stop - start <= _MOST_ELEMENTS
            elements = (
                (stop - start) // width if width else 0 if few else _varints(data, start, stop)
            )
            check_count(f"elements in {field}", elements, _MOST_ELEMENTS)


def _varint(data: bytes, start: int, stop: int) -> tuple[int, int]:
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


def _varints(data: bytes, start: int, stop: int) -> int:
    """How many end in data[start:stop]."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8, stop - start, start) < 128))


def request_from_message(message: Any) -> InferRequest:
    """Raises ValueError for tensors that are none, or ask for what is not served."""
    inputs = _tensors(message.inputs, message.raw_input_contents)
    for output in message.outputs:
        check_parameters(entry.key for entry in output.parameters)
    outputs = tuple(output.name for output in message.outputs)
    return InferRequest(
        message.model_name,
        message.model_version,
        inputs,
        message.id,
        _parameters(message.parameters),
        outputs,
    )


def response_to_message(response: InferResponse) -> Any:
    return _Response(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        parameters=_entries(response.parameters),
        outputs=[
            _InferTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in response.outputs
        ],
        raw_output_contents=[bytes(t.data) for t in response.outputs],
    )


def response_from_message(message: Any) -> InferResponse:
    """Raises ValueError for tensors that are none."""
    outputs = _tensors(message.outputs, message.raw_output_contents)
    return InferResponse(
        message.model_name,
        message.model_version,
        outputs,
        message.id,
        _parameters(message.parameters),
    )


def _tensors(tensors: Any, raw: Any) -> list[WireTensor]:
    """Tensors whose elements are all raw, or all in fields of their own."""
    if raw and len(raw) != len(tensors):
        raise ValueError(
            f"{len(tensors)} tensors and {len(raw)} raw contents; send every tensor raw, or none"
        )
    return [
        _tensor(tensor, data)
        for tensor, data in zip(tensors, raw or [None] * len(tensors), strict=True)
    ]


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
    kind = _CONTENTS.get(tensor.datatype)
    if kind is None:
        raise ValueError(
            f"there is no field for elements of datatype '{tensor.datatype}'; send them raw"
        )
    field = f"{kind}_contents"
    other = next(
        (each.name for each, _ in tensor.contents.ListFields() if each.name != field), None
    )
    if other is not None:
        raise ValueError(f"{tensor.datatype} goes into {field}, not {other}")
    elements = getattr(tensor.contents, field)
    if len(elements) > _MOST_ELEMENTS:
        raise ValueError(
            f"{len(elements)} elements in {field}, the limit is {_MOST_ELEMENTS}; send them raw"
        )
    return to_bytes(tensor.datatype, elements)


def _entries(parameters: Parameters) -> list[Any]:
    return [
        _Entry(key=key, value=_InferParameter(**{_PARAMETER_FIELDS[type(value)]: value}))
        for key, value in parameters.items()
    ]


def _parameters(entries: Any) -> dict[str, Parameter]:
    chosen = {entry.key: (entry.value, entry.value.WhichOneof("choice")) for entry in entries}
    return {
        key: getattr(value, field) for key, (value, field) in chosen.items() if field is not None
    }
