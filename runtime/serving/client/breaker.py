"""A circuit breaker: a link that keeps failing is left alone until a probe finds it well again."""

import threading
import time
from collections.abc import Callable
from enum import Enum

_GROWTH = 2.0


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"


class Breaker:
    """Opens after `failures` in a row. While it is open nothing is sent but probes, ever further apart. Thread-safe."""

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
        return self.state is State.CLOSED

    def succeeded(self) -> None:
        with self._lock:
            self.state, self._failures, self._probe_s = State.CLOSED, 0, self._first_probe_s

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self.state is State.CLOSED and self._failures >= self._allowed:
                self.state = State.OPEN
                self._next_probe = self._clock() + self._probe_s

    def probe_due(self) -> bool:
        """Whether to probe now; True once for every period, to one caller."""
        with self._lock:
            if self.state is State.CLOSED or self._clock() < self._next_probe:
                return False
            self._probe_s = min(self._probe_s * _GROWTH, self._longest_probe_s)
            self._next_probe = self._clock() + self._probe_s
            return True
