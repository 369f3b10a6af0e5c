"""Send one request as often as its time allows: attempts, back-off, circuit breaker, probes."""

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
"""Reads what an answer carries. Raises TransportError for an answer that does not fit."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often to try.

    An attempt gets half of the time that is left, and the last one all of it, so that a
    connection that only looks alive does not use up the whole deadline.

    Attributes:
        attempts: The most attempts for one request.
        backoff_s: Seconds before the second attempt; they double with each further one, with
            jitter.
        breaker_failures: How many failures in a row open the circuit breaker.
        probe_s: Seconds from there to the first probe; they double with each further one.
        longest_probe_s: The most seconds between two probes.
    """

    attempts: int = 4
    backoff_s: float = 0.05
    breaker_failures: int = 3
    probe_s: float = 0.5
    longest_probe_s: float = 30.0


DEFAULT_RETRY_POLICY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was answered.

    Attributes:
        response: The answer.
        received: What the answer carries.
        attempts: How many attempts it took.
        seconds: How long the successful attempt took.
    """

    response: InferResponse
    received: Received
    attempts: int
    seconds: float


class ExchangeFailed(Exception):
    """A request has no answer.

    Attributes:
        code: The server's last error, None if the link failed.
        attempts: How many attempts were made.
    """

    def __init__(self, code: Code | None, text: str, attempts: int) -> None:
        super().__init__(text)
        self.code = code
        self.attempts = attempts


class RetryingClient:
    """Sends requests through a transport, and again if they fail. Thread-safe.

    Args:
        transport: Sends a request once. The client closes it.
        retry_policy: How long and how often to try.
        checked: Whether an answer must carry a checksum. Without this, an answer whose
            checksum has lost its name to damage would be believed.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        transport: Transport,
        retry_policy: RetryPolicy,
        checked: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._retry_policy = retry_policy
        self._checked = checked
        self._clock = clock
        self.breaker = Breaker(
            retry_policy.breaker_failures, retry_policy.probe_s, retry_policy.longest_probe_s
        )
        self._random = random.Random()
        self._knows_digests = False
        """Whether the server's last answer had a digest. A server of an earlier release has not,
        and wants the old checksum as well."""
        self._closed = threading.Event()
        self._prober: threading.Thread | None = None
        self._lock = threading.Lock()

    def send(self, request: InferRequest, deadline: float, read: Read) -> Exchange:
        """Send a request until it is answered or its time is up.

        Args:
            request: A request that may be sent again: without state at the server, or with a
                step number.
            deadline: When to give up, by the client's clock.
            read: Reads the answer; one that it refuses counts as a failed attempt.

        Raises:
            ExchangeFailed: There is no answer, or the circuit breaker is open.
        """
        if not self.breaker.closed:
            raise ExchangeFailed(None, "the link is known to be down (circuit open); probing it", 0)

        # The tensors stay the same from attempt to attempt, so they are hashed once.
        request = replace(request, contents=contents_digest(request.inputs))
        failure = TransportError(Code.DEADLINE, "no time was left to send it")
        attempt = 0
        while attempt < self._retry_policy.attempts:
            left = deadline - self._clock()
            if left <= 0:
                break

            attempt += 1
            is_last = attempt == self._retry_policy.attempts
            try:
                response, seconds = self._attempt(request, left if is_last else left / 2)
                received = read(response)
                self.breaker.succeeded()
                return Exchange(response, received, attempt, seconds)
            except TransportError as error:
                failure = error

            # A refused request says nothing against the link.
            if failure.of_link:
                self._note_failure()
            if not failure.repeatable or not self.breaker.closed:
                break
            self._closed.wait(min(self._backoff_s(attempt), max(deadline - self._clock(), 0)))
        raise ExchangeFailed(failure.code, str(failure), attempt)

    def tell(self, request: InferRequest, timeout_s: float) -> None:
        """Send a request once and ignore its outcome.

        Args:
            request: The request; it is not sent while the circuit breaker is open.
            timeout_s: How long to wait for the answer.
        """
        if self.breaker.closed:
            with contextlib.suppress(TransportError):
                self._attempt(request, timeout_s)

    def ping(self) -> float | None:
        """Return how many seconds an empty request takes, None if it is not answered."""
        began = self._clock()
        answered = self._transport.ping(_PING_TIMEOUT_S)
        return self._clock() - began if answered else None

    def close(self) -> None:
        """Stop waiting and probing, and close the transport."""
        self._closed.set()
        if self._prober is not None:
            self._prober.join()
        self._transport.close()

    def _attempt(self, request: InferRequest, timeout_s: float) -> tuple[InferResponse, float]:
        """Send a request once.

        Returns:
            The answer, as the server sent it byte for byte, and the seconds that it took.

        Raises:
            TransportError: There is no answer, or none that can be believed.
        """
        parameters = {"timeout": int(timeout_s * 1e6)}
        request = sealed(request, parameters, for_earlier=not self._knows_digests)
        began = self._clock()
        try:
            response = self._transport.infer(request, timeout_s)
        except TransportError as error:
            if error.code is Code.SESSION_LOST and "sequence_id" not in request.parameters:
                # A request without a session cannot lose one: the error's bytes are damaged.
                text = f"the server says that a session is lost, but there is none ({error})"
                raise TransportError(None, text) from error
            raise
        seconds = self._clock() - began

        # Checked on every answer: another server may have taken over at the same address.
        self._knows_digests = DIGEST in response.parameters
        doubt = why_not_believed(request, response, unsigned=not self._checked)
        if doubt:
            raise TransportError(None, doubt)
        return response, seconds

    def _backoff_s(self, attempt: int) -> float:
        jitter = self._random.uniform(0.5, 1.5)
        return self._retry_policy.backoff_s * 2 ** (attempt - 1) * jitter

    def _note_failure(self) -> None:
        """Tell the breaker; if that opens it, probes begin on a thread of their own."""
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
        """Ask the server whether it is ready, less and less often, until it says so."""
        while not self.breaker.closed and not self._closed.wait(_PROBE_TICK_S):
            if self.breaker.probe_due() and self._transport.ready(_PROBE_TIMEOUT_S):
                self.breaker.succeeded()
