"""The HTTP frontend: the protocol's REST paths and /metrics, as an ASGI application."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qs

from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.serving.protocol.checksum import (
    PIECE_CHECKSUM,
    PIECE_DIGEST,
    piece_checksum,
    piece_digest,
)
from irsplit.runtime.serving.protocol.http_messages import (
    HEADER_LENGTH,
    JSON_BYTES,
    Form,
    expanded,
    json_elements,
    request_from_body,
    response_to_body,
)
from irsplit.runtime.serving.protocol.messages import (
    DATATYPES,
    Code,
    InferRequest,
    ServiceError,
    timeout_s,
)
from irsplit.runtime.serving.server.authenticator import Authenticator
from irsplit.runtime.serving.server.logs import event
from irsplit.runtime.serving.server.memory_budget import MemoryBudget, Reservation
from irsplit.runtime.serving.server.patches import PatchMaker
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.service import ServerInfo, Service

_LOG = logging.getLogger("irsplit.serve")
_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<action>/infer|/ready|/update)?"
)
_JSON = {"content-type": "application/json"}
_METRICS = {"content-type": "text/plain; version=0.0.4"}
_REFUSAL_HEADERS = {
    Code.UNAUTHENTICATED: {"www-authenticate": "Bearer"},
    Code.OVERLOADED: {"retry-after": "1"},
    Code.DRAINING: {"retry-after": "1"},
}
"""Headers that HTTP demands with a refusal."""
_SENT_BYTES = 1 << 16
"""Bytes of an answer that are sent at a time.

A connection buffers about as much of what its client does not read.
"""
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")
_PIECE_BYTES = 4 << 20
"""Bytes of a patch in one answer: devices that update take little memory, even many of them."""

_SMALL_JSON = 1 << 14
"""Bytes of JSON below which handing it to a thread takes longer than parsing it."""
_FEW_ELEMENTS = 1 << 12
"""Elements of an answer below which handing it to a thread takes longer than writing it as JSON."""
_OBJECT_BYTES = 36
"""Memory that one byte of JSON takes as objects, at most."""

_Result = TypeVar("_Result")
_Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""
_Receive = Callable[[], Awaitable[dict[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class HttpFrontend:
    """An ASGI application that answers HTTP requests.

    Args:
        service: What answers.
        budget: The memory that messages take.
        authenticator: Checks the token.
        updates: Makes patches for devices; None if there are none to be had.
    """

    def __init__(
        self,
        service: Service,
        budget: MemoryBudget,
        authenticator: Authenticator,
        updates: PatchMaker | None = None,
    ) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(1, "irsplit-json")
        self._parsing = asyncio.Lock()
        """Held while a large body is parsed: as objects it takes many times its bytes."""
        self._budget = budget
        self._updates = updates
        self._authenticator = authenticator
        self._pages: dict[str, Callable[[], _Answer]] = {
            "/v2": self._metadata,
            "/v2/health/live": lambda: (200, _JSON, b""),
            "/v2/health/ready": self._readiness,
            "/metrics": lambda: (200, _METRICS, service.metrics.text()),
        }

    async def __call__(self, scope: dict[str, Any], receive: _Receive, send: _Send) -> None:
        """Handle one request, as ASGI servers call it."""
        if scope["type"] != "http":
            return

        status, headers, body = await self.answer(scope, receive)
        packed = [(key.encode(), value.encode()) for key, value in headers.items()]
        packed.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": packed})

        with self._budget.reservation() as reservation:
            reservation.resize(len(body))
            try:
                async with reservation:
                    await _send_body(body, send)
            except ServiceError as error:
                # The status is sent already: the answer is too short, and the connection ends.
                event(_LOG, logging.WARNING, "not read", text=error.text)

    async def answer(self, scope: dict[str, Any], receive: _Receive) -> _Answer:
        """Answer one request.

        Args:
            scope: The request's ASGI scope.
            receive: Returns the next piece of its body, as ASGI defines it.

        Returns:
            Status, headers and body, also of a refusal.
        """
        try:
            return await self._answer(scope, receive)
        except ServiceError as error:
            return _refusal(error.code, error.text, **_REFUSAL_HEADERS.get(error.code, {}))

    async def _answer(self, scope: dict[str, Any], receive: _Receive) -> _Answer:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        # A host may have mounted this application behind a prefix of its own.
        path = str(scope["path"]).removeprefix(scope.get("root_path", "")).rstrip("/")
        if not path.startswith("/v2/health/"):
            await self._authenticate(headers)

        model = _MODEL.fullmatch(path)
        if model is None and path not in self._pages:
            raise ServiceError(Code.NOT_FOUND, f"no such path: {path}")

        method = scope["method"]
        action = "" if model is None else model["action"]
        allowed = ("POST",) if action == "/infer" else ("GET", "HEAD")
        if method not in allowed:
            text = f"{method} {path}: send {allowed[0]}"
            return _refusal(Code.WRONG_METHOD, text, allow=", ".join(allowed))

        if model is None:
            return self._pages[path]()

        name, version = model["name"], model["version"] or ""
        if action == "/infer":
            return await self._infer(name, version, headers, receive)
        if action == "/update":
            query = parse_qs(scope["query_string"].decode("latin-1"))
            return await self._update(name, query, headers)

        bundle = self._service.find(name, version)
        if action == "/ready":
            return self._readiness()

        return 200, _JSON, json.dumps(self._described(bundle)).encode()

    async def _authenticate(self, headers: Mapping[str, str]) -> None:
        try:
            await self._authenticator.check(headers.get("authorization", ""), "http")
        except ServiceError as error:
            self._service.refused(error, "http")
            raise

    def _readiness(self) -> _Answer:
        return 200 if self._service.ready else 503, _JSON, b""

    def _metadata(self) -> _Answer:
        info = ServerInfo()
        described = {
            "name": info.name,
            "version": info.version,
            "extensions": list(info.extensions),
        }
        return 200, _JSON, json.dumps(described).encode()

    def _described(self, bundle: ServedBundle) -> dict[str, Any]:
        """A bundle's metadata."""
        return {
            "name": bundle.name,
            "versions": list(self._service.bundles[bundle.name]),
            "platform": f"irsplit_{bundle.manifest.segments[-1].format}",
            "inputs": [_tensor_metadata(info) for info in bundle.inputs],
            "outputs": [_tensor_metadata(info) for info in bundle.outputs],
        }

    async def _infer(
        self, name: str, version: str, headers: Mapping[str, str], receive: _Receive
    ) -> _Answer:
        with self._budget.reservation() as reservation:
            try:
                async with reservation:
                    body = await self._body(headers, receive, reservation)
                request, form = await self._parse(name, version, headers, body, reservation)
            except ServiceError as error:
                self._service.refused(error, "http")
                raise

            response = await self._service.infer(request, timeout_s(request))
            if json_elements(response, form) < _FEW_ELEMENTS:
                return (200, *response_to_body(response, form))

            return (200, *await self._on_thread(response_to_body, response, form))

    async def _body(
        self, headers: Mapping[str, str], receive: _Receive, reservation: Reservation
    ) -> bytearray:
        """Receive a body. It is refused by the size that it announces, and by what really comes."""
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._budget.largest:
            raise self._too_large(int(announced))

        # Chunked bodies announce nothing, and a client may send more than it announced.
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ServiceError(Code.INVALID, "the client went away")

            piece = message.get("body", b"")
            if len(body) + len(piece) > self._budget.largest:
                raise self._too_large(len(body) + len(piece))

            await reservation.acquire(len(piece))
            body += piece
            more = bool(message.get("more_body", False))

        return body

    def _too_large(self, size: int) -> ServiceError:
        text = f"body of {size} bytes or more; the limit is {self._budget.largest}"
        return ServiceError(Code.TOO_LARGE, text)

    async def _parse(
        self,
        name: str,
        version: str,
        headers: Mapping[str, str],
        body: bytes | bytearray,
        reservation: Reservation,
    ) -> tuple[InferRequest, Form]:
        """Parse a body; a large or compressed one on a thread, while others are answered."""
        coding = headers.get("content-encoding", "")
        json_bytes = _json_bytes(headers, len(body))
        if not coding and json_bytes < _SMALL_JSON:
            return request_from_body(name, version, headers, body)

        async with self._parsing:
            # Reserve what the body takes as objects while it is parsed, then what remains of it.
            expanded_bytes = self._budget.largest if coding else len(body)
            reservation.resize(expanded_bytes + _OBJECT_BYTES * min(json_bytes, JSON_BYTES))
            if coding:
                body = await self._on_thread(expanded, coding, body, self._budget.largest)
            request, form = await self._on_thread(request_from_body, name, version, headers, body)
            reservation.resize(len(body))
            return request, form

    async def _on_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def _update(
        self, name: str, query: Mapping[str, list[str]], headers: Mapping[str, str]
    ) -> _Answer:
        """Hand out a piece of the patch to the latest build; 204 if the device has that build.

        The query has the digest of the device's build (`have`) and the side to patch (`place`). The
        Range header says which bytes.
        """
        if self._updates is None:
            raise ServiceError(Code.NOT_FOUND, "updates are not handed out here")

        digest = query.get("have", [""])[0]
        placement = query.get("place", [""])[0]
        patch = await self._updates.patch(name, digest, placement)
        if patch is None:
            return 204, {}, b""

        total = patch.stat().st_size
        match = _RANGE.fullmatch(headers.get("range", ""))
        first = int(match[1]) if match else 0
        last = min(int(match[2]) if match else total - 1, first + _PIECE_BYTES - 1, total - 1)
        if first > last:
            text = f"the patch has {total} bytes, none from {first} to {last}"
            raise ServiceError(Code.INVALID, text)

        with patch.open("rb") as file:
            file.seek(first)
            piece = file.read(last - first + 1)

        described = {"etag": f'"{patch.name}"', "content-range": f"bytes {first}-{last}/{total}"}
        checksums = {
            PIECE_DIGEST: piece_digest(described, piece),
            PIECE_CHECKSUM: piece_checksum(described, piece),
        }
        return 206, {"content-type": "application/octet-stream", **described, **checksums}, piece


async def _send_body(body: bytes, send: _Send) -> None:
    """Send a body piece by piece, as fast as it is read."""
    for start in range(0, len(body) or 1, _SENT_BYTES):
        stop = start + _SENT_BYTES
        await send(
            {"type": "http.response.body", "body": body[start:stop], "more_body": stop < len(body)}
        )


def _json_bytes(headers: Mapping[str, str], body_bytes: int) -> int:
    """Size of the JSON at the beginning of a body; the whole body unless a header says less."""
    described = headers.get(HEADER_LENGTH, "")
    if described.isdecimal() and len(described) < 20:
        return min(int(described), body_bytes)

    return body_bytes


def _refusal(code: Code, text: str, **headers: str) -> _Answer:
    return code.http, _JSON | headers, json.dumps({"error": text, "code": code.value[0]}).encode()


def _tensor_metadata(info: TensorInfo) -> dict[str, Any]:
    shape = [-1 if dim is None else dim for dim in info.shape or ()]
    return {"name": info.name, "datatype": DATATYPES[info.dtype], "shape": shape}
