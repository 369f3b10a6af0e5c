"""The HTTP door: the protocol's REST paths and /metrics, as an ASGI application."""

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
from irsplit.runtime.serving.server.doorkeeper import Doorkeeper
from irsplit.runtime.serving.server.logs import event
from irsplit.runtime.serving.server.memory_budget import MemoryBudget, Reservation
from irsplit.runtime.serving.server.patches import PatchMaker
from irsplit.runtime.serving.server.service import ServerInfo, Service

_LOG = logging.getLogger("irsplit.serve")
_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<what>/infer|/ready|/update)?"
)
_JSON = {"content-type": "application/json"}
_REFUSED = {
    Code.UNAUTHENTICATED: {"www-authenticate": "Bearer"},
    Code.OVERLOADED: {"retry-after": "1"},
    Code.DRAINING: {"retry-after": "1"},
}
"""Headers that HTTP wants with a refusal."""
_SENT_BYTES = 1 << 16
"""Of an answer at a time: about what a connection keeps of what its client does not read."""
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")
_PIECE_BYTES = 4 << 20
"""Of a patch in one answer, so that many devices that update take little memory."""

_SMALL_JSON = 1 << 14
_FEW_ELEMENTS = 1 << 12
"""Below these, going to a thread and back takes longer."""
_OBJECT_BYTES = 36
"""What a byte of JSON takes as an object, at most."""

_Result = TypeVar("_Result")
_Answer = tuple[int, Mapping[str, str], bytes]
_Receive = Callable[[], Awaitable[dict[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class HttpFrontend:
    def __init__(
        self,
        service: Service,
        bodies: MemoryBudget,
        doorkeeper: Doorkeeper,
        updates: PatchMaker | None = None,
    ) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(1, "irsplit-json")
        self._turn = asyncio.Lock()
        """One body at a time is taken apart beside the event loop: as objects it takes many times its bytes."""
        self._bodies = bodies
        self._updates = updates
        self._doorkeeper = doorkeeper
        self._plain: dict[str, Callable[[], _Answer]] = {
            "/v2": self._metadata,
            "/v2/health/live": lambda: (200, _JSON, b""),
            "/v2/health/ready": lambda: (200 if service.ready else 503, _JSON, b""),
            "/metrics": lambda: (
                200,
                {"content-type": "text/plain; version=0.0.4"},
                service.metrics.text(),
            ),
        }

    async def __call__(self, scope: dict[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        status, headers, body = await self.answer(scope, receive)
        packed = [(key.encode(), value.encode()) for key, value in headers.items()]
        packed.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": packed})
        with self._bodies.share() as share:
            share.hold(len(body))
            try:
                async with share:
                    await _sent(body, send)
            except ServiceError as error:  # the connection ends with an answer that is too short
                event(_LOG, logging.WARNING, "not read", text=error.text)

    async def answer(self, scope: dict[str, Any], receive: _Receive) -> _Answer:
        """Status, headers and body for a request, refusals too."""
        try:
            return await self._answer(scope, receive)
        except ServiceError as error:
            return _refused(error.code, error.text, **_REFUSED.get(error.code, {}))

    async def _answer(self, scope: dict[str, Any], receive: _Receive) -> _Answer:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        # A host may have put us behind a prefix of its own.
        path = str(scope["path"]).removeprefix(scope.get("root_path", "")).rstrip("/")
        if not path.startswith("/v2/health/"):
            try:
                await self._doorkeeper.check(headers.get("authorization", ""), "http")
            except ServiceError as error:
                self._service.refused(error, "http")
                raise
        match = _MODEL.fullmatch(path)
        if match is not None and match["what"] == "/infer":
            if scope["method"] != "POST":
                return _refused(
                    Code.WRONG_METHOD, f"{scope['method']} {path}: send POST", allow="POST"
                )
            return await self._infer(match["name"], match["version"] or "", headers, receive)
        if match is None and path not in self._plain:
            raise ServiceError(Code.NOT_FOUND, f"no such path: {path}")
        if scope["method"] not in ("GET", "HEAD"):
            return _refused(
                Code.WRONG_METHOD, f"{scope['method']} {path}: send GET", allow="GET, HEAD"
            )
        if match is None:
            return self._plain[path]()
        if match["what"] == "/update":
            return await self._update(
                match["name"], parse_qs(scope["query_string"].decode("latin-1")), headers
            )
        return self._model(match["name"], match["version"] or "", match["what"] == "/ready")

    def _model(self, name: str, version: str, readiness: bool) -> _Answer:
        bundle = self._service.find(name, version)
        if readiness:
            return (200 if self._service.ready else 503, _JSON, b"")
        described = {
            "name": bundle.name,
            "versions": list(self._service.bundles[bundle.name]),
            "platform": f"irsplit_{bundle.manifest.segments[-1].format}",
            "inputs": [_tensor_metadata(info) for info in bundle.inputs],
            "outputs": [_tensor_metadata(info) for info in bundle.outputs],
        }
        return 200, _JSON, json.dumps(described).encode()

    async def _infer(
        self, name: str, version: str, headers: Mapping[str, str], receive: _Receive
    ) -> _Answer:
        with self._bodies.share() as share:
            try:
                async with share:
                    body = await self._body(headers, receive, share)
                request, form = await self._request(name, version, headers, body, share)
            except ServiceError as error:
                self._service.refused(error, "http")
                raise
            response = await self._service.infer(request, timeout_s(request))
            if json_elements(response, form) < _FEW_ELEMENTS:
                return (200, *response_to_body(response, form))
            return (200, *await self._beside(response_to_body, response, form))

    async def _request(
        self,
        name: str,
        version: str,
        headers: Mapping[str, str],
        body: bytes | bytearray,
        share: Reservation,
    ) -> tuple[InferRequest, Form]:
        """The request in a body; a large JSON or a coded body is taken apart while others are answered."""
        coding, described = headers.get("content-encoding", ""), headers.get(HEADER_LENGTH, "")
        size = (
            min(int(described), len(body))
            if described.isdecimal() and len(described) < 20
            else len(body)
        )
        if not coding and size < _SMALL_JSON:
            return request_from_body(name, version, headers, body)
        async with self._turn:
            share.hold(
                (self._bodies.largest if coding else len(body))
                + _OBJECT_BYTES * min(size, JSON_BYTES)
            )
            if coding:
                body = await self._beside(expanded, coding, body, self._bodies.largest)
            request, form = await self._beside(request_from_body, name, version, headers, body)
            share.hold(len(body))
            return request, form

    async def _beside(self, call: Callable[..., _Result], *values: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *values)

    async def _update(
        self, name: str, query: Mapping[str, list[str]], headers: Mapping[str, str]
    ) -> _Answer:
        """What makes the latest build of the device's: nothing, or a piece of a patch."""
        if self._updates is None:
            raise ServiceError(Code.NOT_FOUND, "updates are not handed out here")
        digest, place = (query.get(key, [""])[0] for key in ("have", "place"))
        patch = await self._updates.patch(name, digest, place)
        if patch is None:
            return 204, {}, b""
        total = patch.stat().st_size
        match = _RANGE.fullmatch(headers.get("range", ""))
        first = int(match[1]) if match else 0
        last = min(int(match[2]) if match else total - 1, first + _PIECE_BYTES - 1, total - 1)
        if first > last:
            raise ServiceError(
                Code.INVALID, f"the patch has {total} bytes, none from {first} to {last}"
            )
        with patch.open("rb") as file:
            file.seek(first)
            piece = file.read(last - first + 1)
        described = {"etag": f'"{patch.name}"', "content-range": f"bytes {first}-{last}/{total}"}
        described |= {
            PIECE_DIGEST: piece_digest(described, piece),
            PIECE_CHECKSUM: piece_checksum(described, piece),
        }
        return 206, {"content-type": "application/octet-stream", **described}, piece

    async def _body(
        self, headers: Mapping[str, str], receive: _Receive, share: Reservation
    ) -> bytearray:
        """The request's body; refused by its announced size, and cut short by what really comes."""
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._bodies.largest:
            raise self._too_large(int(announced))
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ServiceError(Code.INVALID, "the client went away")
            part = message.get("body", b"")
            if len(body) + len(part) > self._bodies.largest:
                raise self._too_large(len(body) + len(part))
            await share.take(len(part))
            body += part
            more = bool(message.get("more_body", False))
        return body

    def _too_large(self, size: int) -> ServiceError:
        return ServiceError(
            Code.TOO_LARGE, f"body of {size} bytes or more; the limit is {self._bodies.largest}"
        )

    def _metadata(self) -> _Answer:
        info = ServerInfo()
        described = {
            "name": info.name,
            "version": info.version,
            "extensions": list(info.extensions),
        }
        return 200, _JSON, json.dumps(described).encode()


async def _sent(body: bytes, send: _Send) -> None:
    """Send a body, piece by piece as it is read."""
    for start in range(0, len(body) or 1, _SENT_BYTES):
        stop = start + _SENT_BYTES
        await send(
            {"type": "http.response.body", "body": body[start:stop], "more_body": stop < len(body)}
        )


def _refused(code: Code, text: str, **headers: str) -> _Answer:
    return code.http, _JSON | headers, json.dumps({"error": text, "code": code.value[0]}).encode()


def _tensor_metadata(info: TensorInfo) -> dict[str, Any]:
    shape = [-1 if dim is None else dim for dim in info.shape or ()]
    return {"name": info.name, "datatype": DATATYPES[info.dtype], "shape": shape}
