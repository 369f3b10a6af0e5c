"""JSON bodies with the binary tensor extension: a JSON object, then the bytes of its binary tensors in order."""

import contextlib
import json
import math
import zlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from irsplit.runtime.serving.protocol.bounds import MOST_PARAMETERS, MOST_TENSORS, check_count
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    Parameter,
    ServiceError,
    WireTensor,
    check_parameters,
    checked_shape,
    to_array,
    to_bytes,
)

HEADER_LENGTH = "inference-header-content-length"

_BINARY_SIZE = "binary_data_size"
JSON_BYTES = 4 << 20
"""Of a request's JSON. As Python's objects it takes up to 36 times as much, and nobody else is served meanwhile."""
_MOST_OBJECTS = 1 << 13
_MOST_LISTS = 1 << 17
"""Of a request's JSON: each takes a hundred bytes, and its two characters come for nothing."""
MOST_ELEMENTS = 1 << 22
"""Of an output as JSON: as Python's objects and as text they take many times their bytes."""
_PIECE = 1 << 13
"""Elements that become text at a time, so that other threads have their turn."""
_INTEGERS = range(-(1 << 63), 1 << 64)
"""What a parameter may be: all that gRPC can carry."""
_CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's name for a content coding."""
_JSON: dict[type, str] = {
    dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip
"""What JSON calls a type."""

_Field = TypeVar("_Field")


@dataclass(frozen=True, slots=True)
class Form:
    """Whether outputs are wanted as bytes behind the JSON object: all of them, and those that say it themselves."""

    binary: bool = False
    named: Mapping[str, bool] = field(default_factory=dict[str, bool])

    def is_binary(self, name: str) -> bool:
        return self.named.get(name, self.binary)


def expanded(coding: str, body: bytes | bytearray, limit: int) -> bytes | bytearray:
    """A body without its content coding. Raises ServiceError, also for one that is larger than `limit` bytes."""
    if coding.lower() in ("", "identity"):
        return body
    window = _CODINGS.get(coding.lower())
    if window is None:
        raise ServiceError(
            Code.INVALID, f"content-encoding '{coding}' is unknown; known: {', '.join(_CODINGS)}"
        )
    decoder = zlib.decompressobj(window)
    try:
        data = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise ServiceError(Code.INVALID, f"the body is no {coding}: {error}") from error
    if len(data) > limit:
        raise ServiceError(Code.TOO_LARGE, f"body of more than {limit} bytes behind its {coding}")
    if not decoder.eof or decoder.unused_data:
        raise ServiceError(Code.INVALID, f"the body's {coding} ends too early or too late")
    return data


def request_from_body(
    model: str, version: str, headers: Mapping[str, str], body: bytes | bytearray
) -> tuple[InferRequest, Form]:
    """The request, and in which form it wants its outputs. Raises ServiceError."""
    head, rest = _split(headers, body, JSON_BYTES)
    try:
        parameters = _parameters(head)
        binary = _optional(parameters, "binary_data_output", False)
        parameters.pop("binary_data_output", None)
        asked_for, brought = _objects(head, "outputs"), _objects(head, "inputs")
        outputs = {_required(item, "name", str): _parameters(item) for item in asked_for}
        for name, asked in outputs.items():
            with _told_of(f"output '{name}'"):
                check_parameters(asked)
        named = {name: _optional(asked, "binary_data", binary) for name, asked in outputs.items()}
        if head.get("inputs") is None:
            raise ValueError("it has no 'inputs'")
        inputs = _tensors(brought, rest)
        request = InferRequest(
            model, version, inputs, _optional(head, "id", ""), parameters, tuple(outputs)
        )
        return request, Form(binary, named)
    except (ValueError, OverflowError) as error:
        raise ServiceError(Code.INVALID, f"not an inference request: {error}") from error


def request_to_body(request: InferRequest) -> tuple[dict[str, str], bytes]:
    parameters = {**request.parameters, "binary_data_output": True}
    return _body(
        {"id": request.id, "parameters": parameters}, "inputs", request.inputs, Form(binary=True)
    )


def json_elements(response: InferResponse, form: Form) -> int:
    """Elements of an answer that go as JSON. Raises ServiceError for more than an answer may have."""
    count = sum(
        math.prod(tensor.shape) for tensor in response.outputs if not form.is_binary(tensor.name)
    )
    if count > MOST_ELEMENTS:
        text = (
            f"{count} elements as JSON, the limit is {MOST_ELEMENTS}; ask for them as binary_data"
        )
        raise ServiceError(Code.TOO_LARGE, text)
    return count


def response_to_body(response: InferResponse, form: Form) -> tuple[dict[str, str], bytes]:
    head: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    head |= {"id": response.id} if response.id else {}
    head["parameters"] = dict(response.parameters)
    return _body(head, "outputs", response.outputs, form)


def response_from_body(headers: Mapping[str, str], body: bytes) -> InferResponse:
    """Raises ServiceError for what is no answer of the protocol."""
    head, rest = _split(headers, body)
    try:
        return InferResponse(
            _required(head, "model_name", str),
            _optional(head, "model_version", ""),
            _tensors(_objects(head, "outputs"), rest),
            _optional(head, "id", ""),
            _parameters(head),
        )
    except (ValueError, OverflowError) as error:
        raise ServiceError(Code.INTERNAL, f"not an inference response: {error}") from error


def _split(
    headers: Mapping[str, str], body: bytes | bytearray, limit: int | None = None
) -> tuple[dict[str, Any], memoryview]:
    """The JSON object, of at most `limit` bytes, and the bytes behind it."""
    try:
        size = int(headers.get(HEADER_LENGTH, len(body)))
        if not 0 <= size <= len(body):
            raise ValueError(f"{HEADER_LENGTH} is {size}, the body has {len(body)} bytes")
        if limit is not None and size > limit:
            text = f"JSON of {size} bytes, the limit is {limit}; send tensors as binary data"
            raise ServiceError(Code.TOO_LARGE, text)
        if limit is not None:
            check_count("objects in the JSON", body.count(b"{", 0, size), _MOST_OBJECTS)
            check_count("lists in the JSON", body.count(b"[", 0, size), _MOST_LISTS)
        head = json.loads(body[:size])
        if not isinstance(head, dict):
            raise ValueError("the body is no JSON object")
    except (ValueError, RecursionError) as error:
        raise ServiceError(Code.INVALID, f"not a message of the protocol: {error}") from error
    return head, memoryview(body)[size:]


def _tensors(items: Sequence[dict[str, Any]], rest: memoryview) -> list[WireTensor]:
    tensors: list[WireTensor] = []
    for item in items:
        name = _required(item, "name", str)
        with _told_of(f"tensor '{name}'"):
            asked = _parameters(item)
            check_parameters(asked)
            datatype, dims = _required(item, "datatype", str), _required(item, "shape", list)
            if any(type(dim) is not int for dim in dims):
                raise ValueError("its 'shape' has an element that is no integer")
            size = asked.get(_BINARY_SIZE)
            if size is None:
                data = to_bytes(datatype, _required(item, "data", list))
            elif type(size) is not int or not 0 <= size <= len(rest):
                raise ValueError(f"{_BINARY_SIZE} is {size!r}, {len(rest)} bytes are left")
            elif item.get("data") is not None:
                raise ValueError(f"it has 'data' and {_BINARY_SIZE}; send one of them")
            else:
                data, rest = rest[:size], rest[size:]
            tensors.append(WireTensor(name, datatype, checked_shape(dims), data))
    if len(rest):
        raise ValueError(f"{len(rest)} bytes are left behind the tensors")
    return tensors


@contextlib.contextmanager
def _told_of(what: str) -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _required(item: Mapping[str, Any], key: str, kind: type[_Field]) -> _Field:
    value = item.get(key)
    if value is None:
        raise ValueError(f"it has no '{key}'")
    return _of_kind(value, key, kind)


def _optional(item: Mapping[str, Any], key: str, default: _Field) -> _Field:
    """A field that may be missing or, as some clients write it, null."""
    value = item.get(key)
    return default if value is None else _of_kind(value, key, type(default))


def _of_kind(value: Any, key: str, kind: type[_Field]) -> _Field:
    if not isinstance(value, kind):
        raise ValueError(f"'{key}' is {_JSON[type(value)]}, not {_JSON[kind]}")
    return value


def _objects(item: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A field that is a list of objects."""
    found = _optional(item, key, list[Any]())
    check_count(key, len(found), MOST_TENSORS)
    return [_of_kind(each, f"{key}[{index}]", dict) for index, each in enumerate(found)]


def _parameters(item: Mapping[str, Any]) -> dict[str, Parameter]:
    found = _optional(item, "parameters", dict[str, Any]())
    check_count("parameters", len(found), MOST_PARAMETERS)
    for key, value in found.items():
        if not isinstance(value, bool | int | float | str) or (
            type(value) is int and value not in _INTEGERS
        ):
            raise ValueError(f"parameter '{key}' is no boolean, string or number of 64 bits")
    return found


def _body(
    head: dict[str, Any], key: str, tensors: Sequence[WireTensor], form: Form
) -> tuple[dict[str, str], bytes]:
    described, binary = list[str](), list[bytes | memoryview]()
    for tensor in tensors:
        item: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if form.is_binary(tensor.name):
            item["parameters"] = {_BINARY_SIZE: len(tensor.data)}
            binary.append(tensor.data)
            described.append(json.dumps(item))
        else:
            described.append(f'{json.dumps(item)[:-1]}, "data": [{_json_data(tensor)}]}}')
    text = f"{json.dumps(head)[:-1]}, {json.dumps(key)}: [{', '.join(described)}]}}".encode()
    if not binary:
        return {"content-type": "application/json"}, text
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return headers, b"".join([text, *binary])


def _json_data(tensor: WireTensor) -> str:
    array = to_array(tensor).ravel()
    if tensor.datatype == "BF16":
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    pieces = (array[start : start + _PIECE].tolist() for start in range(0, len(array), _PIECE))
    return ", ".join(json.dumps(piece)[1:-1] for piece in pieces)
