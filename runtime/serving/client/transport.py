"""How requests travel: over gRPC (needs grpcio) or HTTP (needs nothing), with what went wrong told apart."""

import contextlib
import http.client
import importlib
import json
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, quote, urlsplit

from irsplit.base.errors import RemoteError
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
    """No answer. `code` None: the link failed, and whether the request was run is not known."""

    def __init__(self, code: Code | None, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def repeatable(self) -> bool:
        return self.code is None or self.code in REPEATABLE

    @property
    def of_link(self) -> bool:
        """Whether the link or the server's state is at fault, rather than the request."""
        return self.code in (None, Code.DRAINING, Code.OVERLOADED, Code.DEADLINE)


class Transport(Protocol):
    """Thread-safe. A connection that failed is not used again."""

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
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        headers, body = request_to_body(request)
        version = f"/versions/{quote(request.version, safe='')}" if request.version else ""
        path = f"/v2/models/{quote(request.model, safe='')}{version}/infer"
        status, given, answer = self._ask("POST", path, headers, body, timeout_s)
        if status != 200:
            raise TransportError(_code_of_status(status), reason_of(answer))
        try:
            return response_from_body(given, answer)
        except ServiceError as error:
            raise TransportError(None, error.text) from error

    def ready(self, timeout_s: float) -> bool:
        self._drop()
        try:
            return self._ask("GET", "/v2/health/ready", {}, b"", timeout_s)[0] == 200
        except TransportError:
            return False

    def ping(self, timeout_s: float) -> bool:
        try:
            return self._ask("GET", "/v2/health/live", {}, b"", timeout_s)[0] == 200
        except TransportError:
            return False

    def get(
        self, path: str, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Raises TransportError when there is no answer."""
        return self._ask("GET", path, headers, b"", timeout_s)

    def close(self) -> None:
        self._closed = True  # a request under way closes its connection itself
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self._take(timeout_s)
        try:
            connection.request(method, path, body, headers | self._headers)
            with connection.getresponse() as answer:
                given = {key.lower(): value for key, value in answer.getheaders()}
                content = answer.read(self._most_bytes + 1)
                if len(content) > self._most_bytes:
                    raise ValueError(f"an answer of more than {self._most_bytes} bytes")
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            code = Code.DEADLINE if isinstance(error, TimeoutError) else None
            raise TransportError(code, hinted(f"{type(error).__name__}: {error}")) from error
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return answer.status, given, content
        connection.close()
        return answer.status, given, content

    def _take(self, timeout_s: float) -> http.client.HTTPConnection:
        """An idle connection, or a new one that connects with its first request."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None and self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection


def hinted(text: str) -> str:
    """An error of a link in one line, with what to do about it where that is known."""
    text = "".join(
        sign if sign.isprintable() else " " for sign in text
    )  # it may quote what came in
    hint = next((hint for words, hint in _HINTS if words in text.lower()), None)
    return text if hint is None else f"{text}; {hint}"


def reason_of(body: bytes) -> str:
    """What a refusal says: the protocol's `error`, or all that there is."""
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        head = json.loads(text)
        text = str(head["error"]) if isinstance(head, dict) and "error" in head else text
    return text[:500]


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
