"""Connections to the HTTP door: uvicorn's, with bounds to what a stranger can send and to how long he may be quiet."""

import logging
import ssl
from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from irsplit.runtime.serving.server.connections import Crowd
from irsplit.runtime.serving.server.logs import Rarely

_LOG = logging.getLogger("irsplit.serve")

REQUESTS_AHEAD = 16
HEAD_BYTES = 1 << 16
"""Of what is no body, between two pieces of one: request lines, headers, trailers, sizes of chunks."""
QUIET_S = 75.0
"""A connection on which nothing moves for so long is closed, within twice the time, when it is the client's turn."""


class BoundedConnection(HttpToolsProtocol):
    """One of the `crowd`."""

    def __init__(self, *args: Any, crowd: Crowd, **options: Any) -> None:
        super().__init__(*args, **options)
        self._crowd = crowd

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self._received = 0
        self._head_bytes = 0
        self._moved = self._movements()
        self._watch = self.loop.call_later(QUIET_S, self._look)
        self._crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._crowd.moved(self)
        self._received += len(data)
        self._head_bytes += len(data)
        super().data_received(
            data
        )  # sets it back when a head is complete or a piece of a body has come
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"More than {HEAD_BYTES} bytes of headers.")

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()
        # uvicorn keeps all requests that it finds in what has arrived, thousands.
        if len(self.pipeline) > REQUESTS_AHEAD:
            raise ValueError(
                "too many requests ahead of their answers"
            )  # the parser stops: status 400, and the end

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def _movements(self) -> tuple[int, int]:
        """What changes when the client sends, or reads."""
        return self._received, self.transport.get_write_buffer_size()

    def _look(self) -> None:
        moved = self._movements()
        if moved == self._moved and not self.waits_for_us:
            self.transport.abort()
            return
        self._moved = moved
        self._watch = self.loop.call_later(QUIET_S, self._look)

    def drop(self) -> None:
        self.transport.abort()

    @property
    def waits_for_us(self) -> bool:
        """Whether it is for the server to go on: it has a whole request, and the client has read all answers so far."""
        cycle: Any = self.cycle
        whole = cycle is not None and not cycle.more_body and not cycle.response_complete
        return (whole or bool(self.pipeline)) and not self.transport.get_write_buffer_size()


def logged_handshakes() -> type[ssl.SSLObject]:
    """TLS of a server's connections: asyncio drops one whose handshake fails without a word."""
    rarely = Rarely(_LOG)

    class LoggedHandshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError as error:
                rarely.event(logging.WARNING, "TLS handshake failed", door="http", text=str(error))
                raise

    return LoggedHandshake
