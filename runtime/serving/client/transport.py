"""How requests travel: over gRPC (needs grpcio) or HTTP (needs nothing), with errors told apart."""

import contextlib
import http.client
import importlib
import json
import ssl
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, quote, urlsplit

from irsplit.base.errors import RemoteError
from irsplit.runtime.serving.client.deadline import Deadline, Resolver
from irsplit.runtime.serving.client.http_client import HttpClientConnection, Reply
from irsplit.runtime.serving.protocol.bearer import is_token
from irsplit.runtime.serving.protocol.http_messages import request_to_body, response_from_body
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
)

REPEATABLE = (Code.DRAINING, Code.OVERLOADED, Code.DEADLINE, Code.INTERNAL, Code.INVALID)
"""Errors that another attempt may not meet. INVALID is one, because the bytes of the request may
have been damaged on the way."""

_HINTS: tuple[tuple[str, str], ...] = (
    ("wrong_version_number", "the server does not speak TLS there; give grpc:// or http://"),
    ("expected settings frame", "no gRPC is spoken there; give the port of gRPC, or http://"),
    ("socket closed", "if the server has TLS, give grpcs://"),
    ("remote end closed connection", "if the server has TLS, give https://"),
    ("badstatusline", "no HTTP is spoken there; give the port of HTTP, or grpc://"),
    ("connection refused", "nobody listens there; give the address that 'irsplit serve' prints"),
    ("name or service not known", "no such host; give another, or its IP address"),
    ("address lookup failed", "no such host; give another, or its IP address"),
    ("self signed certificate", "give it as a certificate to trust"),
    ("self-signed certificate", "give it as a certificate to trust"),
)
"""Words of a library's error, and what to do about it."""

MOST_ANSWER_BYTES = 1 << 30
"""The largest answer that is read if the bundle does not tell how large answers can be."""
_SMALL_BYTES = 1 << 16
"""How much of an error's body is read."""
_TEXT_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to be let in, and how much it accepts.

    Attributes:
        token: The bearer token, empty for none.
        trusted: PEM file of the certificates to trust; None for those of the system.
        application: Name of the application on Ray Serve, empty for none.
        answer_bytes: The largest answer that is read.
    """

    token: str = field(default="", repr=False)
    trusted: Path | None = None
    application: str = ""
    answer_bytes: int = MOST_ANSWER_BYTES

    def __post_init__(self) -> None:
        """Raise RemoteError for a token that no header can carry, or no certificates."""
        if not is_token(self.token):
            raise RemoteError(
                "a token has visible ASCII characters only; give the one that the server has"
            )
        if self.trusted is None:
            return

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self.trusted)
        except OSError as error:  # ssl.SSLError is one
            raise RemoteError(
                f"{self.trusted}: no certificates to trust ({error}); give a PEM file"
            ) from error


class TransportError(Exception):
    """A request has no answer, or none that can be believed.

    The text may quote the server: it is one line of printable characters, cut off if it is long.

    Attributes:
        code: The server's error. None if the link failed: the request may or may not have run.
    """

    def __init__(self, code: Code | None, text: str) -> None:
        super().__init__(_one_line(text))
        self.code = code

    @property
    def repeatable(self) -> bool:
        """Whether another attempt may succeed."""
        return self.code is None or self.code in REPEATABLE

    @property
    def of_link(self) -> bool:
        """Whether the link or the server's state is at fault rather than the request."""
        return self.code in (None, Code.DRAINING, Code.OVERLOADED, Code.DEADLINE)


class Transport(Protocol):
    """Sends requests to one server. Thread-safe.

    A connection that failed is not used again. Each `timeout_s` is for everything together:
    connection, TLS, request and answer.
    """

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """Return the answer to a request. Raises TransportError if there is none."""
        ...

    def ready(self, timeout_s: float) -> bool:
        """Whether the server answers over a new connection that it is ready."""
        ...

    def ping(self, timeout_s: float) -> bool:
        """Whether the server answers an empty request over a connection in use."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class HttpTransport:
    """Sends requests over HTTP or HTTPS.

    Each connection serves one request at a time and is kept for the next one; as many are open
    as requests ran at once.

    Args:
        url: Address of the server.
        credentials: Token and certificates.
    """

    def __init__(self, url: SplitResult, credentials: Credentials) -> None:
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            trusted = credentials.trusted
            self._tls = ssl.create_default_context(cafile=None if trusted is None else str(trusted))

        self._headers: dict[str, str] = {}
        if credentials.token:
            self._headers["authorization"] = f"Bearer {credentials.token}"
        self._most_bytes = credentials.answer_bytes
        self._resolver = Resolver(self._host, self._port)
        self._lock = threading.Lock()
        self._idle: list[HttpClientConnection] = []
        self._closed = False

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """As `Transport.infer`."""
        headers, body = request_to_body(request)
        version = f"/versions/{quote(request.version, safe='')}" if request.version else ""
        path = f"/v2/models/{quote(request.model, safe='')}{version}/infer"
        with self._exchange("POST", path, headers, body, timeout_s) as reply:
            if reply.status == 200:
                return _response(request, reply)
        raise TransportError(_code_of_status(reply.status), reason_of(reply.body))

    def ready(self, timeout_s: float) -> bool:
        """As `Transport.ready`."""
        self._close_idle()
        return self._is_well("/v2/health/ready", timeout_s)

    def ping(self, timeout_s: float) -> bool:
        """As `Transport.ping`."""
        return self._is_well("/v2/health/live", timeout_s)

    def get(self, path: str, headers: dict[str, str], timeout_s: float) -> Reply:
        """Send a GET request.

        Args:
            path: Path and query.
            headers: Headers beside those of the credentials.
            timeout_s: Seconds for everything together.

        Returns:
            The reply, whatever its status.

        Raises:
            TransportError: There is no reply.
        """
        with self._exchange("GET", path, headers, b"", timeout_s) as reply:
            return reply

    def close(self) -> None:
        """Close the idle connections; a request under way closes its own when it ends."""
        self._closed = True
        self._close_idle()

    def _is_well(self, path: str, timeout_s: float) -> bool:
        try:
            return self.get(path, {}, timeout_s).status == 200
        except TransportError:
            return False

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float
    ) -> Generator[Reply]:
        """Yield the reply; the connection is kept only if the block raises nothing over it."""
        deadline = Deadline(timeout_s)
        connection = self._take()
        try:
            yield connection.exchange(
                method, path, headers | self._headers, body, deadline, self._most_bytes
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            code = Code.DEADLINE if isinstance(error, TimeoutError) else None
            raise TransportError(code, hinted(f"{type(error).__name__}: {error}")) from error
        except BaseException:
            connection.close()
            raise

        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _take(self) -> HttpClientConnection:
        """An idle connection, or a new one that connects with its first request."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return HttpClientConnection(self._host, self._port, self._tls, self._resolver)
            if connection.is_quiet():
                return connection
            connection.close()


def _response(request: InferRequest, reply: Reply) -> InferResponse:
    """Read the answer to a request. Raises TransportError if the reply is none."""
    try:
        response = response_from_body(reply.headers, reply.body)
    except ServiceError as error:
        raise TransportError(None, error.text) from error

    # Requests and answers of the connection may have got out of step.
    if response.id != request.id:
        raise TransportError(None, "the answer belongs to another request")
    return response


def hinted(text: str) -> str:
    """Return the text of a link's error, with what to do about it if that is known."""
    lower_case = text.lower()
    for words, hint in _HINTS:
        if words in lower_case:
            return f"{text}; {hint}"
    return text


def _one_line(text: str) -> str:
    """Text of a server, fit for a terminal: without line ends and control characters, and short."""
    text = "".join(sign if sign.isprintable() else " " for sign in text[: _TEXT_LENGTH + 1])
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}..."


def reason_of(body: bytes) -> str:
    """Return what an error's body says: the protocol's field `error`, or else the whole text."""
    text = body[:_SMALL_BYTES].decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        head = json.loads(text)
        if isinstance(head, dict) and "error" in head:
            text = str(head["error"])
    return _one_line(text)


def _code_of_status(status: int) -> Code | None:
    return next((code for code in Code if code.http == status), None)


def split_url(url: str) -> SplitResult:
    """Split the address of a server.

    Args:
        url: The address, such as grpc://server:8001.

    Returns:
        Its parts, of which the host is present and the port is valid or absent.

    Raises:
        RemoteError: The text is not the address of a server.
    """
    with contextlib.suppress(ValueError):  # a port that is no number, for example
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return parts
    raise RemoteError(
        f"{url}: is not the address of a server; give grpc://HOST:PORT, grpcs://, http:// or "
        "https://"
    )


def open_transport(url: str, credentials: Credentials) -> Transport:
    """Open a transport to a server; nothing is sent before the first request.

    Args:
        url: grpc://, grpcs://, http:// or https://HOST:PORT.
        credentials: Token and certificates.

    Raises:
        RemoteError: The address has another scheme, or gRPC is not installed.
    """
    parts = split_url(url)
    if parts.scheme in ("http", "https"):
        return HttpTransport(parts, credentials)
    if parts.scheme not in ("grpc", "grpcs"):
        raise RemoteError(f"{url}: give grpc://HOST:PORT, grpcs://, http:// or https://")

    try:
        module = importlib.import_module("irsplit.runtime.serving.client.grpc_transport")
    except ImportError as error:
        raise RemoteError(
            f"{url} needs gRPC ({error}); pip install 'irsplit[serve]', or use http://"
        ) from error
    return module.GrpcTransport(parts, credentials)
