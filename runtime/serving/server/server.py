"""A server: its bundles, both frontends, and an orderly end."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc
import uvicorn

from irsplit.base.errors import BundleError, ServeError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.serving.server.authenticator import Authenticator
from irsplit.runtime.serving.server.connections import (
    ACCEPTED_AT_ONCE,
    ConnectionLimiter,
    GrpcConnectionLimiter,
    connections_for,
    quiet_about_files,
    raise_file_limit,
)
from irsplit.runtime.serving.server.grpc_server import GrpcFrontend
from irsplit.runtime.serving.server.http_connections import (
    QUIET_S,
    BoundedConnection,
    logged_handshakes,
)
from irsplit.runtime.serving.server.http_server import HttpFrontend
from irsplit.runtime.serving.server.logs import RateLimitedLog, event
from irsplit.runtime.serving.server.memory_budget import MemoryBudget
from irsplit.runtime.serving.server.options import ServerOptions
from irsplit.runtime.serving.server.patches import MakePatch, PatchMaker
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.service import Service

__all__ = ["Server", "ServerOptions", "load_bundles", "serve", "serving"]

_T = TypeVar("_T")
_LOG = logging.getLogger("irsplit.serve")
_EXPIRY_PERIOD_S = 5.0
_GRPC_GRACE_S = 0.2
_SPARE_STREAMS = 16
"""Requests of a connection beyond a full queue: to be refused, and to ask for health."""


class Server:
    """A server inside a running event loop.

    Args:
        bundles: What it serves.
        options: How it is started.
        make_patch: Writes patches for devices; None serves no updates.

    Raises:
        ServeError: The options are unsafe or impossible.
    """

    def __init__(
        self,
        bundles: Sequence[ServedBundle],
        options: ServerOptions,
        make_patch: MakePatch | None = None,
    ) -> None:
        options.check()
        self.options = options
        self.port = 0
        self.http_port: int | None = None
        self.service = Service(bundles, options.workers, options.queue, options.batching)
        metrics, limits = self.service.metrics, options.limits
        self._budget = MemoryBudget(limits.held_bytes, limits.message_bytes, metrics)
        self._authenticator = Authenticator(options.token)
        self._updates = None if make_patch is None else PatchMaker(self.service, make_patch)

        self._most = connections_for(raise_file_limit(), options.connections)
        self._http_limiter = ConnectionLimiter(self._most, self._on_drop("http"))
        self._grpc_limiter = GrpcConnectionLimiter(
            lambda: self.port, self._most, self._on_drop("grpc")
        )
        metrics.connections.labels("http").set_function(self._http_limiter.__len__)
        metrics.connections.labels("grpc").set_function(self._grpc_limiter.__len__)

        streams = options.workers + options.queue + _SPARE_STREAMS
        self._grpc = GrpcFrontend(
            self.service, self._budget, self._authenticator, streams, self._most
        )
        self._http: _UvicornServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _on_drop(self, frontend: str) -> Callable[[], None]:
        """A function that counts and logs an idle connection which was closed for a new one."""
        dropped, log = self.service.metrics.dropped.labels(frontend), RateLimitedLog(_LOG)

        def on_drop() -> None:
            dropped.inc()
            text = f"the limit is {self._most}"
            log.event(logging.WARNING, "idle connection closed", door=frontend, text=text)

        return on_drop

    async def start(self) -> None:
        """Listen on both ports.

        Raises:
            ServeError: An address is taken.
        """
        report = partial(
            RateLimitedLog(_LOG).event, logging.ERROR, "no file is left for a connection"
        )
        asyncio.get_running_loop().set_exception_handler(quiet_about_files(report))

        await self._start_grpc(self.options.port)
        if self.options.http_port is not None:
            try:
                await self._start_http(self.options.http_port)
            except ServeError:
                await self._grpc.stop(0)
                raise

        self._tasks.append(asyncio.create_task(self.service.expire_sessions(_EXPIRY_PERIOD_S)))
        self._tasks.append(asyncio.create_task(self._grpc_limiter.watch()))

        names: list[str] = []
        for name, versions in self.service.bundles.items():
            names.extend(f"{name} {version}" for version in versions)
        event(
            _LOG,
            logging.INFO,
            "listening",
            host=self.options.host,
            grpc=self.port,
            http=self.http_port,
            bundles=names,
        )

    async def _start_grpc(self, port: int) -> None:
        host = _bracketed(self.options.host)
        credentials = None
        try:
            _check_free(self.options.host, port)
            if self.options.certificate is not None and self.options.key is not None:
                pair = (self.options.key.read_bytes(), self.options.certificate.read_bytes())
                credentials = grpc.ssl_server_credentials([pair])

            self.port = await self._grpc.start(host, port, credentials)
        except (RuntimeError, OSError) as error:
            raise ServeError(
                f"cannot listen on {host}:{port}: {error}; give gRPC another port, or another host"
            ) from error

    async def _start_http(self, port: int) -> None:
        address = f"{_bracketed(self.options.host)}:{port}"
        remedy = "give HTTP another port, or another host"
        try:
            _check_free(self.options.host, port)
        except OSError as error:
            raise ServeError(f"cannot listen on {address}: {error}; {remedy}") from error

        config = self._http_config(port)
        try:
            listener = config.bind_socket()
        except SystemExit as error:  # uvicorn exits when the address is taken
            raise ServeError(f"cannot listen on {address}; {remedy}") from error

        # Accepted connections inherit this. asyncio sets it only on sockets that say they are TCP,
        # and uvicorn's do not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        self.http_port = int(listener.getsockname()[1])
        self._http = _UvicornServer(config)
        self._tasks.append(asyncio.create_task(self._http.serve([listener])))
        # uvicorn has no event for this.
        while not self._http.started:
            await asyncio.sleep(0.005)

    def _http_config(self, port: int) -> uvicorn.Config:
        protocol = partial(BoundedConnection, limiter=self._http_limiter)
        config = uvicorn.Config(
            HttpFrontend(self.service, self._budget, self._authenticator, self._updates),
            host=self.options.host,
            port=port,
            http=protocol,  # pyright: ignore[reportArgumentType]
            backlog=ACCEPTED_AT_ONCE,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(QUIET_S),
            timeout_graceful_shutdown=int(self.options.grace_s),
            ssl_certfile=self.options.certificate,
            ssl_keyfile=self.options.key,
        )
        config.load()
        if config.ssl is not None:
            config.ssl.sslobject_class = logged_handshakes()
        return config

    async def stop(self) -> None:
        """Answer the requests that are here, refuse new ones, and close."""
        event(_LOG, logging.INFO, "draining", grace_s=self.options.grace_s)
        await self.service.drain(self.options.grace_s)
        await self._grpc.stop(_GRPC_GRACE_S)
        if self._http is not None:
            # The first task is the HTTP server, which ends by itself once it is told to.
            self._http.should_exit = True
            await self._tasks[0]
            await self._http.abort_connections()

        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._updates is not None:
            self._updates.close()
        event(_LOG, logging.INFO, "stopped")


class _UvicornServer(uvicorn.Server):
    """A uvicorn server that leaves signals to whoever runs both frontends."""

    async def abort_connections(self) -> None:
        """Close what shutting down has left: connections that came meanwhile, or never ended."""
        await asyncio.sleep(0)  # a connection that was accepted last has not been announced yet
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport = connection.transport
            transport.abort()
        await asyncio.sleep(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def load_bundles(words: Sequence[str], options: ServerOptions) -> list[ServedBundle]:
    """Open bundles that are given as FOLDER or NAME=FOLDER.

    Raises:
        BundleError: A folder is no bundle, or a name cannot be used.
        EngineError: An engine does not open a segment.
    """
    bundles: list[ServedBundle] = []
    for word in words:
        name, equals, folder = word.partition("=")
        manifest = Manifest.load(folder if equals else word)
        chosen = name if equals else manifest.name
        if not chosen or "/" in chosen:
            raise BundleError(
                f"{word}: '{chosen}' is no name for a bundle; give NAME=FOLDER without '/' in NAME"
            )

        bundles.append(ServedBundle(manifest, chosen, options.limits, options.engine))

    return bundles


async def serve(
    words: Sequence[str],
    options: ServerOptions,
    started: Callable[[Server], None],
    make_patch: MakePatch | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        words: Bundles, as `load_bundles` takes them.
        options: How the server is started.
        started: Called once it listens.
        make_patch: Writes patches for devices; None serves no updates.

    Raises:
        IrsplitError: A bundle or an option cannot be used, or an address is taken.
    """
    server = Server(load_bundles(words, options), options, make_patch)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    started(server)
    await stopping.wait()
    await server.stop()


@contextlib.contextmanager
def serving(
    words: Sequence[str], options: ServerOptions, make_patch: MakePatch | None = None
) -> Generator[Server]:
    """Serve on a thread of this process, for applications and tests; drain at the block's end.

    Args:
        words: Bundles, as `load_bundles` takes them.
        options: How the server is started.
        make_patch: Writes patches for devices; None serves no updates.

    Raises:
        IrsplitError: A bundle or an option cannot be used, or an address is taken.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="irsplit-server", daemon=True)
    thread.start()

    def on_loop(call: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(call, loop).result()

    async def create() -> Server:
        server = Server(load_bundles(words, options), options, make_patch)
        await server.start()
        return server

    try:
        server = on_loop(create())
        try:
            yield server
        finally:
            on_loop(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _check_free(host: str, port: int) -> None:
    """Raise OSError for an address that cannot be listened on.

    gRPC would not say why, and uvicorn would say it on a line apart.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
