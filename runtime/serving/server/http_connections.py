"""Connections to the HTTP frontend.

They are uvicorn's, with limits to what a stranger can send and to how long he may be quiet.
"""

import logging
import ssl
from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from irsplit.runtime.serving.server.connections import ConnectionLimiter
from irsplit.runtime.serving.server.logs import RateLimitedLog

_LOG = logging.getLogger("irsplit.serve")

REQUESTS_AHEAD = 16
"""Requests that a client may send before it has read their answers."""
HEAD_BYTES = 1 << 16
"""Bytes between two pieces of bodies: request lines, headers, trailers, sizes of chunks."""
QUIET_S = 75.0
"""A connection on which nothing moves for so long is closed if it is the client's turn.

It is checked once in this time, so closing takes up to twice as long.
"""


class BoundedConnection(HttpToolsProtocol):
    """A connection that `limiter` counts and may drop."""

    def __init__(self, *args: Any, limiter: ConnectionLimiter, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limiter = limiter

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self._received_bytes = 0
        self._head_bytes = 0
        self._last_activity = self._activity()
        self._watch = self.loop.call_later(QUIET_S, self._close_if_quiet)
        self._limiter.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limiter.remove(self)
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._limiter.touch(self)
        self._received_bytes += len(data)
        self._head_bytes += len(data)

        # The parser resets the count when a head is complete or a piece of a body has come.
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"More than {HEAD_BYTES} bytes of headers.")

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

        # uvicorn keeps every request in what has arrived, thousands of them. An exception stops the
        # parser: the client gets status 400, and the connection ends.
        if len(self.pipeline) > REQUESTS_AHEAD:
            raise ValueError("too many requests ahead of their answers")

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def _activity(self) -> tuple[int, int]:
        """Counts that change when the client sends or reads."""
        return self._received_bytes, self.transport.get_write_buffer_size()

    def _close_if_quiet(self) -> None:
        activity = self._activity()
        if activity == self._last_activity and not self.awaits_server:
            self.transport.abort()
            return

        self._last_activity = activity
        self._watch = self.loop.call_later(QUIET_S, self._close_if_quiet)

    def drop(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    @property
    def awaits_server(self) -> bool:
        """Whether the server has a whole request, and the client has read all answers so far."""
        cycle: Any = self.cycle
        is_whole = cycle is not None and not cycle.more_body and not cycle.response_complete
        all_read = not self.transport.get_write_buffer_size()
        return (is_whole or bool(self.pipeline)) and all_read


def logged_handshakes() -> type[ssl.SSLObject]:
    """A class of TLS connections that log failed handshakes; asyncio drops them without a word."""
    log = RateLimitedLog(_LOG)

    class LoggedHandshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError as error:
                log.event(logging.WARNING, "TLS handshake failed", door="http", text=str(error))
                raise

    return LoggedHandshake
