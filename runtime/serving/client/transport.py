"""How requests travel: over gRPC (needs grpcio) or HTTP (needs nothing), with what went wrong told apart."""

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
"""Refusals that another attempt may not meet; INVALID, because bytes may have been damaged on the way."""


_HINTS: tuple[tuple[str, str], ...] = (
    ("wrong_version_number", "the server does not speak TLS there; give grpc:// or http://"),
    ("expected settings frame", "no gRPC is spoken there; give the port of gRPC, or http://"),
    ("socket closed", "if the server has TLS, give grpcs://"),
    ("remote end closed connection", "if the server has TLS, give https://"),
    ("badstatusline", "no HTTP is spoken there; give the port of HTTP, or grpc://"),
    ("connection refused", "nobody listens there; give the address that 'irsplit serve' told"),
    ("name or service not known", "no such host; give another, or its IP address"),
    ("address lookup failed", "no such host; give another, or its IP address"),
    ("self signed certificate", "give it as a certificate to trust"),
    ("self-signed certificate", "give it as a certificate to trust"),
)
"""What to do about an error that says what is wrong in words of its own: what these have in common."""


MOST_ANSWER_BYTES = 1 << 30
"""Of an answer, where the bundle does not tell how large it can be."""
_SMALL_BYTES = 1 << 16
"""Of an answer that is a word or a sentence."""
_TEXT_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to get in: a bearer token, the certificates to trust (PEM; None: the system's), Ray Serve's application.

    An answer of more than `answer_bytes` is not read.
    """

    token: str = field(default="", repr=False)
    trusted: Path | None = None
    application: str = ""
    answer_bytes: int = MOST_ANSWER_BYTES

    def __post_init__(self) -> None:
        """Raise RemoteError for a token that no header carries, or a file without certificates."""
        if not is_token(self.token):
            raise RemoteError(
                "a token is of visible ASCII characters; give the one that the server has"
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
    """No answer, or none that can be believed. `code` None: the link failed, whether the request was run is not known.

    A text may quote what came in: it is one line of printable characters, and the rest of a long one is left out.
    """

    def __init__(self, code: Code | None, text: str) -> None:
        super().__init__(_one_line(text))
        self.code = code

    @property
    def repeatable(self) -> bool:
        return self.code is None or self.code in REPEATABLE

    @property
    def of_link(self) -> bool:
        """Whether the link or the server's state is at fault, rather than the request."""
        return self.code in (None, Code.DRAINING, Code.OVERLOADED, Code.DEADLINE)


class Transport(Protocol):
    """Thread-safe. A connection that failed is not used again.

    `timeout_s` is for everything together: connection, TLS, request and answer.
    """

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """Raises TransportError."""
        ...

    def ready(self, timeout_s: float) -> bool:
        """Whether a new connection finds a server that answers."""
        ...

    def ping(self, timeout_s: float) -> bool:
        """Whether an empty request is answered over a connection in use."""
        ...

    def close(self) -> None: ...


class HttpTransport:
    """Connections are kept and taken by one request at a time; as many are open as requests ran at once."""

    def __init__(self, url: SplitResult, access: Credentials) -> None:
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            self._tls = ssl.create_default_context(
                cafile=None if access.trusted is None else str(access.trusted)
            )
        self._headers = {"authorization": f"Bearer {access.token}"} if access.token else {}
        self._most_bytes = access.answer_bytes
        self._resolver = Resolver(self._host, self._port)
        self._lock = threading.Lock()
        self._idle: list[HttpClientConnection] = []
        self._closed = False

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        headers, body = request_to_body(request)
        version = f"/versions/{quote(request.version, safe='')}" if request.version else ""
        path = f"/v2/models/{quote(request.model, safe='')}{version}/infer"
        with self._asked("POST", path, headers, body, timeout_s) as reply:
            if reply.status == 200:
                return _response(request, reply)
        raise TransportError(_code_of_status(reply.status), reason_of(reply.body))

    def ready(self, timeout_s: float) -> bool:
        self._drop()
        return self._is_well("/v2/health/ready", timeout_s)

    def ping(self, timeout_s: float) -> bool:
        return self._is_well("/v2/health/live", timeout_s)

    def get(self, path: str, headers: dict[str, str], timeout_s: float) -> Reply:
        """Status, headers and body. Raises TransportError when there is no answer."""
        with self._asked("GET", path, headers, b"", timeout_s) as reply:
            return reply

    def close(self) -> None:
        self._closed = True  # a request under way closes its connection itself
        self._drop()

    def _is_well(self, path: str, timeout_s: float) -> bool:
        try:
            return self.get(path, {}, timeout_s).status == 200
        except TransportError:
            return False

    def _drop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float
    ) -> Generator[Reply]:
        """The reply. A connection is used again only when the block finds nothing wrong with its reply."""
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
    try:
        response = response_from_body(reply.headers, reply.body)
    except ServiceError as error:
        raise TransportError(None, error.text) from error
    if response.id != request.id:  # what the connection brings is out of step with what is asked
        raise TransportError(None, "the answer is one to another request")
    return response


def hinted(text: str) -> str:
    """An error of a link in one line, with what to do about it where that is known."""
    hint = next((hint for words, hint in _HINTS if words in text.lower()), None)
    return text if hint is None else f"{text}; {hint}"


def _one_line(text: str) -> str:
    """What came in, for a terminal: without line ends and control characters."""
    text = "".join(sign if sign.isprintable() else " " for sign in text[: _TEXT_LENGTH + 1])
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}..."


def reason_of(body: bytes) -> str:
    """What a refusal says: the protocol's `error`, or all that there is."""
    text = body[:_SMALL_BYTES].decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        head = json.loads(text)
        text = str(head["error"]) if isinstance(head, dict) and "error" in head else text
    return _one_line(text)


def _code_of_status(status: int) -> Code | None:
    return next((code for code in Code if code.http == status), None)


def split_url(url: str) -> SplitResult:
    """An address that has a host and, where it has one, a port that is one. Raises RemoteError."""
    with contextlib.suppress(ValueError):  # of a port that is none, say
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return parts
    raise RemoteError(
        f"{url}: is no address of a server; give grpc://HOST:PORT, grpcs://, http:// or https://"
    )


def open_transport(url: str, access: Credentials) -> Transport:
    """A transport for grpc://, grpcs://, http:// or https://HOST:PORT. Raises RemoteError for other addresses."""
    parts = split_url(url)
    if parts.scheme in ("http", "https"):
        return HttpTransport(parts, access)
    if parts.scheme not in ("grpc", "grpcs"):
        raise RemoteError(f"{url}: give grpc://HOST:PORT, grpcs://, http:// or https://")
    try:
        module = importlib.import_module("irsplit.runtime.serving.client.grpc_transport")
    except ImportError as error:
        raise RemoteError(
            f"{url} needs gRPC ({error}); pip install 'irsplit[serve]', or use http://"
        ) from error
    return module.GrpcTransport(parts, access)
