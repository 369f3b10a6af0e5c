"""Requests and answers of the Open Inference Protocol, version 2, whatever door they come through.

A frame is one UINT8 tensor of shape [n]; other tensors are named and typed as in the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.manifest import TensorInfo

FRAME = "frame"
"""Name of the tensor that carries a frame, in both directions."""

DATATYPES: dict[str, str] = {
    "bool": "BOOL", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64", "i8": "INT8", "i16": "INT16",
    "i32": "INT32", "i64": "INT64", "f16": "FP16", "f32": "FP32", "f64": "FP64", "bf16": "BF16", "str": "BYTES",
}  # fmt: skip
"""Element type to the protocol's datatype; complex numbers and 8-bit floats have none."""

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_), "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}  # fmt: skip

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]


class Code(Enum):
    """Why a request was not answered: value, gRPC status, HTTP status."""

    INVALID = ("invalid", "INVALID_ARGUMENT", 400)
    UNAUTHENTICATED = ("unauthenticated", "UNAUTHENTICATED", 401)
    NOT_FOUND = ("not_found", "NOT_FOUND", 404)
    MISMATCH = ("mismatch", "FAILED_PRECONDITION", 409)
    SESSION_LOST = ("session_lost", "ABORTED", 410)
    TOO_LARGE = ("too_large", "OUT_OF_RANGE", 413)
    OVERLOADED = ("overloaded", "RESOURCE_EXHAUSTED", 429)
    DRAINING = ("draining", "UNAVAILABLE", 503)
    DEADLINE = ("deadline", "DEADLINE_EXCEEDED", 504)
    INTERNAL = ("internal", "INTERNAL", 500)

    @property
    def grpc(self) -> str:
        return self.value[1]

    @property
    def http(self) -> int:
        return self.value[2]


class ServiceError(Exception):
    """A request that is not answered: `code` for the client's program, the text for its author."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(code, text)  # both, so that it can be pickled
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor as raw bytes: little-endian, row-major; BYTES elements each behind a 4-byte length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class InferRequest:
    model: str
    version: str
    inputs: Sequence[Tensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict[str, Parameter])
    outputs: Sequence[str] = ()
    """Names of the outputs wanted; all of them without any."""


@dataclass(frozen=True, slots=True)
class InferResponse:
    model: str
    version: str
    outputs: Sequence[Tensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict[str, Parameter])


def timeout_s(request: InferRequest) -> float | None:
    """How long the client waits at most: its parameter `timeout` in microseconds, as Triton has it."""
    micros = request.parameters.get("timeout")
    return float(micros) / 1e6 if isinstance(micros, int | float) and micros > 0 else None


def frame_tensor(frame: bytes) -> Tensor:
    return Tensor(FRAME, "UINT8", (len(frame),), frame)


def to_tensor(info: TensorInfo, value: Any) -> Tensor:
    """An output as the engine gave it. Raises ServiceError for what the protocol cannot carry."""
    datatype = DATATYPES.get(info.dtype)
    if datatype is None or not isinstance(value, np.ndarray):
        text = (
            f"output '{info.name}' of type {info.dtype} does not fit the protocol; cut so that it stays on the device"
        )
        raise ServiceError(Code.INVALID, text)
    array: NDArray[Any] = value
    if datatype == "BYTES":
        return Tensor(info.name, datatype, array.shape, _pack_strings(array))
    stored = np.ascontiguousarray(array).view(NUMPY[datatype]) if datatype == "BF16" else array
    return Tensor(info.name, datatype, array.shape, np.asarray(stored, NUMPY[datatype]).tobytes())


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The elements of a tensor, a view where possible. Raises ServiceError when shape and bytes disagree."""
    if any(dim < 0 for dim in tensor.shape):
        raise ServiceError(Code.INVALID, f"tensor '{tensor.name}': shape {list(tensor.shape)} has a negative dim")
    if tensor.datatype == "BYTES":
        return _unpack_strings(tensor)
    dtype = NUMPY.get(tensor.datatype)
    if dtype is None:
        text = f"tensor '{tensor.name}': unknown datatype '{tensor.datatype}'; known: {', '.join(NUMPY)}, BYTES"
        raise ServiceError(Code.INVALID, text)
    count = 1
    for dim in tensor.shape:
        count *= dim
    if count * dtype.itemsize != len(tensor.data):
        text = f"tensor '{tensor.name}': {len(tensor.data)} bytes for {tensor.datatype}{list(tensor.shape)}"
        raise ServiceError(Code.INVALID, text)
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def _pack_strings(array: NDArray[Any]) -> bytes:
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def _unpack_strings(tensor: Tensor) -> NDArray[Any]:
    data, items, offset = bytes(tensor.data), list[str](), 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        item = data[offset + 4 : offset + 4 + size]
        if len(item) != size:
            raise ServiceError(Code.INVALID, f"tensor '{tensor.name}': it ends within an element")
        items.append(item.decode(errors="replace"))
        offset += 4 + size
    if int(np.prod(tensor.shape, dtype=object)) != len(items):
        raise ServiceError(Code.INVALID, f"tensor '{tensor.name}': {len(items)} elements for {list(tensor.shape)}")
    return np.array(items, dtype=object).reshape(tensor.shape)
