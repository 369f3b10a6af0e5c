"""What a bundle reads out of a request: its frame, the model's inputs, session and step."""

from collections.abc import Sequence

from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.serving.protocol.checksum import contents_digest
from irsplit.runtime.serving.protocol.messages import FRAME, Code, InferRequest, ServiceError
from irsplit.runtime.serving.server.sequences import Step

_STEP_TYPES = {
    "sequence_id": (str, int),
    "sequence_step": (int,),
    "sequence_start": (bool,),
    "sequence_end": (bool,),
}
"""Types of the parameters that name a session and its step."""


def frame_of(request: InferRequest) -> bytes | memoryview:
    """The frame of a request. Raises ServiceError if there is none, or not as bytes."""
    for tensor in request.inputs:
        if tensor.name != FRAME:
            continue

        size = len(tensor.data)
        if tensor.datatype != "UINT8" or tensor.shape != (size,):
            text = (
                f"'{FRAME}' is {tensor.datatype}{list(tensor.shape)} of {size} bytes; "
                "send UINT8[n] of n bytes"
            )
            raise ServiceError(Code.INVALID, text)

        return tensor.data

    raise ServiceError(Code.INVALID, f"no tensor '{FRAME}' in the request")


def has_frame(request: InferRequest) -> bool:
    """Whether a request brings a frame, and nothing else."""
    return [tensor.name for tensor in request.inputs] == [FRAME]


def input_shapes(request: InferRequest, inputs: Sequence[TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's `inputs` in a request that brings them.

    Raises:
        ServiceError: An input is missing, given twice, or has another number of dimensions.
    """
    shapes = {tensor.name: tensor.shape for tensor in request.inputs}
    if len(shapes) < len(request.inputs):
        raise ServiceError(Code.INVALID, "an input is given twice")

    for info in inputs:
        if info.name not in shapes:
            raise ServiceError(Code.INVALID, f"input '{info.name}' is missing")

        rank = len(shapes[info.name])
        if info.shape is not None and rank != len(info.shape):
            text = f"input '{info.name}' has {rank} dimensions; give {len(info.shape)}"
            raise ServiceError(Code.INVALID, text)

    return shapes


def step_of(request: InferRequest) -> tuple[str, Step]:
    """Name of the session and the step that a request asks for; the name is "" if it has none.

    Raises:
        ServiceError: A parameter has another type than it must have.
    """
    parameters = {
        name: request.parameters[name]
        for name in _STEP_TYPES
        if request.parameters.get(name) is not None
    }
    for name, value in parameters.items():
        if type(value) not in _STEP_TYPES[name]:
            kinds = " or ".join(kind.__name__ for kind in _STEP_TYPES[name])
            text = f"parameter '{name}' is {type(value).__name__}; send {kinds}"
            raise ServiceError(Code.INVALID, text)

    number = parameters.get("sequence_step")
    step = Step(
        number=None if number is None else int(number),
        start=bool(parameters.get("sequence_start", False)),
        end=bool(parameters.get("sequence_end", False)),
        contents=request.contents or contents_digest(request.inputs),
    )
    return str(parameters.get("sequence_id", "")), step
