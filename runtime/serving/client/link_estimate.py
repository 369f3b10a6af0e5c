"""What a client knows of its link and its server, from what its own requests took. Times are given, never asked for.

An average forgets with time, not with the number of samples: what was seen `span_s` ago counts 1/e of what is seen
now, whether one request came between or a thousand. The round trip is also kept as the least of the last seconds, the
link without queues and jitter, which is what a frame's time is compared with to learn the rate.
"""

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

SPAN_S = 3.0
"""Time constant of all averages."""
LEAST_OF_S = 10.0
"""Window in which the least round trip is sought."""
SMALL_BYTES = 2 * 1460
"""Both ways together, that tell the round trip, not the rate: a packet or so each way."""

_MOST_WEIGHT = 0.75
_LEAST_SHARE = 0.05


class Average:
    """Mean that forgets with a time constant; None before the first sample. No sample counts for more than
    three quarters.

    `price` is what the compiler expected, None where it was not asked.
    """

    def __init__(self, price: float | None = None, span_s: float = SPAN_S) -> None:
        self.price = price
        self._span_s = span_s
        self._at = 0.0
        self.value: float | None = None

    def add(self, sample: float, now: float) -> None:
        gap = max(now - self._at, 0.0)
        weight = min(-math.expm1(-gap / self._span_s), _MOST_WEIGHT)
        self.value = sample if self.value is None else self.value + weight * (sample - self.value)
        self._at = now


def expected(parts: Iterable[Average]) -> list[float] | None:
    """Every part's mean; one that was never measured is its price, times as much as the others' prices were off.

    None when a part has neither.
    """
    parts = list(parts)
    both = [
        (part.value, part.price)
        for part in parts
        if part.value is not None and part.price is not None
    ]
    priced = sum(price for _, price in both)
    factor = sum(value for value, _ in both) / priced if priced else 1.0
    found: list[float] = []
    for part in parts:
        if part.value is None and part.price is None:
            return None
        found.append((part.price or 0.0) * factor if part.value is None else part.value)
    return found


class Least:
    """The least of the last `window_s` seconds, None without samples: a queue in which every sample is above the one
    before, since a later and lower one makes those before it needless."""

    def __init__(self, window_s: float = LEAST_OF_S) -> None:
        self._window_s = window_s
        self._samples = deque[tuple[float, float]]()

    def add(self, sample: float, now: float) -> None:
        while self._samples and self._samples[-1][1] >= sample:
            self._samples.pop()
        self._samples.append((now, sample))
        while self._samples[0][0] < now - self._window_s:
            self._samples.popleft()

    @property
    def value(self) -> float | None:
        return self._samples[0][1] if self._samples else None


@dataclass(frozen=True, slots=True)
class Sending:
    """A request under way: what had been delivered when it began."""

    delivered: int


class LinkEstimate:
    """Rate and round trip of a link. Thread-safe.

    The rate is what was delivered, by all requests together, while one of them was under way, so that requests that
    share the link do not each take their share for the whole. One rate stands for both directions: answers are small.
    What is averaged is the time of a byte, since times add up to latency and rates do not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._byte_s = Average()
        self._rtt = Average()
        self._least_rtt = Least()
        self._delivered = 0
        self._told_rtt = self._told_rate = -math.inf

    @property
    def rate_bit_s(self) -> float | None:
        return None if self._byte_s.value is None else 8 / self._byte_s.value

    @property
    def rtt_s(self) -> float | None:
        return self._rtt.value

    def rtt_age_s(self, now: float) -> float:
        """Since when no request was small enough to tell the round trip."""
        return now - self._told_rtt

    def rate_age_s(self, now: float) -> float:
        """Since when no request was large enough to tell the rate."""
        return now - self._told_rate

    def begin(self) -> Sending:
        return Sending(self._delivered)

    def delivered(self, sending: Sending, size: int, seconds: float, now: float) -> None:
        """A request and its answer of `size` bytes together took `seconds` on the link, the server's time apart."""
        with self._lock:
            self._delivered += size
            if size <= SMALL_BYTES:
                self._rtt.add(seconds, now)
                self._least_rtt.add(seconds, now)
                self._told_rtt = now
                return
            moved = self._delivered - sending.delivered
            on_wire = max(seconds - (self._least_rtt.value or 0.0), _LEAST_SHARE * seconds, 1e-6)
            self._byte_s.add(on_wire / moved, now)
            self._told_rate = now

    def failed(self, size: int, seconds: float, now: float) -> None:
        """A request of `size` bytes had no answer after `seconds`: the rate is not above that."""
        byte_s = seconds / max(size, 1)
        with self._lock:
            if size > SMALL_BYTES and byte_s > (self._byte_s.value or 0.0):
                self._byte_s.add(byte_s, now)
