"""The server's side of a bundle on KServe's model server.

    python model.py --model_name=NAME      what the container runs; needs kserve and irsplit[serve]

Clients: irsplit.runtime.connect("grpc://HOST:8081", ..., name=NAME).
"""

import argparse
from pathlib import Path
from typing import Any

import kserve
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse, to_http_parameters

from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.serving.protocol import messages
from irsplit.runtime.serving.server.service import service_of

HERE = Path(__file__).parent


class BundleModel(kserve.Model):
    """Answers requests that KServe has received."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        options = EngineOptions.load(HERE / "engine.json")
        self.service = service_of(HERE / "bundle", name, options=options)
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: Any = None,
    ) -> InferResponse:
        """Answer one request."""
        request = self.request_of(payload)
        try:
            response = await self.service.infer(request, messages.timeout_s(request))
        except messages.ServiceError as error:
            raise GrpcException(error.text, status_code=StatusCode[error.code.grpc]) from error

        return InferResponse(
            payload.id,
            self.name,
            [
                InferOutput(tensor.name, list(tensor.shape), tensor.datatype)
                for tensor in response.outputs
            ],
            response.version,
            raw_outputs=[bytes(tensor.data) for tensor in response.outputs],
            parameters=dict(response.parameters),
            use_binary_outputs=True,
        )

    def request_of(self, payload: InferRequest) -> messages.InferRequest:
        """A request of KServe as one of irsplit."""
        parameters = to_http_parameters(payload.parameters or {})
        parameters.pop("binary_data_output", None)  # KServe's own
        tensors = [
            messages.WireTensor(t.name, t.datatype, tuple(t.shape), t.as_numpy().tobytes())
            for t in payload.inputs
        ]
        outputs = tuple(output.name for output in payload.request_outputs or ())
        return messages.InferRequest(self.name, "", tensors, payload.id, parameters, outputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    arguments, _ = parser.parse_known_args()
    kserve.ModelServer().start([BundleModel(arguments.model_name)])
