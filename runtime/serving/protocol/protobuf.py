"""Protobuf messages of the Open Inference Protocol, version 2, built from a table.

They live in a descriptor pool of their own, so that another package's copy of the same messages (tritonclient, KServe)
can be imported beside them. Message and field numbers are the protocol's; nested messages are written flat here, which
their bytes do not show.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from irsplit.runtime.serving.protocol.messages import (
    InferRequest,
    InferResponse,
    Parameter,
    Parameters,
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
