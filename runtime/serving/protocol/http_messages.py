"""JSON bodies with the binary tensor extension.

A body is a JSON object, followed by the bytes of its binary tensors in order.
"""

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
"""The header that says how long the JSON object is, if bytes follow it."""

_BINARY_SIZE = "binary_data_size"
JSON_BYTES = 4 << 20
"""The longest JSON of a request. As Python objects it takes up to 36 times as much memory, and
nobody else is served while it is parsed."""
_MOST_OBJECTS = 1 << 13
_MOST_LISTS = 1 << 17
"""The most objects and lists in the JSON of a request. Each takes a hundred bytes of memory for
the two characters that it takes in the text."""
MOST_ELEMENTS = 1 << 22
"""The most elements of an answer that go as JSON: as Python objects and as text, they take many
times their bytes."""
_PIECE = 1 << 13
"""How many elements become text at a time, so that other threads have their turn."""
_INTEGERS = range(-(1 << 63), 1 << 64)
"""The integers that a parameter may be: all that gRPC can carry."""
_CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The window size by which zlib knows a content coding."""
_JSON_TYPES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}
"""What JSON calls a Python type."""

_Field = TypeVar("_Field")


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a client wants its outputs: as bytes behind the JSON object, or as JSON.

    Attributes:
        binary: Whether outputs go as bytes.
        named: The same for single outputs by name, which take precedence.
    """

    binary: bool = False
    named: Mapping[str, bool] = field(default_factory=dict[str, bool])

    def is_binary(self, name: str) -> bool:
        return self.named.get(name, self.binary)


def expanded(coding: str, body: bytes | bytearray, limit: int) -> bytes | bytearray:
    """Undo the content coding of a body.

    Args:
        coding: The header content-encoding, "" for none.
        body: The body as it came.
        limit: The largest result, in bytes.

    Raises:
        ServiceError: The coding is unknown, the body is damaged, or the result is too large.
    """
    name = coding.lower()
    if name in ("", "identity"):
        return body
    window = _CODINGS.get(name)
    if window is None:
        raise ServiceError(
            Code.INVALID, f"content-encoding '{coding}' is unknown; known: {', '.join(_CODINGS)}"
        )

    # A small body may expand to gigabytes: one byte more than allowed is enough to know.
    decoder = zlib.decompressobj(window)
    try:
        data = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise ServiceError(Code.INVALID, f"the body is not valid {coding}: {error}") from error
    if len(data) > limit:
        raise ServiceError(Code.TOO_LARGE, f"body of more than {limit} bytes behind its {coding}")
    if not decoder.eof or decoder.unused_data:
        raise ServiceError(Code.INVALID, f"the body's {coding} ends too early or too late")
    return data


def request_from_body(
    model: str, version: str, headers: Mapping[str, str], body: bytes | bytearray
) -> tuple[InferRequest, Form]:
    """Read a request.

    Args:
        model: The model's name, from the path.
        version: The model's version, from the path; "" for none.
        headers: Headers by lower-case name.
        body: The body, without content coding.

    Returns:
        The request, and the form in which it wants its outputs.

    Raises:
        ServiceError: The body is not a request, or is too large.
    """
    head, rest = _split(headers, body, JSON_BYTES)
    try:
        parameters = _parameters(head)
        binary = _optional(parameters, "binary_data_output", False)
        parameters.pop("binary_data_output", None)

        # Counts are checked before anything is done for each item.
        output_items, input_items = _objects(head, "outputs"), _objects(head, "inputs")
        outputs = {_required(item, "name", str): _parameters(item) for item in output_items}
        named: dict[str, bool] = {}
        for name, output_parameters in outputs.items():
            with _error_context(f"output '{name}'"):
                check_parameters(output_parameters)
            named[name] = _optional(output_parameters, "binary_data", binary)

        if head.get("inputs") is None:
            raise ValueError("it has no 'inputs'")
        inputs = _tensors(input_items, rest)
        id = _optional(head, "id", "")
        request = InferRequest(model, version, inputs, id, parameters, tuple(outputs))
        return request, Form(binary, named)
    except (ValueError, OverflowError) as error:
        raise ServiceError(Code.INVALID, f"not an inference request: {error}") from error


def request_to_body(request: InferRequest) -> tuple[dict[str, str], bytes]:
    """Write a request, its tensors as bytes.

    Returns:
        Headers and body. Model and version are not among them: they belong into the path.
    """
    parameters = {**request.parameters, "binary_data_output": True}
    head = {"id": request.id, "parameters": parameters}
    return _body(head, "inputs", request.inputs, Form(binary=True))


def json_elements(response: InferResponse, form: Form) -> int:
    """Count the elements of an answer that go as JSON.

    Raises:
        ServiceError: There are more than an answer may have.
    """
    as_json = [tensor for tensor in response.outputs if not form.is_binary(tensor.name)]
    count = sum(math.prod(tensor.shape) for tensor in as_json)
    if count > MOST_ELEMENTS:
        raise ServiceError(
            Code.TOO_LARGE,
            f"{count} elements as JSON, the limit is {MOST_ELEMENTS}; ask for them as binary_data",
        )
    return count


def response_to_body(response: InferResponse, form: Form) -> tuple[dict[str, str], bytes]:
    """Write an answer.

    Args:
        response: The answer.
        form: The form in which the client wants its outputs.

    Returns:
        Headers and body.
    """
    head: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        head["id"] = response.id
    head["parameters"] = dict(response.parameters)
    return _body(head, "outputs", response.outputs, form)


def response_from_body(headers: Mapping[str, str], body: bytes) -> InferResponse:
    """Read an answer.

    Args:
        headers: Headers by lower-case name.
        body: The body.

    Raises:
        ServiceError: The body is not an answer of the protocol.
    """
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
    """Split a body into its JSON object and the bytes behind it.

    With a `limit` on the bytes of the JSON, its objects and lists are limited too, before it is
    parsed. Raises ServiceError for a body that has no JSON object.
    """
    try:
        size = int(headers.get(HEADER_LENGTH, len(body)))
        if not 0 <= size <= len(body):
            raise ValueError(f"{HEADER_LENGTH} is {size}, the body has {len(body)} bytes")
        if limit is not None:
            _check_json(body, size, limit)

        head = json.loads(body[:size])
        if not isinstance(head, dict):
            raise ValueError("the body is not a JSON object")
    except (ValueError, RecursionError) as error:
        raise ServiceError(Code.INVALID, f"not a message of the protocol: {error}") from error
    return head, memoryview(body)[size:]


def _check_json(body: bytes | bytearray, size: int, limit: int) -> None:
    """Raise ServiceError if the JSON at the start of a body would take too much memory."""
    if size > limit:
        raise ServiceError(
            Code.TOO_LARGE,
            f"JSON of {size} bytes, the limit is {limit}; send tensors as binary data",
        )
    check_count("objects in the JSON", body.count(b"{", 0, size), _MOST_OBJECTS)
    check_count("lists in the JSON", body.count(b"[", 0, size), _MOST_LISTS)


def _tensors(items: Sequence[dict[str, Any]], rest: memoryview) -> list[WireTensor]:
    """Read tensors, some of which have their elements in `rest`, in order and without gaps."""
    tensors: list[WireTensor] = []
    for item in items:
        name = _required(item, "name", str)
        with _error_context(f"tensor '{name}'"):
            tensor, rest = _tensor(name, item, rest)
            tensors.append(tensor)
    if len(rest):
        raise ValueError(f"{len(rest)} bytes are left behind the tensors")
    return tensors


def _tensor(name: str, item: dict[str, Any], rest: memoryview) -> tuple[WireTensor, memoryview]:
    """Read one tensor; also returns the bytes that are left for the next ones."""
    parameters = _parameters(item)
    check_parameters(parameters)
    datatype, dims = _required(item, "datatype", str), _required(item, "shape", list)
    if any(type(dim) is not int for dim in dims):
        raise ValueError("its 'shape' has an element that is not an integer")

    # The elements are in the JSON, or the next bytes behind it.
    size = parameters.get(_BINARY_SIZE)
    data: bytes | memoryview
    if size is None:
        data = to_bytes(datatype, _required(item, "data", list))
    elif type(size) is not int or not 0 <= size <= len(rest):
        raise ValueError(f"{_BINARY_SIZE} is {size!r}, {len(rest)} bytes are left")
    elif item.get("data") is not None:
        raise ValueError(f"it has 'data' and {_BINARY_SIZE}; send one of them")
    else:
        data, rest = rest[:size], rest[size:]
    return WireTensor(name, datatype, checked_shape(dims), data), rest


@contextlib.contextmanager
def _error_context(what: str) -> Generator[None]:
    """Put in front of a ValueError's text what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _required(item: Mapping[str, Any], key: str, kind: type[_Field]) -> _Field:
    """A field that must be there. Raises ValueError if it is not, or has another type."""
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
        raise ValueError(f"'{key}' is {_JSON_TYPES[type(value)]}, not {_JSON_TYPES[kind]}")
    return value


def _objects(item: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A field that is a list of objects, or is missing."""
    objects = _optional(item, key, list[Any]())
    check_count(key, len(objects), MOST_TENSORS)
    return [_of_kind(value, f"{key}[{index}]", dict) for index, value in enumerate(objects)]


def _parameters(item: Mapping[str, Any]) -> dict[str, Parameter]:
    """The parameters of an object. Raises ValueError for a type that gRPC could not carry."""
    parameters = _optional(item, "parameters", dict[str, Any]())
    check_count("parameters", len(parameters), MOST_PARAMETERS)
    for key, value in parameters.items():
        too_large = type(value) is int and value not in _INTEGERS
        if too_large or not isinstance(value, bool | int | float | str):
            raise ValueError(f"parameter '{key}' is not a boolean, string or number of 64 bits")
    return parameters


def _body(
    head: dict[str, Any], key: str, tensors: Sequence[WireTensor], form: Form
) -> tuple[dict[str, str], bytes]:
    """Write a message: the fields of `head`, and the tensors as the list `key`."""
    items: list[str] = []
    binary: list[bytes | memoryview] = []
    for tensor in tensors:
        item: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if form.is_binary(tensor.name):
            item["parameters"] = {_BINARY_SIZE: len(tensor.data)}
            binary.append(tensor.data)
            items.append(json.dumps(item))
        else:
            items.append(f'{json.dumps(item)[:-1]}, "data": [{_json_data(tensor)}]}}')

    # Written by hand, so that no list holds all elements as Python objects at once.
    text = f"{json.dumps(head)[:-1]}, {json.dumps(key)}: [{', '.join(items)}]}}".encode()
    if not binary:
        return {"content-type": "application/json"}, text
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return headers, b"".join([text, *binary])


def _json_data(tensor: WireTensor) -> str:
    """The elements of a tensor, row by row, as the inside of a JSON list."""
    array = to_array(tensor).ravel()
    if tensor.datatype == "BF16":
        # bfloat16 is the upper half of a float32
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)

    pieces: list[str] = []
    for start in range(0, len(array), _PIECE):
        pieces.append(json.dumps(array[start : start + _PIECE].tolist())[1:-1])
    return ", ".join(pieces)
