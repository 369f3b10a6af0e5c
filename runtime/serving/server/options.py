"""How a server is started, and what must hold so that it is safe."""

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from irsplit.base.errors import ServeError
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.serving.protocol.bearer import is_token
from irsplit.runtime.serving.server.batching import Batching
from irsplit.runtime.serving.server.connections import MOST_CONNECTIONS
from irsplit.runtime.serving.server.served import Limits
from irsplit.runtime.serving.server.service import NO_BATCHING


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server is started.

    Beyond loopback both a token and TLS are required, unless `insecure`.

    Attributes:
        host: The address to listen on.
        port: gRPC's port; 0 takes a free one.
        http_port: HTTP's port; 0 takes a free one, None starts no HTTP frontend.
        workers: Requests that run at a time.
        queue: Requests that may wait.
        engine: How inference engines run.
        batching: How frames are gathered into one run.
        limits: What requests may take.
        token: What clients must send; "" admits everybody.
        certificate: PEM file of the TLS certificate.
        key: PEM file of its private key.
        insecure: Something else protects the server.
        grace_s: Time for requests to end when the server stops.
        connections: Connections to each frontend, at most; fewer where the process may have fewer
            files.
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

    def check(self) -> None:
        """Check that the server would be protected from strangers, and that it can work.

        Raises:
            ServeError: It would not, or cannot.
        """
        self._check_security()
        self._check_certificate()
        self._check_numbers()
        self._check_limits()

    def _check_security(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ServeError("a TLS certificate and its private key belong together; give both")
        if not is_token(self.token):
            raise ServeError("a token is made of visible ASCII characters; give another one")

        protected = self.token and self.certificate is not None
        if not (protected or self.insecure or _is_loopback(self.host)):
            raise ServeError(
                f"{self.host} can be reached from other machines: give a token, a TLS certificate "
                "and its key, or allow an insecure server if something else protects it"
            )

    def _check_certificate(self) -> None:
        if self.certificate is None or self.key is None:
            return

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise ServeError(
                f"{self.certificate} and {self.key} cannot be used ({error}); "
                "give PEM files that go together"
            ) from error

    def _check_numbers(self) -> None:
        if self.workers < 1 or self.queue < 0 or self.engine.threads < 0:
            raise ServeError(
                f"{self.workers} workers, {self.engine.threads} threads and a queue of "
                f"{self.queue}: give at least 1 worker, 1 thread (0: the engine chooses) and a "
                "queue of 0"
            )
        if self.connections < 1:
            raise ServeError(f"{self.connections} connections: give 1 or more")
        if self.grace_s < 0:
            raise ServeError(f"{self.grace_s:g} s to finish when told to stop: give 0 or more")

        for port in (self.port, self.http_port or 0):
            if not 0 <= port < 1 << 16:
                raise ServeError(f"{port} is no port; give 1 to 65535, or 0 for a free one")

        frames, delay_s = self.batching.frames, self.batching.delay_s
        if frames < 1 or delay_s < 0:
            raise ServeError(f"{frames} frames together after {delay_s} s: give 1 or more")

    def _check_limits(self) -> None:
        limits = self.limits
        if min(limits.rows, limits.decoded_bytes, limits.working_bytes) < 1:
            raise ServeError(
                f"{limits.rows} rows, {limits.decoded_bytes} decoded and "
                f"{limits.working_bytes} working bytes: give 1 or more of each"
            )
        if limits.held_bytes < limits.message_bytes:
            raise ServeError(
                f"{limits.held_bytes} bytes for all messages, but one may have "
                f"{limits.message_bytes}: raise the limit of all messages, or lower that of a frame"
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
