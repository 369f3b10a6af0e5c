"""The methods of inference.GRPCInferenceService on a service.

They take and return messages without listening themselves, so that both our frontend and a host
engine such as Ray Serve can call them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.bounds import check_count
from irsplit.runtime.serving.protocol.messages import (
    DATATYPES,
    InferRequest,
    ServiceError,
    timeout_s,
)
from irsplit.runtime.serving.server.service import ServerInfo, Service

METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
)

OPEN = ("ServerLive", "ServerReady")
"""Methods that need no token, because load balancers call them."""


_MOST_BYTES = 1 << 12
"""Size of a request that is no inference, at most."""
_AT_ONCE = 1 << 14
"""Bytes of a message, without raw contents, that are parsed on the event loop."""


class GrpcMethods:
    """Answers requests given as bytes with messages. Every method may raise ServiceError."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parser = ThreadPoolExecutor(1, "irsplit-parser")
        self._table: Mapping[str, Callable[[Any, float | None], Awaitable[Any]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }

    async def call(self, name: str, data: bytes, timeout_s: float | None = None) -> Any:
        """Answer one request.

        Args:
            name: One of METHODS.
            data: The request as protobuf.
            timeout_s: Time that gRPC leaves for it; None where the host does not say.

        Returns:
            The answer as a protobuf message.

        Raises:
            ServiceError: The request is no such message, or is refused.
        """
        try:
            if name == "ModelInfer":
                message: Any = await self._parsed(data)
            else:
                check_count("bytes", len(data), _MOST_BYTES)
                message = protobuf.parsed(f"{name}Request", data)
        except ServiceError as error:
            self._service.refused(error, "grpc")
            raise

        return await self._table[name](message, timeout_s)

    async def _parsed(self, data: bytes) -> InferRequest:
        """Parse a request; a large one on a thread, while others are answered."""
        described = protobuf.check_size(data)
        if described < _AT_ONCE:
            return protobuf.request_from_bytes(data)

        return await asyncio.get_running_loop().run_in_executor(
            self._parser, protobuf.request_from_bytes, data
        )

    async def _live(self, message: Any, _: float | None) -> Any:
        return protobuf.message("ServerLiveResponse")(live=True)

    async def _ready(self, message: Any, _: float | None) -> Any:
        return protobuf.message("ServerReadyResponse")(ready=self._service.ready)

    async def _model_ready(self, message: Any, _: float | None) -> Any:
        """As Triton does, say "not ready" for a model that the server does not have."""
        try:
            self._service.find(message.name, message.version)
        except ServiceError:
            return protobuf.message("ModelReadyResponse")(ready=False)

        return protobuf.message("ModelReadyResponse")(ready=self._service.ready)

    async def _server_metadata(self, message: Any, _: float | None) -> Any:
        info = ServerInfo()
        return protobuf.message("ServerMetadataResponse")(
            name=info.name, version=info.version, extensions=info.extensions
        )

    async def _model_metadata(self, message: Any, _: float | None) -> Any:
        bundle = self._service.find(message.name, message.version)
        return protobuf.message("ModelMetadataResponse")(
            name=bundle.name,
            versions=list(self._service.bundles[bundle.name]),
            platform=f"irsplit_{bundle.manifest.segments[-1].format}",
            inputs=map(_tensor_metadata, bundle.inputs),
            outputs=map(_tensor_metadata, bundle.outputs),
        )

    async def _infer(self, request: InferRequest, remaining_s: float | None) -> Any:
        limits = [limit for limit in (timeout_s(request), remaining_s) if limit is not None]
        response = await self._service.infer(request, min(limits, default=None))
        return protobuf.response_to_message(response)


def add_to_server(servicer: Any, server: Any) -> None:
    """Register the methods of a servicer that takes and returns bytes.

    Ray Serve calls this by the name that its `grpc_servicer_functions` give.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in METHODS
    }
    handler = grpc.method_handlers_generic_handler(protobuf.SERVICE, handlers)
    server.add_generic_rpc_handlers((handler,))


def _tensor_metadata(info: TensorInfo) -> Any:
    shape = [-1 if dim is None else dim for dim in info.shape or ()]
    return protobuf.message("TensorMetadata")(
        name=info.name, datatype=DATATYPES[info.dtype], shape=shape
    )
