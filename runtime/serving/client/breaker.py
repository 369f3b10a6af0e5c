"""A circuit breaker: stops requests over a link that keeps failing until a probe succeeds."""

import threading
import time
from collections.abc import Callable
from enum import Enum

_GROWTH = 2.0


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"


class Breaker:
    """Opens after several failures in a row, and closes at the next success. Thread-safe.

    While it is open, nothing is sent but probes. Each probe doubles the time until the next one.

    Args:
        failures: How many failures in a row open the breaker.
        probe_s: Seconds from the opening to the first probe.
        longest_probe_s: The most seconds between two probes.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        failures: int,
        probe_s: float,
        longest_probe_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = failures
        self._first_probe_s = probe_s
        self._longest_probe_s = longest_probe_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_s = probe_s
        self._next_probe = 0.0
        self.state = State.CLOSED

    @property
    def closed(self) -> bool:
        """Whether requests may be sent."""
        return self.state is State.CLOSED

    def succeeded(self) -> None:
        """Note an answer or a successful probe: the breaker closes."""
        with self._lock:
            self.state = State.CLOSED
            self._failures = 0
            self._probe_s = self._first_probe_s

    def failed(self) -> None:
        """Note a failure; the one that is too many opens the breaker."""
        with self._lock:
            self._failures += 1
            if self.state is State.CLOSED and self._failures >= self._allowed:
                self.state = State.OPEN
                self._next_probe = self._clock() + self._probe_s

    def probe_due(self) -> bool:
        """Whether to probe now. Returns True once a period, to one caller only."""
        with self._lock:
            if self.state is State.CLOSED or self._clock() < self._next_probe:
                return False

            # The caller that gets True probes; the next probe is due after a longer time.
            self._probe_s = min(self._probe_s * _GROWTH, self._longest_probe_s)
            self._next_probe = self._clock() + self._probe_s
            return True
