"""The server's side of a bundle on Ray Serve, with as many replicas as the load asks for.

    serve run config.yaml      in this folder; needs ray[serve] and irsplit[serve]

gRPC and HTTP are the Open Inference Protocol, version 2. Clients:
irsplit.runtime.connect("grpc://HOST:9000", ...).
"""

from pathlib import Path
from typing import Any

import grpc
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext
from starlette.requests import Request
from starlette.responses import Response

from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.serving.protocol.messages import ServiceError
from irsplit.runtime.serving.server.authenticator import Authenticator
from irsplit.runtime.serving.server.grpc_methods import GrpcMethods
from irsplit.runtime.serving.server.http_server import HttpFrontend
from irsplit.runtime.serving.server.memory_budget import MemoryBudget
from irsplit.runtime.serving.server.served import Limits
from irsplit.runtime.serving.server.service import service_of

HERE = Path(__file__).parent


@serve.deployment
class Bundle:
    """A replica. Ray Serve calls the method of gRPC by name, and the object itself for HTTP."""

    def __init__(self, name: str = "") -> None:
        options = EngineOptions.load(HERE / "engine.json")
        service = service_of(HERE / "bundle", name, options=options)
        limits = Limits()
        budget = MemoryBudget(limits.held_bytes, limits.message_bytes, service.metrics)
        self.grpc = GrpcMethods(service)
        self.http = HttpFrontend(service, budget, Authenticator(""))

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        status, headers, body = await self.http.answer(dict(request.scope), request.receive)
        return Response(body, status, headers)

    async def ServerLive(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer("ServerLive", request, grpc_context)

    async def ServerReady(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer("ServerReady", request, grpc_context)

    async def ServerMetadata(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer("ServerMetadata", request, grpc_context)

    async def ModelReady(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer("ModelReady", request, grpc_context)

    async def ModelMetadata(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer("ModelMetadata", request, grpc_context)

    async def ModelInfer(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer("ModelInfer", request, grpc_context)

    async def answer(self, method: str, request: bytes, context: RayServegRPCContext) -> Any:
        """Answer one gRPC request, a refusal with its status."""
        try:
            return await self.grpc.call(method, request)
        except ServiceError as error:
            context.set_code(grpc.StatusCode[error.code.grpc])
            context.set_details(error.text)
            context.set_trailing_metadata([("irsplit-code", error.code.value[0])])
            raise


def app(arguments: dict[str, str]) -> serve.Application:
    """The application that config.yaml names; `arguments` are its `args`."""
    return Bundle.bind(**arguments)
