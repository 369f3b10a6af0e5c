"""The gRPC door: inference.GRPCInferenceService."""

import asyncio
import contextlib
import logging
from typing import Any

import grpc
import grpc.aio

from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.doorkeeper import Doorkeeper
from irsplit.runtime.serving.server.grpc_methods import METHODS, OPEN, GrpcMethods
from irsplit.runtime.serving.server.logs import event
from irsplit.runtime.serving.server.memory_budget import MemoryBudget, Reservation
from irsplit.runtime.serving.server.service import Service

_LOG = logging.getLogger("irsplit.serve")
_LATER = (Code.OVERLOADED, Code.DRAINING)
_PUSHBACK = ("grpc-retry-pushback-ms", "1000")
"""Tells stock clients that repeat calls when to do so."""


HANDSHAKE_S = 20.0
"""A connection on which no HTTP/2 was spoken for so long is closed."""
AGE_S = 600.0
AGE_GRACE_S = 60.0
"""Of the calls on a connection that is so old: clients take another one, and who reads no answer is dropped."""


class GrpcFrontend:
    """Listens until `stop`, also when gRPC does not.

    A connection has at most `streams` requests under way, so that one whose answers nobody reads holds no more. Beyond
    `connections`, gRPC accepts none.
    """

    def __init__(
        self,
        service: Service,
        bodies: MemoryBudget,
        doorkeeper: Doorkeeper,
        streams: int,
        connections: int,
    ) -> None:
        self._service = service
        self._methods = GrpcMethods(service)
        self._bodies = bodies
        self._doorkeeper = doorkeeper
        self._options = [
            ("grpc.max_receive_message_length", bodies.largest),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", streams),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_S)),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 30000),
            ("grpc.keepalive_timeout_ms", 10000),
            ("grpc.max_connection_age_ms", int(1000 * AGE_S)),
            ("grpc.max_connection_age_grace_ms", int(1000 * AGE_GRACE_S)),
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
            event(
                _LOG, logging.WARNING, "gRPC ended by a request, listening again", port=self._port
            )
            self._server, _ = await self._listen(self._port)

    def _handler(self, name: str) -> Any:
        """Of a method with one request; gRPC knows it as one with several, to hand over the call before its request."""

        async def answer(_: Any, context: Any) -> bytes:
            share = Reservation(self._bodies)
            context.add_done_callback(share.close)
            try:
                if name in OPEN:  # all of these requests are empty
                    data = b""
                else:
                    data = await self._admitted(context, share)
                message = await self._methods.call(name, data, context.time_remaining())
                packed: bytes = message.SerializeToString()
                share.hold(len(packed))
                return packed
            except ServiceError as error:
                later = (_PUSHBACK,) if error.code in _LATER else ()
                context.set_trailing_metadata((("irsplit-code", error.code.value[0]), *later))
                await context.abort(grpc.StatusCode[error.code.grpc], error.text)
                raise  # not reached: abort raises

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _admitted(self, context: Any, share: Reservation) -> bytes:
        """The request of a client that may ask; counted when it is refused."""
        try:
            await self._doorkeeper.check(_authorization(context), "grpc")
            return await self._request(context, share)
        except ServiceError as error:
            self._service.refused(error, "grpc")
            raise

    async def _request(self, context: Any, share: Reservation) -> bytes:
        """How large it is shows when it is here: until then, it takes the room of the largest."""
        async with share:
            await share.take(self._bodies.largest)
            data = await context.read()
        if not isinstance(data, bytes):
            raise ServiceError(Code.INVALID, "a call without a request")
        share.hold(len(data))
        return data


def _authorization(context: Any) -> str:
    return next(
        (
            str(value)
            for key, value in context.invocation_metadata() or ()
            if key == "authorization"
        ),
        "",
    )
