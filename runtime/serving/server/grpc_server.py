"""The gRPC frontend: inference.GRPCInferenceService."""

import asyncio
import contextlib
import logging
from typing import Any

import grpc
import grpc.aio

from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.authenticator import Authenticator
from irsplit.runtime.serving.server.grpc_methods import METHODS, OPEN, GrpcMethods
from irsplit.runtime.serving.server.logs import event
from irsplit.runtime.serving.server.memory_budget import MemoryBudget, Reservation
from irsplit.runtime.serving.server.service import Service

_LOG = logging.getLogger("irsplit.serve")
_LATER = (Code.OVERLOADED, Code.DRAINING)
_PUSHBACK = ("grpc-retry-pushback-ms", "1000")
"""Tells stock clients that retry when to do so."""


HANDSHAKE_S = 20.0
"""A connection on which no HTTP/2 was spoken for so long is closed."""
AGE_S = 600.0
"""Age at which a connection is closed; its client opens another one."""
AGE_GRACE_S = 60.0
"""Time for the calls on such a connection to end; a client that reads no answer is dropped then."""


class GrpcFrontend:
    """Listens until `stop`, and begins again when gRPC's own server ends.

    Args:
        service: What answers.
        budget: The memory that messages take.
        authenticator: Checks the token.
        streams: Requests that one connection may have under way, so that a client which reads no
            answers holds no more.
        connections: Connections beyond which gRPC accepts none.
    """

    def __init__(
        self,
        service: Service,
        budget: MemoryBudget,
        authenticator: Authenticator,
        streams: int,
        connections: int,
    ) -> None:
        self._service = service
        self._methods = GrpcMethods(service)
        self._budget = budget
        self._authenticator = authenticator
        self._options = [
            ("grpc.max_receive_message_length", budget.largest),
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
        """Listen, and return the port; port 0 takes a free one.

        Raises:
            RuntimeError: The port is taken.
        """
        self._address, self._credentials, self._stopping = address, credentials, False
        self._server, self._port = await self._listen(port)
        self._watch = asyncio.create_task(self._keep_listening())
        return self._port

    async def stop(self, grace_s: float) -> None:
        """Stop listening; calls that take longer than `grace_s` are cancelled."""
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
        """Listen again whenever the server ends without being stopped.

        grpc.aio ends its server for all clients when one of them calls a method whose name is not
        UTF-8.
        """
        while True:
            # What ended it is in asyncio's log.
            with contextlib.suppress(Exception):
                await self._server.wait_for_termination()
            if self._stopping:
                return

            event(
                _LOG, logging.WARNING, "gRPC ended by a request, listening again", port=self._port
            )
            self._server, _ = await self._listen(self._port)

    def _handler(self, name: str) -> Any:
        """The handler of a method.

        Every method has one request. gRPC is told that there may be several, because it then hands
        over the call before it has received the request, and a client without the token is refused
        first.
        """

        async def answer(_: Any, context: Any) -> bytes:
            # The answer is sent after this coroutine has returned, so the reservation is closed by
            # gRPC when the call ends.
            reservation = Reservation(self._budget)
            context.add_done_callback(reservation.close)
            try:
                if name in OPEN:  # all of these requests are empty
                    data = b""
                else:
                    data = await self._admitted(context, reservation)

                message = await self._methods.call(name, data, context.time_remaining())
                packed: bytes = message.SerializeToString()
                reservation.resize(len(packed))
                return packed
            except ServiceError as error:
                later = (_PUSHBACK,) if error.code in _LATER else ()
                context.set_trailing_metadata((("irsplit-code", error.code.value[0]), *later))
                await context.abort(grpc.StatusCode[error.code.grpc], error.text)
                raise  # not reached: abort raises

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _admitted(self, context: Any, reservation: Reservation) -> bytes:
        """Read the request of a client that has the token; a refusal is counted."""
        try:
            await self._authenticator.check(_authorization(context), "grpc")
            return await self._request(context, reservation)
        except ServiceError as error:
            self._service.refused(error, "grpc")
            raise

    async def _request(self, context: Any, reservation: Reservation) -> bytes:
        """Read a request. gRPC does not tell its size before, so the largest is reserved first."""
        async with reservation:
            await reservation.acquire(self._budget.largest)
            data = await context.read()

        if not isinstance(data, bytes):
            raise ServiceError(Code.INVALID, "a call without a request")

        reservation.resize(len(data))
        return data


def _authorization(context: Any) -> str:
    """The authorization header of a call, "" if it has none."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return str(value)

    return ""
