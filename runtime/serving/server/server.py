"""A server: bundles, the two doors, security, and an orderly end."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from irsplit.base.errors import BundleError, ServeError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.serving.protocol.bearer import is_token
from irsplit.runtime.serving.server.batching import Batching
from irsplit.runtime.serving.server.connections import (
    ACCEPTED_AT_ONCE,
    MOST_CONNECTIONS,
    Crowd,
    GrpcCrowd,
    connections_for,
    quiet_about_files,
    raise_file_limit,
)
from irsplit.runtime.serving.server.doorkeeper import Doorkeeper
from irsplit.runtime.serving.server.grpc_server import GrpcFrontend
from irsplit.runtime.serving.server.http_connections import (
    QUIET_S,
    BoundedConnection,
    logged_handshakes,
)
from irsplit.runtime.serving.server.http_server import HttpFrontend
from irsplit.runtime.serving.server.logs import Rarely, event
from irsplit.runtime.serving.server.memory_budget import MemoryBudget
from irsplit.runtime.serving.server.patches import MakePatch, PatchMaker
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.service import NO_BATCHING, Service

_LOG = logging.getLogger("irsplit.serve")
_EXPIRY_PERIOD_S = 5.0
_SPARE_STREAMS = 16
"""Of a connection that has filled the queue: to be told so, and to ask for health."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """`port` is gRPC's, `http_port` HTTP's; 0 takes a free one, None leaves the HTTP door closed.

    Beyond loopback both `token` and TLS (`certificate` with its `key`, PEM files) are required, unless `insecure`.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    http_port: int | None = 8000
    workers: int = 2
    queue: int = 64
    engine: EngineOptions = ONE_THREAD
    batching: Batching = NO_BATCHING
    limits: Limits = field(default_factory=Limits)
    token: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    grace_s: float = 10.0
    connections: int = MOST_CONNECTIONS
    """To each door at most; fewer where the process may have fewer files."""

    def check(self) -> None:
        """Raise ServeError for what would leave the server open to strangers, or cannot work."""
        if (self.certificate is None) != (self.key is None):
            raise ServeError(
                "a certificate needs its key and a key its certificate; give --tls-cert and --tls-key"
            )
        if not is_token(self.token):
            raise ServeError(
                "a token is of visible ASCII characters; give another with --token-file"
            )
        protected = self.token and self.certificate is not None
        if not (_is_loopback(self.host) or protected or self.insecure):
            raise ServeError(
                f"{self.host} can be reached from other machines: give --token-file, --tls-cert and --tls-key, "
                "or --insecure if something else protects it"
            )
        if self.certificate is not None and self.key is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
            except OSError as error:  # ssl.SSLError is one
                files = f"{self.certificate} and {self.key}"
                raise ServeError(
                    f"{files} cannot be used ({error}); give PEM files that go together"
                ) from error
        if self.workers < 1 or self.queue < 0 or self.engine.threads < 0:
            raise ServeError(
                f"{self.workers} workers, {self.engine.threads} threads and a queue of {self.queue}: "
                "give at least 1 worker, 1 thread (0: the engine chooses) and a queue of 0"
            )
        if self.connections < 1:
            raise ServeError(f"{self.connections} connections: give 1 or more")
        if self.grace_s < 0:
            raise ServeError(f"{self.grace_s:g} s to finish when told to stop: give 0 or more")
        limits = self.limits
        if limits.rows < 1 or limits.decoded_bytes < 1 or limits.working_bytes < 1:
            raise ServeError(
                f"{limits.rows} rows, {limits.decoded_bytes} decoded and {limits.working_bytes} working bytes: "
                "give 1 or more of each"
            )
        if limits.held_bytes < limits.message_bytes:
            raise ServeError(
                f"{limits.held_bytes} bytes for all messages, but one may have {limits.message_bytes}: "
                "raise --max-held-bytes, or lower --max-frame-bytes"
            )
        for port in (self.port, self.http_port or 0):
            if not 0 <= port < 1 << 16:
                raise ServeError(f"{port} is no port; give 1 to 65535, or 0 for a free one")
        if self.batching.frames < 1 or self.batching.delay_s < 0:
            raise ServeError(
                f"{self.batching.frames} frames together after {self.batching.delay_s} s: give 1 or more"
            )


class Server:
    """A server inside a running event loop."""

    def __init__(
        self,
        bundles: Sequence[ServedBundle],
        options: ServerOptions,
        make_patch: MakePatch | None = None,
    ) -> None:
        options.check()
        self.options = options
        self.service = Service(bundles, options.workers, options.queue, options.batching)
        limits = options.limits
        self._bodies = MemoryBudget(limits.held_bytes, limits.message_bytes, self.service.metrics)
        streams = options.workers + options.queue + _SPARE_STREAMS
        self._most = connections_for(raise_file_limit(), options.connections)
        self._doorkeeper = Doorkeeper(options.token)
        self._grpc = GrpcFrontend(self.service, self._bodies, self._doorkeeper, streams, self._most)
        self._crowds: dict[str, Crowd | GrpcCrowd] = {
            "http": Crowd(self._most, self._dropping("http")),
            "grpc": GrpcCrowd(lambda: self.port, self._most, self._dropping("grpc")),
        }
        for door, crowd in self._crowds.items():
            self.service.metrics.connections.labels(door).set_function(crowd.__len__)
        self._updates = None if make_patch is None else PatchMaker(self.service, make_patch)
        self._http: uvicorn.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0
        self.http_port: int | None = None

    async def start(self) -> None:
        """Listen. Raises ServeError when an address is taken or a certificate is no good."""
        rarely = Rarely(_LOG)
        tell = partial(rarely.event, logging.ERROR, "no file is left for a connection")
        asyncio.get_running_loop().set_exception_handler(quiet_about_files(tell))
        host, port = _bracketed(self.options.host), self.options.port
        credentials = None
        try:
            _check_free(self.options.host, port)
            if self.options.certificate is not None and self.options.key is not None:
                pair = (self.options.key.read_bytes(), self.options.certificate.read_bytes())
                credentials = grpc.ssl_server_credentials([pair])
            self.port = await self._grpc.start(host, port, credentials)
        except (RuntimeError, OSError) as error:
            raise ServeError(
                f"cannot listen on {host}:{port}: {error}; give another --port or --host"
            ) from error
        if self.options.http_port is not None:
            try:
                await self._start_http(self.options.http_port)
            except ServeError:
                await self._grpc.stop(0)
                raise
        self._tasks.append(asyncio.create_task(self.service.expire_sessions(_EXPIRY_PERIOD_S)))
        self._tasks.append(asyncio.create_task(self._watch_grpc()))
        names = [
            f"{name} {version}"
            for name, versions in self.service.bundles.items()
            for version in versions
        ]
        event(
            _LOG,
            logging.INFO,
            "listening",
            host=self.options.host,
            grpc=self.port,
            http=self.http_port,
            bundles=names,
        )

    async def _watch_grpc(self) -> None:
        crowd = self._crowds["grpc"]
        assert isinstance(crowd, GrpcCrowd)
        await crowd.watch()

    def _dropping(self, door: str) -> Callable[[], None]:
        """What counts and logs a connection that had to go for another one."""
        dropped, rarely = self.service.metrics.dropped.labels(door), Rarely(_LOG)

        def tell() -> None:
            dropped.inc()
            rarely.event(
                logging.WARNING,
                "idle connection closed",
                door=door,
                text=f"the limit is {self._most}",
            )

        return tell

    async def _start_http(self, port: int) -> None:
        try:
            _check_free(self.options.host, port)
        except OSError as error:
            text = f"cannot listen on {_bracketed(self.options.host)}:{port}: {error}; give another --http-port or --host"
            raise ServeError(text) from error
        config = uvicorn.Config(
            HttpFrontend(self.service, self._bodies, self._doorkeeper, self._updates),
            host=self.options.host,
            port=port,
            http=partial(BoundedConnection, crowd=self._crowds["http"]),  # pyright: ignore[reportArgumentType]
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
        try:
            listener = config.bind_socket()
        except SystemExit as error:  # uvicorn's way to say that the address is taken
            raise ServeError(
                f"cannot listen on {self.options.host}:{port}; give another --http-port or --host"
            ) from error
        # Accepted connections inherit it; asyncio sets it only on sockets that say they are TCP, and these do not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.http_port = int(listener.getsockname()[1])
        self._http = _QuietServer(config)
        self._tasks.append(asyncio.create_task(self._http.serve([listener])))
        while not self._http.started:
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Answer what has been asked, refuse what comes, close."""
        event(_LOG, logging.INFO, "draining", grace_s=self.options.grace_s)
        await self.service.drain(self.options.grace_s)
        await self._grpc.stop(0.2)
        if self._http is not None:
            self._http.should_exit = True
            await self._tasks[0]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._updates is not None:
            self._updates.close()
        event(_LOG, logging.INFO, "stopped")


class _QuietServer(uvicorn.Server):
    """Signals are handled by whoever runs both doors."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def load_bundles(words: Sequence[str], options: ServerOptions) -> list[ServedBundle]:
    """Open bundles given as FOLDER or NAME=FOLDER. Raises BundleError, EngineError."""
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
    """Serve until SIGTERM or SIGINT, then drain. `started` is called once it listens."""
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
    """A server on a thread of this process, for applications and tests; drained when the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="irsplit-server", daemon=True)
    thread.start()

    def on_loop(call: Any) -> Any:
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_free(host: str, port: int) -> None:
    """Raise OSError for an address that cannot be listened on: gRPC would not say why, and uvicorn on a line apart."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
