"""The gRPC door: inference.GRPCInferenceService."""

import hmac
from typing import Any

import grpc
import grpc.aio

from irsplit.runtime.serving import protobuf
from irsplit.runtime.serving.grpc_methods import METHODS, OPEN, GrpcMethods
from irsplit.runtime.serving.messages import Code, ServiceError
from irsplit.runtime.serving.service import Service

_MESSAGE_OVERHEAD = 1 << 16
"""What a request may be larger than its frame: names, parameters, tags."""


class GrpcDoor:
    """A connection has at most `streams` requests under way, so that one whose answers nobody reads holds no more."""

    def __init__(self, service: Service, token: str, frame_bytes: int, streams: int) -> None:
        self._methods = GrpcMethods(service)
        self._token = token
        limit = frame_bytes + _MESSAGE_OVERHEAD
        options = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", streams),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 30000),
            ("grpc.keepalive_timeout_ms", 10000),
        ]
        self.server = grpc.aio.server(options=options)
        handlers = {name: self._handler(name) for name in METHODS}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(protobuf.SERVICE, handlers),))

    def _handler(self, name: str) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
                if name not in OPEN:
                    self._check_token(context)
                return await self._methods.call(name, request, context.time_remaining())
            except ServiceError as error:
                context.set_trailing_metadata((("irsplit-code", error.code.value[0]),))
                await context.abort(grpc.StatusCode[error.code.grpc], error.text)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=protobuf.message(f"{name}Request").FromString,
            response_serializer=protobuf.message(f"{name}Response").SerializeToString,
        )

    def _check_token(self, context: Any) -> None:
        if not self._token:
            return
        given = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")
        if not hmac.compare_digest(str(given).encode(), f"Bearer {self._token}".encode()):
            raise ServiceError(Code.UNAUTHENTICATED, "the bearer token is missing or wrong")
