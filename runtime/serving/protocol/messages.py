"""Requests and answers of the Open Inference Protocol, version 2, whatever door they come through.

A frame is one UINT8 tensor of shape [n]; other tensors are named and typed as in the model.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.bundle.manifest import TensorInfo

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

_MOST_DIMS = 32
"""Of a tensor; numpy has no more everywhere."""
_TEXT_LENGTH = 1000
_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "S": {str, bytes},
}
"""By numpy's kind of type: what its elements are where they come one by one."""

UNSERVED = {"shared_memory_region": "shared memory", "classification": "classification"}
"""Parameters of tensors that ask for an extension of the protocol that is not here, and its name."""

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]


class Code(Enum):
    """Why a request was not answered: value, gRPC status, HTTP status."""

    INVALID = ("invalid", "INVALID_ARGUMENT", 400)
    MALFORMED = ("malformed", "INVALID_ARGUMENT", 400)
    """No message of the protocol at all, so that sending it again is of no use."""
    UNAUTHENTICATED = ("unauthenticated", "UNAUTHENTICATED", 401)
    NOT_FOUND = ("not_found", "NOT_FOUND", 404)
    WRONG_METHOD = ("wrong_method", "UNIMPLEMENTED", 405)
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
    """A request that is not answered: `code` for the client's program, the text for its author.

    A text may quote what came in, which may be megabytes: the rest of a long one is left out.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(code, text)  # both, so that it can be pickled
        self.code = code
        self.text = text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}..."

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A named tensor as raw bytes: little-endian, row-major; BYTES elements each behind a 4-byte length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class InferRequest:
    model: str
    version: str
    inputs: Sequence[WireTensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict[str, Parameter])
    outputs: Sequence[str] = ()
    """Names of the outputs wanted; all of them without any."""
    contents: str = field(default="", repr=False, compare=False)
    """Digest of the inputs, where it is known already; not sent."""


@dataclass(frozen=True, slots=True)
class InferResponse:
    model: str
    version: str
    outputs: Sequence[WireTensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict[str, Parameter])
    answers: str = field(default="", repr=False, compare=False)
    """Digest of the inputs that it was computed from, where it is known; not sent."""


def end_of_session(model: str, session: str, id: str) -> InferRequest:
    """What frees a session at the server: its end, with nothing to run."""
    return InferRequest(model, "", [], id, {"sequence_id": session, "sequence_end": True})


def session_ended_by(request: InferRequest) -> str:
    """The session that a request only ends, "" for any other request."""
    ends = not request.inputs and request.parameters.get("sequence_end") is True
    return str(request.parameters.get("sequence_id", "")) if ends else ""


def timeout_s(request: InferRequest) -> float | None:
    """How long the client waits at most: its parameter `timeout` in microseconds, as Triton has it."""
    micros = request.parameters.get("timeout")
    if isinstance(micros, bool | str) or micros is None:
        return None
    return float(micros) / 1e6 if micros > 0 else None


def frame_tensor(frame: bytes) -> WireTensor:
    return WireTensor(FRAME, "UINT8", (len(frame),), frame)


def to_tensor(info: TensorInfo, value: Any) -> WireTensor:
    """An output as the engine gave it. Raises ServiceError for what the protocol cannot carry."""
    datatype = DATATYPES.get(info.dtype)
    if datatype is None or not isinstance(value, np.ndarray):
        text = f"output '{info.name}' of type {info.dtype} does not fit the protocol; cut so that it stays on the device"
        raise ServiceError(Code.INVALID, text)
    array: NDArray[Any] = value
    if datatype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
        return WireTensor(info.name, datatype, array.shape, _pack_strings(items))
    stored = np.ascontiguousarray(array).view(NUMPY[datatype]) if datatype == "BF16" else array
    return WireTensor(
        info.name, datatype, array.shape, np.asarray(stored, NUMPY[datatype]).tobytes()
    )


def to_array(tensor: WireTensor) -> NDArray[Any]:
    """The elements of a tensor, a view where possible. Raises ServiceError when shape and bytes disagree."""
    try:
        dtype = _numpy(tensor.datatype)
        count = math.prod(checked_shape(tensor.shape))
        if dtype is None:
            elements = _unpack_strings(tensor.data)
        elif count * dtype.itemsize == len(tensor.data):
            elements = np.frombuffer(tensor.data, dtype)
        else:
            raise ValueError(f"{len(tensor.data)} bytes for {tensor.datatype}{list(tensor.shape)}")
        if len(elements) != count:
            raise ValueError(f"{len(elements)} elements for {list(tensor.shape)}")
        return elements.reshape(
            tensor.shape
        )  # one without elements may still have a dimension that is too large
    except ValueError as error:
        raise ServiceError(Code.INVALID, f"tensor '{tensor.name}': {error}") from error


def checked_shape(dims: Sequence[int]) -> tuple[int, ...]:
    """Raises ValueError for a shape that no tensor has. Before this, nothing is to be done for each dimension."""
    if len(dims) > _MOST_DIMS:
        raise ValueError(f"a shape of {len(dims)} dimensions; {_MOST_DIMS} are the most")
    if any(dim < 0 for dim in dims):
        raise ValueError(f"shape {list(dims)} has a negative dim")
    return tuple(dims)


def check_parameters(parameters: Iterable[str]) -> None:
    """Raise ValueError for parameters of a tensor that ask for what is not served: without it, it has another meaning.

    Others may be hints, and are not looked at.
    """
    for name in parameters:
        feature = next((text for prefix, text in UNSERVED.items() if name.startswith(prefix)), None)
        if feature is not None:
            raise ValueError(f"'{name}' asks for the extension {feature}, which is not here")


def to_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of elements that came one by one, nested or not. Raises ValueError for one that does not fit."""
    dtype = _numpy(datatype)
    if datatype == "BF16":
        raise ValueError("numpy has no BF16; send its elements as bytes")
    elements: list[Any] = np.asarray(values, object).ravel().tolist()
    odd = {type(element) for element in elements} - _TYPES["S" if dtype is None else dtype.kind]
    if odd:
        raise ValueError(f"an element of type {odd.pop().__name__} is no {datatype}")
    if dtype is None:
        return _pack_strings(elements)
    try:
        with np.errstate(over="raise"):
            return (
                np.array(elements, np.float64 if dtype.kind == "f" else dtype)
                .astype(dtype)
                .tobytes()
            )
    except ArithmeticError as error:
        raise ValueError(f"an element does not fit into {datatype}") from error


def _numpy(datatype: str) -> np.dtype[Any] | None:
    """None for BYTES. Raises ValueError for what the protocol does not know."""
    if datatype not in NUMPY and datatype != "BYTES":
        raise ValueError(f"unknown datatype '{datatype}'; known: {', '.join(NUMPY)}, BYTES")
    return NUMPY.get(datatype)


def _pack_strings(items: Iterable[bytes | str]) -> bytes:
    packed = [item if isinstance(item, bytes) else item.encode() for item in items]
    return b"".join(len(item).to_bytes(4, "little") + item for item in packed)


def _unpack_strings(packed: bytes | memoryview) -> NDArray[Any]:
    data, items, offset = bytes(packed), list[str](), 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        item = data[offset + 4 : offset + 4 + size]
        if len(item) != size or offset + 4 > len(data):
            raise ValueError("it ends within an element")
        items.append(item.decode())
        offset += 4 + size
    return np.array(items, dtype=object)
