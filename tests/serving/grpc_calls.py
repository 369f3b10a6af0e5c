"""Calls of the gRPC door message by message, past every client."""

from typing import Any

import grpc

from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.server.server import Server


def model_infer(server: Server, message: Any) -> Any:
    """The answer to a ModelInferRequest, or the error."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(
            f"/{protobuf.SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=protobuf.message("ModelInferResponse").FromString,
        )
        try:
            return call(message, timeout=60)
        except grpc.RpcError as error:
            return error
