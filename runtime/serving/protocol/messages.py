"""Requests and answers of the Open Inference Protocol, version 2, for gRPC and HTTP alike.

A frame is one UINT8 tensor of shape [n]. Other tensors have the names and types of the model.
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
    "bool": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "bf16": "BF16",
    "str": "BYTES",
}
"""The protocol's datatype of an element type; complex numbers and 8-bit floats have none."""

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}
"""The numpy type that holds the elements of a datatype."""

_MOST_DIMS = 32
"""The most dims of a tensor, which is the most that every version of numpy has."""
_TEXT_LENGTH = 1000
_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "S": {str, bytes},
}
"""By numpy's kind of type: the Python types of elements that come one by one."""

UNSERVED = {"shared_memory_region": "shared memory", "classification": "classification"}
"""Parameters of tensors that ask for an extension of the protocol that is not served, by prefix,
and the extension's name."""

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]


class Code(Enum):
    """Why a request was not answered. Each value is a word, a gRPC status and an HTTP status."""

    INVALID = ("invalid", "INVALID_ARGUMENT", 400)
    MALFORMED = ("malformed", "INVALID_ARGUMENT", 400)
    """Not a message of the protocol at all, so that sending it again is of no use."""
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
        """Name of the gRPC status."""
        return self.value[1]

    @property
    def http(self) -> int:
        """The HTTP status."""
        return self.value[2]


class ServiceError(Exception):
    """A request that is not answered.

    Attributes:
        code: Why, for the client's program.
        text: Why, for the author of the program. It may quote the request, which may be
            megabytes, and is cut off if it is long.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(code, text)  # both, so that the error can be pickled
        self.code = code
        self.text = text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}..."

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A named tensor as raw bytes.

    Attributes:
        name: Name of the tensor.
        datatype: The protocol's datatype, such as FP32.
        shape: The sizes of its dims.
        data: The elements: little-endian and row-major; those of BYTES behind a length of 4 bytes
            each.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request to run a model.

    Attributes:
        model: Name of the model at the server.
        version: The model's version, "" for any.
        inputs: The inputs, or a frame.
        id: Identifies the request; the answer repeats it.
        parameters: Parameters of the request.
        outputs: Names of the outputs to return; empty for all of them.
        contents: Digest of the inputs if it is known already; it is not sent.
    """

    model: str
    version: str
    inputs: Sequence[WireTensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict[str, Parameter])
    outputs: Sequence[str] = ()
    contents: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The answer to a request.

    Attributes:
        model: Name of the model.
        version: Version of the model.
        outputs: The outputs, and a frame if the device continues.
        id: The request's id.
        parameters: Parameters of the answer.
        answers: Digest of the inputs that it was computed from if it is known; it is not sent.
    """

    model: str
    version: str
    outputs: Sequence[WireTensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict[str, Parameter])
    answers: str = field(default="", repr=False, compare=False)


def end_of_session(model: str, session: str, id: str) -> InferRequest:
    """Return the request that ends a session at the server and runs nothing.

    Args:
        model: Name of the model.
        session: Identifies the session.
        id: Identifies the request.
    """
    return InferRequest(model, "", [], id, {"sequence_id": session, "sequence_end": True})


def session_ended_by(request: InferRequest) -> str:
    """Return the session that a request ends without running anything, "" for other requests."""
    ends = not request.inputs and request.parameters.get("sequence_end") is True
    return str(request.parameters.get("sequence_id", "")) if ends else ""


def timeout_s(request: InferRequest) -> float | None:
    """Return how long the client waits for the answer.

    Returns:
        Seconds; None if the request does not say. Its parameter `timeout` has microseconds, as
        Triton defines it.
    """
    # Booleans are integers in Python, but no timeout.
    micros = request.parameters.get("timeout")
    if isinstance(micros, bool | str) or micros is None:
        return None
    return float(micros) / 1e6 if micros > 0 else None


def frame_tensor(frame: bytes) -> WireTensor:
    """Return the tensor that carries a frame."""
    return WireTensor(FRAME, "UINT8", (len(frame),), frame)


def to_tensor(info: TensorInfo, value: Any) -> WireTensor:
    """Convert an output of an engine to a tensor of the protocol.

    Args:
        info: What the manifest declares of the output.
        value: The output.

    Raises:
        ServiceError: The protocol cannot carry the type.
    """
    datatype = DATATYPES.get(info.dtype)
    if datatype is None or not isinstance(value, np.ndarray):
        raise ServiceError(
            Code.INVALID,
            f"output '{info.name}' of type {info.dtype} does not fit the protocol; "
            "cut so that it stays on the device",
        )

    array: NDArray[Any] = value
    if datatype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
        return WireTensor(info.name, datatype, array.shape, _pack_strings(items))

    # numpy has no bfloat16: its elements keep their bits as 16-bit integers
    stored = np.ascontiguousarray(array).view(NUMPY[datatype]) if datatype == "BF16" else array
    data = np.asarray(stored, NUMPY[datatype]).tobytes()
    return WireTensor(info.name, datatype, array.shape, data)


def to_array(tensor: WireTensor) -> NDArray[Any]:
    """Convert a tensor of the protocol to an array.

    Returns:
        The elements; a view of the tensor's bytes where that is possible.

    Raises:
        ServiceError: Shape and bytes do not fit each other.
    """
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
        # numpy refuses an empty tensor that has a dim too large for it
        return elements.reshape(tensor.shape)
    except ValueError as error:
        raise ServiceError(Code.INVALID, f"tensor '{tensor.name}': {error}") from error


def checked_shape(dims: Sequence[int]) -> tuple[int, ...]:
    """Check a shape; nothing may be done for each dim before that.

    Args:
        dims: The sizes, as they came.

    Returns:
        The shape.

    Raises:
        ValueError: No tensor has this shape.
    """
    if len(dims) > _MOST_DIMS:
        raise ValueError(f"a shape of {len(dims)} dimensions; {_MOST_DIMS} are the most")
    if any(dim < 0 for dim in dims):
        raise ValueError(f"shape {list(dims)} has a negative dim")
    return tuple(dims)


def check_parameters(parameters: Iterable[str]) -> None:
    """Refuse parameters of a tensor without which the tensor means something else.

    Other parameters may be hints, and are ignored.

    Args:
        parameters: Names of the parameters.

    Raises:
        ValueError: A parameter asks for an extension that is not served.
    """
    for name in parameters:
        for prefix, extension in UNSERVED.items():
            if name.startswith(prefix):
                raise ValueError(
                    f"'{name}' asks for the extension {extension}, which is not served"
                )


def to_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """Convert elements that came one by one to bytes.

    Args:
        datatype: The protocol's datatype.
        values: The elements, nested or not.

    Raises:
        ValueError: An element does not fit the datatype.
    """
    dtype = _numpy(datatype)
    if datatype == "BF16":
        raise ValueError("numpy has no BF16; send its elements as bytes")

    # As objects, elements keep their types: numpy would make numbers of booleans, or text.
    elements: list[Any] = np.asarray(values, object).ravel().tolist()
    odd = {type(element) for element in elements} - _TYPES["S" if dtype is None else dtype.kind]
    if odd:
        raise ValueError(f"an element of type {odd.pop().__name__} is not {datatype}")
    if dtype is None:
        return _pack_strings(elements)

    # Floats are converted as doubles first, so that an overflow is an error.
    wide = np.float64 if dtype.kind == "f" else dtype
    try:
        with np.errstate(over="raise"):
            return np.array(elements, wide).astype(dtype).tobytes()
    except ArithmeticError as error:
        raise ValueError(f"an element does not fit into {datatype}") from error


def _numpy(datatype: str) -> np.dtype[Any] | None:
    """The numpy type of a datatype, None for BYTES. Raises ValueError for an unknown one."""
    if datatype not in NUMPY and datatype != "BYTES":
        raise ValueError(f"unknown datatype '{datatype}'; known: {', '.join(NUMPY)}, BYTES")
    return NUMPY.get(datatype)


def _pack_strings(items: Iterable[bytes | str]) -> bytes:
    """Write elements of BYTES, each behind its length."""
    packed: list[bytes] = []
    for item in items:
        data = item if isinstance(item, bytes) else item.encode()
        packed += (len(data).to_bytes(4, "little"), data)
    return b"".join(packed)


def _unpack_strings(packed: bytes | memoryview) -> NDArray[Any]:
    """Read elements of BYTES. Raises ValueError if one is cut off."""
    data, items, offset = bytes(packed), list[str](), 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        item = data[offset + 4 : offset + 4 + size]
        if len(item) != size or offset + 4 > len(data):
            raise ValueError("it ends within an element")
        items.append(item.decode())
        offset += 4 + size
    return np.array(items, dtype=object)
