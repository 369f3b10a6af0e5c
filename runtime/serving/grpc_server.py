"""The gRPC door: inference.GRPCInferenceService."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from irsplit.runtime.manifest import TensorInfo
from irsplit.runtime.serving import protobuf
from irsplit.runtime.serving.messages import DATATYPES, Code, ServiceError
from irsplit.runtime.serving.service import ServerInfo, Service

_MESSAGE_OVERHEAD = 1 << 16
"""What a request may be larger than its frame: names, parameters, tags."""

_OPEN = ("ServerLive", "ServerReady")
"""Methods that need no token: a load balancer asks them."""

_Handler = Callable[[Any, Any], Awaitable[Any]]


class GrpcDoor:
    def __init__(self, service: Service, token: str, frame_bytes: int) -> None:
        self._service = service
        self._token = token
        limit = frame_bytes + _MESSAGE_OVERHEAD
        options = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 30000),
            ("grpc.keepalive_timeout_ms", 10000),
        ]
        self.server = grpc.aio.server(options=options)
        methods: dict[str, _Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {name: self._handler(name, call) for name, call in methods.items()}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(protobuf.SERVICE, handlers),))

    def _handler(self, name: str, call: _Handler) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
                if name not in _OPEN:
                    self._check_token(context)
                return await call(request, context)
            except ServiceError as error:
                context.set_trailing_metadata((("irsplit-code", error.code.value[0]),))
                await context.abort(grpc.StatusCode[error.code.grpc], error.text)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=protobuf.message(f"{name}Request").FromString,
            response_serializer=protobuf.message(f"{name}Response").SerializeToString,
        )

    def _check_token(self, context: Any) -> None:
        if not self._token:
            return
        given = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")
        if not hmac.compare_digest(str(given).encode(), f"Bearer {self._token}".encode()):
            raise ServiceError(Code.UNAUTHENTICATED, "the bearer token is missing or wrong")

    async def _live(self, request: Any, context: Any) -> Any:
        return protobuf.message("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        return protobuf.message("ServerReadyResponse")(ready=self._service.ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        self._service.find(request.name, request.version)
        return protobuf.message("ModelReadyResponse")(ready=self._service.ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        info = ServerInfo()
        return protobuf.message("ServerMetadataResponse")(
            name=info.name, version=info.version, extensions=info.extensions
        )

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        bundle = self._service.find(request.name, request.version)
        return protobuf.message("ModelMetadataResponse")(
            name=bundle.name,
            versions=list(self._service.bundles[bundle.name]),
            platform=f"irsplit_{bundle.manifest.segments[-1].format}",
            inputs=[_tensor_metadata(info) for info in bundle.inputs],
            outputs=[_tensor_metadata(info) for info in bundle.outputs],
        )

    async def _infer(self, message: Any, context: Any) -> Any:
        try:
            request = protobuf.request_from_message(message)
        except ValueError as error:
            raise ServiceError(Code.INVALID, str(error)) from error
        response = await self._service.infer(request, context.time_remaining())
        return protobuf.response_to_message(response)


def _tensor_metadata(info: TensorInfo) -> Any:
    shape = [-1 if dim is None else dim for dim in info.shape or ()]
    return protobuf.message("TensorMetadata")(name=info.name, datatype=DATATYPES[info.dtype], shape=shape)
