"""A client's HTTP connection: one exchange after the other, each limited in time and size."""

import http.client
import ssl
from collections.abc import Mapping
from typing import NamedTuple

from irsplit.runtime.serving.client.deadline import Deadline, Resolver, TimedSocket, connected

_PIECE_BYTES = 1 << 20


class Reply(NamedTuple):
    """Status, headers by their lower-case names, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClientConnection(http.client.HTTPConnection):
    """Connects with its first exchange, and connects again with the next one after it was closed.

    Args:
        host: Name or IP address of the server.
        port: The server's port.
        tls: The TLS context, None for a plain connection.
        resolver: Looks up the addresses of the host.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, resolver: Resolver
    ) -> None:
        super().__init__(host, port)
        self.default_port = 80 if tls is None else 443
        self._tls = tls
        self._resolver = resolver
        self._deadline = Deadline(0)
        self._timed: TimedSocket | None = None

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: Deadline,
        most_bytes: int,
    ) -> Reply:
        """Send a request and read its reply. After an error, the connection must be closed.

        Args:
            method: The HTTP method.
            path: Path and query.
            headers: Headers of the request.
            body: Body of the request.
            deadline: For everything together: connection, TLS, request and reply.
            most_bytes: The largest body that is read.

        Raises:
            OSError: The connection failed; TimeoutError if the time is up.
            http.client.HTTPException: The reply is not HTTP.
            ValueError: The reply is too large.
        """
        # A connection that is not open yet takes the deadline when it opens.
        self._deadline = deadline
        if self._timed is not None:
            self._timed.deadline = deadline

        self.request(method, path, body, headers)
        with self.getresponse() as answer:
            lower_case = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, lower_case, _body(answer, most_bytes))

    def is_quiet(self) -> bool:
        """Whether the connection may be used for another exchange."""
        return self._timed is None or self._timed.is_quiet()

    def connect(self) -> None:
        """Open the connection, with TLS where it has it; `http.client` calls this."""
        opened = connected(self._resolver.addresses(self._deadline), self._deadline)
        self._timed = TimedSocket(opened, self._deadline)
        self.sock = self._timed  # pyright: ignore[reportAttributeAccessIssue]
        if self._tls is not None:
            self._timed.start_tls(self._tls, self.host)

    def close(self) -> None:
        super().close()
        self._timed = None


def _body(answer: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """Read a body of at most `most_bytes`.

    A size that the answer announces is checked before anything is read. Without one, the bytes
    are counted as they come.
    """
    announced = answer.length
    if announced is not None and announced > most_bytes:
        raise ValueError(
            f"the answer announces {announced} bytes, at most {most_bytes} are possible"
        )

    # One byte more than allowed tells that there are too many.
    pieces: list[bytes] = []
    size = 0
    while piece := answer.read(min(_PIECE_BYTES, most_bytes + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise ValueError(f"the answer has more than the {most_bytes} bytes that are possible")

    if announced is not None and size < announced:
        raise http.client.IncompleteRead(b"", announced - size)
    return b"".join(pieces)
