"""JSON bodies with the binary tensor extension: a JSON object, then the bytes of its binary tensors in order."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irsplit.runtime.serving.messages import (
    NUMPY,
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
    Tensor,
    to_array,
)

HEADER_LENGTH = "inference-header-content-length"

_BINARY_SIZE = "binary_data_size"


def request_from_body(model: str, version: str, headers: Mapping[str, str], body: bytes) -> tuple[InferRequest, bool]:
    """The request, and whether it wants outputs in binary. Raises ServiceError."""
    head, rest = _split(headers, body)
    try:
        parameters = dict(head.get("parameters", {}))
        binary = bool(parameters.pop("binary_data_output", False))
        wanted = head.get("outputs", [])
        binary = binary or any(output.get("parameters", {}).get("binary_data", False) for output in wanted)
        inputs = _tensors(head["inputs"], rest)
        outputs = tuple(str(output["name"]) for output in wanted)
        return InferRequest(model, version, inputs, str(head.get("id", "")), parameters, outputs), binary
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ServiceError(Code.INVALID, f"not an inference request: {type(error).__name__}: {error}") from error


def request_to_body(request: InferRequest) -> tuple[dict[str, str], bytes]:
    parameters = {**request.parameters, "binary_data_output": True}
    return _body({"id": request.id, "parameters": parameters}, "inputs", request.inputs)


def response_to_body(response: InferResponse, binary: bool) -> tuple[dict[str, str], bytes]:
    head = {
        "model_name": response.model,
        "model_version": response.version,
        "id": response.id,
        "parameters": dict(response.parameters),
    }
    if binary:
        return _body(head, "outputs", response.outputs)
    outputs = [_described(tensor) | {"data": to_array(tensor).ravel().tolist()} for tensor in response.outputs]
    return {"content-type": "application/json"}, json.dumps(head | {"outputs": outputs}).encode()


def response_from_body(headers: Mapping[str, str], body: bytes) -> InferResponse:
    """Raises ServiceError for what is no answer of the protocol."""
    head, rest = _split(headers, body)
    try:
        outputs = _tensors(head["outputs"], rest)
        parameters = dict(head.get("parameters", {}))
        return InferResponse(head["model_name"], head.get("model_version", ""), outputs, head.get("id", ""), parameters)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServiceError(Code.INTERNAL, f"not an inference response: {type(error).__name__}: {error}") from error


def _split(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], memoryview]:
    """The JSON object and the bytes behind it."""
    try:
        size = int(headers.get(HEADER_LENGTH, len(body)))
        if not 0 <= size <= len(body):
            raise ValueError(f"{HEADER_LENGTH} is {size}, the body has {len(body)} bytes")
        head = json.loads(body[:size])
        if not isinstance(head, dict):
            raise ValueError("the body is no JSON object")
    except (ValueError, RecursionError) as error:
        raise ServiceError(Code.INVALID, f"not a message of the protocol: {error}") from error
    return head, memoryview(body)[size:]


def _tensors(items: Sequence[Any], rest: memoryview) -> list[Tensor]:
    tensors: list[Tensor] = []
    for item in items:
        size = item.get("parameters", {}).get(_BINARY_SIZE)
        shape = tuple(int(dim) for dim in item["shape"])
        if size is None:
            data = _json_data(str(item["datatype"]), item["data"])
        elif not 0 <= int(size) <= len(rest):
            raise ValueError(f"{_BINARY_SIZE} of '{item['name']}' is {size}, {len(rest)} bytes are left")
        else:
            data, rest = rest[: int(size)], rest[int(size) :]
        tensors.append(Tensor(str(item["name"]), str(item["datatype"]), shape, data))
    if len(rest):
        raise ValueError(f"{len(rest)} bytes are left behind the tensors")
    return tensors


def _json_data(datatype: str, data: Any) -> bytes:
    if datatype not in NUMPY:
        raise ValueError(f"datatype '{datatype}' needs binary data")
    return np.asarray(data, NUMPY[datatype]).tobytes()


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _body(head: dict[str, Any], key: str, tensors: Sequence[Tensor]) -> tuple[dict[str, str], bytes]:
    described = [_described(tensor) | {"parameters": {_BINARY_SIZE: len(tensor.data)}} for tensor in tensors]
    text = json.dumps(head | {key: described}).encode()
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return headers, b"".join([text, *(tensor.data for tensor in tensors)])
