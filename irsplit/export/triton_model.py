"""The server's side of a bundle on Triton, as a model of its Python backend.

    tritonserver --model-repository=DIR      Triton's Python needs irsplit

Clients: irsplit.runtime.connect("grpc://HOST:8001", ..., checked=False), because Triton drops the
checksums of answers.
"""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    ServiceError,
    WireTensor,
    frame_tensor,
    to_array,
)
from irsplit.runtime.serving.server.hosted import HostedBundle

SEQUENCE_START, SEQUENCE_END = 1, 2
"""Flags of a request."""
CODES = {
    Code.INVALID: "INVALID_ARG",
    Code.TOO_LARGE: "INVALID_ARG",
    Code.MISMATCH: "NOT_FOUND",
    Code.SESSION_LOST: "NOT_FOUND",
    Code.OVERLOADED: "UNAVAILABLE",
}
"""Triton's words for refusals; all others are INTERNAL."""


class TritonPythonModel:
    """What Triton calls. The names of class and methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle."""
        self.name = args["model_name"]
        here = Path(__file__).parent
        options = EngineOptions.load(here / "engine.json")
        self.bundle = HostedBundle(here / "bundle", self.name, options)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer several requests."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Answer one request, a refusal with Triton's code."""
        try:
            response = self.bundle.infer(self.read(request))
        except ServiceError as error:
            code = getattr(pb_utils.TritonError, CODES.get(error.code, "INTERNAL"))
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.text, code))

        return pb_utils.InferenceResponse([output(tensor) for tensor in response.outputs])

    def read(self, request: Any) -> InferRequest:
        """A request of Triton as one of irsplit."""
        # DLPack instead of as_numpy(), because Triton's extension may be built for another numpy
        # than the one that irsplit needs.
        frame = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "frame"))

        # Triton takes these out of a request's parameters, but the checksum is over all of them.
        parameters = json.loads(request.parameters() or "{}")
        if request.timeout():
            parameters["timeout"] = request.timeout()
        if request.correlation_id():
            parameters["sequence_id"] = request.correlation_id()
            parameters["sequence_start"] = bool(request.flags() & SEQUENCE_START)

        if request.flags() & SEQUENCE_END:
            parameters["sequence_end"] = True

        tensors = [frame_tensor(frame.tobytes())]
        return InferRequest(self.name, "", tensors, request.request_id(), parameters)


def output(tensor: WireTensor) -> Any:
    """A tensor of an answer as Triton takes it."""
    array = to_array(tensor)
    # DLPack has no strings, and not everywhere booleans.
    if array.dtype.kind not in "iuf":
        return pb_utils.Tensor(tensor.name, array)

    capsule = np.array(array).__dlpack__()
    converted = pb_utils.Tensor.from_dlpack(tensor.name, capsule)
    # Triton marks a capsule as used with a name of its own, of which numpy would complain for every
    # answer. Set the name that the standard says.
    set_name = ctypes.pythonapi.PyCapsule_SetName
    set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
    set_name(capsule, b"used_dltensor")
    return converted
