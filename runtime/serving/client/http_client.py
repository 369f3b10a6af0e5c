"""A client's connection over HTTP: one exchange after the other, each within its deadline and its room."""

import http.client
import ssl
from collections.abc import Mapping
from typing import NamedTuple

from irsplit.runtime.serving.client.deadline import Deadline, Resolver, TimedSocket, connected

_PART_BYTES = 1 << 20


class Reply(NamedTuple):
    """Status, headers by their names in small letters, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClientConnection(http.client.HTTPConnection):
    """Connects with its first exchange, and again with the next one after its end."""

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
        """The reply, whose body has at most `most_bytes`; after an error the connection must be closed.

        Raises OSError, TimeoutError among them, HTTPException or ValueError.
        """
        self._deadline = deadline
        if self._timed is not None:
            self._timed.deadline = deadline
        self.request(method, path, body, headers)
        with self.getresponse() as answer:
            given = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, given, _body(answer, most_bytes))

    def is_quiet(self) -> bool:
        return self._timed is None or self._timed.is_quiet()

    def connect(self) -> None:
        opened = connected(self._resolver.addresses(self._deadline), self._deadline)
        self._timed = TimedSocket(opened, self._deadline)
        self.sock = self._timed  # pyright: ignore[reportAttributeAccessIssue]
        if self._tls is not None:
            self._timed.start_tls(self._tls, self.host)

    def close(self) -> None:
        super().close()
        self._timed = None


def _body(answer: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """What was announced is checked before any of it is read; where nothing was, what comes is counted."""
    announced = answer.length
    if announced is not None and announced > most_bytes:
        raise ValueError(
            f"the answer announces {announced} bytes, {most_bytes} are the most that it can have"
        )
    parts, size = list[bytes](), 0
    while part := answer.read(min(_PART_BYTES, most_bytes + 1 - size)):
        parts.append(part)
        size += len(part)
        if size > most_bytes:
            raise ValueError(
                f"the answer has more than {most_bytes} bytes, which are the most that it can have"
            )
    if announced is not None and size < announced:
        raise http.client.IncompleteRead(b"", announced - size)
    return b"".join(parts)
