"""Estimate the link and the server from how long the client's own requests took.

Nothing here reads a clock: the caller passes the times.

An average forgets with time rather than with the number of samples: a sample that is `span_s`
old counts 1/e of a new one, whether one request came in between or a thousand. The round trip is
kept both as an average and as the minimum of the last seconds. The minimum is the link without
queues and jitter; the time of a frame minus that minimum gives the rate.
"""

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

SPAN_S = 3.0
"""Time constant of all averages."""
LEAST_OF_S = 10.0
"""Window for the minimum of the round trip."""
SMALL_BYTES = 2 * 1460
"""The most bytes, both directions together, of a request that tells the round trip and not the
rate: about one packet in each direction."""

_MOST_WEIGHT = 0.75
_LEAST_SHARE = 0.05


class Average:
    """A mean that forgets with a time constant. No sample counts for more than three quarters.

    Args:
        price: What the compiler expected, None if it did not price this.
        span_s: The time constant.

    Attributes:
        value: The mean, None before the first sample.
    """

    def __init__(self, price: float | None = None, span_s: float = SPAN_S) -> None:
        self.price = price
        self._span_s = span_s
        self._at = 0.0
        self.value: float | None = None

    def add(self, sample: float, now: float) -> None:
        """Add a sample that was taken at the time `now`, in seconds."""
        # A sample that comes long after the one before replaces most of the mean.
        gap = max(now - self._at, 0.0)
        weight = min(-math.expm1(-gap / self._span_s), _MOST_WEIGHT)
        self.value = sample if self.value is None else self.value + weight * (sample - self.value)
        self._at = now


def expected(parts: Iterable[Average]) -> list[float] | None:
    """Return what to expect of every part, measured or not.

    A part that was never measured is expected to take its price, scaled by how far the prices of
    the measured parts were off.

    Args:
        parts: The averages of parts of the same kind, such as all segments on the device.

    Returns:
        One number for each part, None if a part has neither a measurement nor a price.
    """
    # How far the prices were off, where both are known.
    parts = list(parts)
    measured = priced = 0.0
    for part in parts:
        if part.value is not None and part.price is not None:
            measured += part.value
            priced += part.price
    correction = measured / priced if priced else 1.0

    expectations: list[float] = []
    for part in parts:
        if part.value is not None:
            expectations.append(part.value)
        elif part.price is not None:
            expectations.append(part.price * correction)
        else:
            return None
    return expectations


class Least:
    """The minimum of the samples of the last `window_s` seconds.

    The samples are a queue in which each is larger than the one before: a later and lower sample
    makes the earlier ones irrelevant, so they are dropped, and the first one is the minimum.
    """

    def __init__(self, window_s: float = LEAST_OF_S) -> None:
        self._window_s = window_s
        self._samples = deque[tuple[float, float]]()

    def add(self, sample: float, now: float) -> None:
        """Add a sample that was taken at the time `now`, in seconds."""
        while self._samples and self._samples[-1][1] >= sample:
            self._samples.pop()
        self._samples.append((now, sample))
        while self._samples[0][0] < now - self._window_s:
            self._samples.popleft()

    @property
    def value(self) -> float | None:
        """The minimum, None before the first sample."""
        return self._samples[0][1] if self._samples else None


@dataclass(frozen=True, slots=True)
class Sending:
    """A request under way: how many bytes the link had delivered when it began."""

    delivered: int


class LinkEstimate:
    """Rate and round trip of a link. Thread-safe.

    The rate counts what all requests together delivered while one of them was under way, so that
    requests that share the link do not each take their share for the whole. One rate stands for
    both directions, since answers are small. The average is that of seconds per byte: times add
    up to latency, rates do not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._byte_s = Average()
        self._rtt = Average()
        self._least_rtt = Least()
        self._delivered = 0
        self._rtt_measured_at = self._rate_measured_at = -math.inf

    @property
    def rate_bit_s(self) -> float | None:
        """The rate, None if it was never measured."""
        return None if self._byte_s.value is None else 8 / self._byte_s.value

    @property
    def rtt_s(self) -> float | None:
        """The round trip time, None if it was never measured."""
        return self._rtt.value

    def rtt_age_s(self, now: float) -> float:
        """Seconds since the last request that was small enough to measure the round trip."""
        return now - self._rtt_measured_at

    def rate_age_s(self, now: float) -> float:
        """Seconds since the last request that was large enough to measure the rate."""
        return now - self._rate_measured_at

    def begin(self) -> Sending:
        """Note that a request begins; `delivered` takes the result."""
        return Sending(self._delivered)

    def delivered(self, sending: Sending, size: int, seconds: float, now: float) -> None:
        """Note that a request was answered.

        Args:
            sending: What `begin` returned for the request.
            size: Bytes of the request and its answer together.
            seconds: Time on the link, without the time at the server.
            now: The current time.
        """
        with self._lock:
            self._delivered += size
            if size <= SMALL_BYTES:
                self._rtt.add(seconds, now)
                self._least_rtt.add(seconds, now)
                self._rtt_measured_at = now
                return

            # The round trip is no part of the transfer, but must not explain all of it.
            moved = self._delivered - sending.delivered
            on_wire = max(seconds - (self._least_rtt.value or 0.0), _LEAST_SHARE * seconds, 1e-6)
            self._byte_s.add(on_wire / moved, now)
            self._rate_measured_at = now

    def failed(self, size: int, seconds: float, now: float) -> None:
        """Note that a request had no answer: the rate is at most its size by that time.

        Args:
            size: Bytes of the request.
            seconds: How long the client waited for the answer.
            now: The current time.
        """
        byte_s = seconds / max(size, 1)
        with self._lock:
            if size > SMALL_BYTES and byte_s > (self._byte_s.value or 0.0):
                self._byte_s.add(byte_s, now)
