"""Protobuf messages of the Open Inference Protocol, version 2, built from a table.

They live in a descriptor pool of their own, so that another package's copy of the same messages (tritonclient, KServe)
can be imported beside them. Message and field numbers are the protocol's; nested messages are written flat here, which
their bytes do not show.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from irsplit.runtime.serving.messages import InferRequest, InferResponse, Parameter, Parameters, Tensor

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
    "InferTensor": ("1 name string", "2 datatype string", "3 shape int64*", "4 parameters ParameterEntry*"),
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
    for name in ("bool", "int64", "uint64", "string", "double", "bytes")
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference_v2.proto", package="inference", syntax="proto3")
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

_PARAMETER_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def request_to_message(request: InferRequest) -> Any:
    return _Request(
        model_name=request.model,
        model_version=request.version,
        id=request.id,
        parameters=_entries(request.parameters),
        inputs=[_InferTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in request.inputs],
        raw_input_contents=[bytes(t.data) for t in request.inputs],
    )


def request_from_message(message: Any) -> InferRequest:
    """Raises ValueError when tensors and raw contents do not go together."""
    raw = message.raw_input_contents
    if len(raw) != len(message.inputs):
        raise ValueError(f"{len(message.inputs)} inputs and {len(raw)} raw_input_contents; send every tensor raw")
    inputs = [_tensor(tensor, data) for tensor, data in zip(message.inputs, raw, strict=True)]
    outputs = tuple(output.name for output in message.outputs)
    return InferRequest(
        message.model_name, message.model_version, inputs, message.id, _parameters(message.parameters), outputs
    )


def response_to_message(response: InferResponse) -> Any:
    return _Response(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        parameters=_entries(response.parameters),
        outputs=[_InferTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in response.outputs],
        raw_output_contents=[bytes(t.data) for t in response.outputs],
    )


def response_from_message(message: Any) -> InferResponse:
    """Raises ValueError when tensors and raw contents do not go together."""
    raw = message.raw_output_contents
    outputs = [_tensor(tensor, data) for tensor, data in zip(message.outputs, raw, strict=True)]
    return InferResponse(
        message.model_name, message.model_version, outputs, message.id, _parameters(message.parameters)
    )


def _tensor(tensor: Any, data: bytes) -> Tensor:
    return Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _entries(parameters: Parameters) -> list[Any]:
    return [
        _Entry(key=key, value=_InferParameter(**{_PARAMETER_FIELDS[type(value)]: value}))
        for key, value in parameters.items()
    ]


def _parameters(entries: Any) -> dict[str, Parameter]:
    chosen = {entry.key: (entry.value, entry.value.WhichOneof("choice")) for entry in entries}
    return {key: getattr(value, field) for key, (value, field) in chosen.items() if field is not None}
