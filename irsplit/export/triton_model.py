"""The server's side of a bundle on Triton: the model of its python backend, in processes of their own.

    tritonserver --model-repository=DIR      Triton's Python needs irsplit

Clients: irsplit.runtime.connect("grpc://HOST:8001", ..., checked=False), because Triton drops the answers' checksums.
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
CODES = {
    Code.INVALID: "INVALID_ARG",
    Code.TOO_LARGE: "INVALID_ARG",
    Code.MISMATCH: "NOT_FOUND",
    Code.SESSION_LOST: "NOT_FOUND",
    Code.OVERLOADED: "UNAVAILABLE",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.name = args["model_name"]
        here = Path(__file__).parent
        self.bundle = HostedBundle(
            here / "bundle", self.name, EngineOptions.load(here / "engine.json")
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        try:
            response = self.bundle.infer(self.read(request))
        except ServiceError as error:
            code = getattr(pb_utils.TritonError, CODES.get(error.code, "INTERNAL"))
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.text, code))
        return pb_utils.InferenceResponse([output(tensor) for tensor in response.outputs])

    def read(self, request: Any) -> InferRequest:
        # DLPack instead of as_numpy(): Triton's extension may be built for another numpy than irsplit needs.
        frame = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "frame"))
        parameters = json.loads(request.parameters() or "{}")
        # Triton takes these out of a request's parameters; the checksum is over all of them.
        if request.timeout():
            parameters["timeout"] = request.timeout()
        if request.correlation_id():
            parameters["sequence_id"] = request.correlation_id()
            parameters["sequence_start"] = bool(request.flags() & SEQUENCE_START)
        if request.flags() & SEQUENCE_END:
            parameters["sequence_end"] = True
        return InferRequest(
            self.name, "", [frame_tensor(frame.tobytes())], request.request_id(), parameters
        )


def output(tensor: WireTensor) -> Any:
    array = to_array(tensor)
    if array.dtype.kind not in "iuf":  # DLPack knows neither strings nor, everywhere, booleans
        return pb_utils.Tensor(tensor.name, array)
    capsule = np.array(array).__dlpack__()
    taken = pb_utils.Tensor.from_dlpack(tensor.name, capsule)
    # Triton marks the capsule as taken with a name of its own, at which numpy would complain for every answer.
    set_name = ctypes.pythonapi.PyCapsule_SetName
    set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
    set_name(capsule, b"used_dltensor")
    return taken
