"""The gRPC door: inference.GRPCInferenceService."""

import asyncio
import contextlib
import logging
from typing import Any

import grpc
import grpc.aio

from irsplit.runtime.serving import protobuf
from irsplit.runtime.serving.bearer import check_bearer
from irsplit.runtime.serving.grpc_methods import METHODS, OPEN, GrpcMethods
from irsplit.runtime.serving.logs import event
from irsplit.runtime.serving.messages import ServiceError
from irsplit.runtime.serving.service import Service

_LOG = logging.getLogger("irsplit.serve")
_MESSAGE_OVERHEAD = 1 << 16
"""What a request may be larger than its frame: names, parameters, tags."""


class GrpcDoor:
    """Listens until `stop`, also when gRPC does not.

    A connection has at most `streams` requests under way, so that one whose answers nobody reads holds no more.
    """

    def __init__(self, service: Service, token: str, frame_bytes: int, streams: int) -> None:
        self._methods = GrpcMethods(service)
        self._token = token
        limit = frame_bytes + _MESSAGE_OVERHEAD
        self._options = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", streams),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 30000),
            ("grpc.keepalive_timeout_ms", 10000),
        ]
        self._handlers = {name: self._handler(name) for name in METHODS}

    async def start(self, address: str, port: int, credentials: Any = None) -> int:
        """The port that it listens on; 0 takes a free one. Raises RuntimeError when it is taken."""
        self._address, self._credentials, self._stopping = address, credentials, False
        self._server, self._port = await self._listen(port)
        self._watch = asyncio.create_task(self._keep_listening())
        return self._port

    async def stop(self, grace_s: float) -> None:
        self._stopping = True
        await self._server.stop(grace_s)
        await self._watch

    async def _listen(self, port: int) -> tuple[Any, int]:
        server = grpc.aio.server(options=self._options)
        methods = grpc.method_handlers_generic_handler(protobuf.SERVICE, self._handlers)
        server.add_generic_rpc_handlers((methods,))
        address = f"{self._address}:{port}"
        if self._credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, self._credentials)
        await server.start()
        return server, port

    async def _keep_listening(self) -> None:
        """grpc.aio ends its server for all clients when one asks for a method whose name is no UTF-8."""
        while True:
            with contextlib.suppress(Exception):  # what ended it; the log of asyncio has it
                await self._server.wait_for_termination()
            if self._stopping:
                return
            event(_LOG, logging.WARNING, "gRPC ended by a request, listening again", port=self._port)
            self._server, _ = await self._listen(self._port)

    def _handler(self, name: str) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
                if name not in OPEN:
                    check_bearer(_authorization(context), self._token, "grpc")
                return await self._methods.call(name, request, context.time_remaining())
            except ServiceError as error:
                context.set_trailing_metadata((("irsplit-code", error.code.value[0]),))
                await context.abort(grpc.StatusCode[error.code.grpc], error.text)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=protobuf.message(f"{name}Request").FromString,
            response_serializer=protobuf.message(f"{name}Response").SerializeToString,
        )


def _authorization(context: Any) -> str:
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "authorization"), "")
