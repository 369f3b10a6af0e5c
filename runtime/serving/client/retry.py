"""One request to the server, as often as it takes within its time: attempts, back-off, circuit breaker, probes."""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from irsplit.runtime.serving.client.breaker import Breaker
from irsplit.runtime.serving.client.received import Received
from irsplit.runtime.serving.client.transport import Transport, TransportError
from irsplit.runtime.serving.protocol.checksum import (
    DIGEST,
    contents_digest,
    sealed,
    why_not_believed,
)
from irsplit.runtime.serving.protocol.messages import Code, InferRequest, InferResponse

_PROBE_TIMEOUT_S = 1.0
_PROBE_TICK_S = 0.05
_PING_TIMEOUT_S = 2.0

Read = Callable[[InferResponse], Received]
"""What an answer brings. Raises TransportError for one that does not fit."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often to try.

    An attempt gets half of the time that is left, the last one all of it, so that a connection that only looks alive
    does not eat the whole deadline. Back-off doubles from `backoff_s`, with jitter.
    """

    attempts: int = 4
    backoff_s: float = 0.05
    breaker_failures: int = 3
    probe_s: float = 0.5
    longest_probe_s: float = 30.0


DEFAULT_PATIENCE = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answer and what it brings, after how many attempts, and the seconds of the successful one."""

    response: InferResponse
    received: Received
    attempts: int
    seconds: float


class ExchangeFailed(Exception):
    """`code` None: the link; else what the server said last."""

    def __init__(self, code: Code | None, text: str, attempts: int) -> None:
        super().__init__(text)
        self.code = code
        self.attempts = attempts


class RetryingClient:
    """Sends requests through a transport. Thread-safe.

    With `checked`, an answer must carry its checksum: one whose checksum's very name was damaged is not believed.
    """

    def __init__(
        self,
        transport: Transport,
        patience: RetryPolicy,
        checked: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._checked = checked
        self._clock = clock
        self._patience = patience
        self.breaker = Breaker(
            patience.breaker_failures, patience.probe_s, patience.longest_probe_s
        )
        self._random = random.Random()
        self._knows_digests = False
        """Whether the server's latest answer had a digest; an earlier release wants its checksum beside."""
        self._closed = threading.Event()
        self._prober: threading.Thread | None = None
        self._lock = threading.Lock()

    def send(self, request: InferRequest, deadline: float, read: Read) -> Exchange:
        """The answer before `deadline` by the clock, as `read` finds it, or ExchangeFailed.

        The request must be one that may be sent again: without state at the server, or with a step number.
        """
        if not self.breaker.closed:
            raise ExchangeFailed(None, "the link is known to be down (circuit open); probing it", 0)
        request = replace(request, contents=contents_digest(request.inputs))
        failure = TransportError(Code.DEADLINE, "no time was left to send it")
        attempt = 0
        while attempt < self._patience.attempts:
            left = deadline - self._clock()
            if left <= 0:
                break
            attempt += 1
            timeout = left if attempt == self._patience.attempts else left / 2
            try:
                response, seconds = self._attempt(request, timeout)
                received = read(response)
                self.breaker.succeeded()
                return Exchange(response, received, attempt, seconds)
            except TransportError as error:
                failure = error
            if failure.of_link:
                self._note_failure()
            if not failure.repeatable or not self.breaker.closed:
                break
            self._closed.wait(min(self._backoff(attempt), max(deadline - self._clock(), 0)))
        raise ExchangeFailed(failure.code, str(failure), attempt)

    def tell(self, request: InferRequest, timeout_s: float) -> None:
        """Send what nobody waits for, once; nothing on a link that is known to be down."""
        if self.breaker.closed:
            with contextlib.suppress(TransportError):
                self._attempt(request, timeout_s)

    def ping(self) -> float | None:
        """Seconds that an empty request takes over the connection in use; None when nothing comes back."""
        began = self._clock()
        return self._clock() - began if self._transport.ping(_PING_TIMEOUT_S) else None

    def close(self) -> None:
        self._closed.set()
        if self._prober is not None:
            self._prober.join()
        self._transport.close()

    def _attempt(self, request: InferRequest, timeout_s: float) -> tuple[InferResponse, float]:
        """The answer of the server itself, byte for byte, and its seconds. Raises TransportError."""
        request = sealed(
            request, {"timeout": int(timeout_s * 1e6)}, for_earlier=not self._knows_digests
        )
        began = self._clock()
        try:
            response = self._transport.infer(request, timeout_s)
        except TransportError as error:
            if error.code is Code.SESSION_LOST and "sequence_id" not in request.parameters:
                raise TransportError(
                    None, f"a session that there is not is said to be lost ({error})"
                ) from error
            raise
        seconds = self._clock() - began
        self._knows_digests = DIGEST in response.parameters
        doubt = why_not_believed(request, response, unsigned=not self._checked)
        if doubt:
            raise TransportError(None, doubt)
        return response, seconds

    def _backoff(self, attempt: int) -> float:
        return self._patience.backoff_s * 2 ** (attempt - 1) * self._random.uniform(0.5, 1.5)

    def _note_failure(self) -> None:
        self.breaker.failed()
        if self.breaker.closed:
            return
        with self._lock:
            if self._prober is None or not self._prober.is_alive():
                self._prober = threading.Thread(
                    target=self._probe, name="irsplit-probe", daemon=True
                )
                self._prober.start()

    def _probe(self) -> None:
        """Ask for readiness, ever more rarely, until the link is well."""
        while not self.breaker.closed and not self._closed.wait(_PROBE_TICK_S):
            if self.breaker.probe_due() and self._transport.ready(_PROBE_TIMEOUT_S):
                self.breaker.succeeded()
