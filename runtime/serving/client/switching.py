"""Choose the cut for the next call from measurements, without changing it back and forth.

A *stop* is how many segments the device runs before it sends; at the last stop, it runs all of
them and sends nothing. Times of segments and sizes of frames are measured as calls go by. What
has not been measured is estimated by the compiler's price, corrected by how far the prices of
the measured parts were off. A bundle that was cut by hand has no prices, so that its first call
measures everything.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.segments import SegmentRunner
from irsplit.runtime.serving.client.cut_selection import (
    DEVICE_ONLY,
    Conditions,
    CutEstimate,
    cut_costs,
    fastest,
)
from irsplit.runtime.serving.client.link_estimate import (
    SMALL_BYTES,
    Average,
    LinkEstimate,
    Sending,
    expected,
)

_ANY_RATE_BIT_S = 10**9
"""Assumed until a frame was large enough to measure the rate."""

_SEGMENTS_NS = re.compile(r"[0-9]{1,6}:[0-9]{1,18}(,[0-9]{1,6}:[0-9]{1,18}){0,9999}")
"""How an answer reports its segments: index and nanoseconds of each."""


@dataclass(frozen=True, slots=True)
class SwitchingPolicy:
    """When to change the cut, and what may be spent on measuring the link.

    A cut that is not used cannot be measured. While the device runs everything by choice, or
    sends too little to measure the rate, one call in `trial_s` is therefore also sent at a cut
    that measures it. Nobody waits for its answer.

    Attributes:
        margin: Share of the latency that a change must promise to save.
        dwell_s: Least seconds between two changes.
        ping_s: Seconds without a measured round trip after which an empty request is sent.
        trial_s: Least seconds between two trials.
    """

    margin: float = 0.15
    dwell_s: float = 1.0
    ping_s: float = 2.0
    trial_s: float = 5.0


DEFAULT_POLICY = SwitchingPolicy()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request measured.

    Attributes:
        up_bytes: Size of the frame.
        down_bytes: Size of the answer.
        seconds: From sending to the answer.
        parameters: The answer's parameters, in which a server reports its own times.
    """

    up_bytes: int
    down_bytes: int
    seconds: float
    parameters: Mapping[str, Any]

    @property
    def service_s(self) -> float:
        """Seconds from the request's arrival at the server to its answer; 0 if not reported."""
        return self._seconds(self.parameters.get("service_ns"))

    @property
    def segments_s(self) -> dict[int, float]:
        """Seconds of every segment that the server ran; empty if not reported, or malformed."""
        text = self.parameters.get("segment_ns")
        if not isinstance(text, str) or _SEGMENTS_NS.fullmatch(text) is None:
            return {}

        seconds: dict[int, float] = {}
        for word in text.split(","):
            index, ns = word.split(":")
            seconds[int(index)] = self._seconds(int(ns))
        return seconds

    def _seconds(self, ns: Any) -> float:
        """A time that the server reports, but at most the time of the whole request."""
        return min(ns / 1e9, self.seconds) if type(ns) is int and ns > 0 else 0.0


def stops(manifest: Manifest, device: SegmentRunner) -> tuple[int, ...]:
    """Return the stops that device and server can run, ascending.

    Args:
        manifest: The manifest of the bundle.
        device: Runs the segments that the device has.

    Returns:
        The stops behind which everything runs on the server; and the last one, behind which
        nothing runs, if the device has all segments.
    """
    count = len(manifest.segments)
    served = [
        segment.placement == "server" or "server" in segment.copies for segment in manifest.segments
    ]
    sending = [stop for stop in range(1, count) if device.has(0, stop) and all(served[stop:])]
    return (*sending, count) if device.has(0) else tuple(sending)


class CutSwitcher:
    """Takes measurements, and chooses the stop for each call. Thread-safe.

    Args:
        count: How many segments the bundle has.
        among: The stops that can be run, ascending.
        choice: The planner's choice in the manifest, with its prices; None for a bundle that
            was cut by hand.
        policy: When to change the cut.

    Attributes:
        current: The stop of the last call.
        changes: How often the stop has changed.
        link: The estimate of the link.
    """

    def __init__(
        self,
        count: int,
        among: Sequence[int],
        choice: Mapping[str, Any] | None = None,
        policy: SwitchingPolicy = DEFAULT_POLICY,
    ) -> None:
        prices = _NO_PRICES if choice is None else _prices(choice)
        self.stops = tuple(among)
        self.policy = policy
        self.link = LinkEstimate()
        self.changes = 0
        self._count = count
        self._lock = threading.Lock()
        self._planned = prices.link

        on_device = range(self.stops[-1])
        on_server = range(self.stops[0], count)
        self._device = {index: Average(prices.device_s.get(index)) for index in on_device}
        self._server = {index: Average(prices.server_s.get(index)) for index in on_server}
        self._encode = {stop: Average(0.0) for stop in self.stops}
        self._up = {stop: Average(prices.up_bytes.get(stop)) for stop in self.stops if stop < count}
        self._down = Average(prices.down_bytes)
        self._wait = Average(0.0)

        self._changed_at = -float("inf")
        costs = self.costs()
        self.current = int(fastest(costs, self._planned).cut) if costs else self.stops[0]

    @property
    def wait_s(self) -> float:
        """How long a request waits at the server before it runs."""
        return self._wait.value or 0.0

    @property
    def device_known(self) -> bool:
        """Whether every segment and frame of the device has a measurement or a price."""
        segments = expected(self._device.values())
        frames = expected(self._up.values())
        return segments is not None and frames is not None

    def choose(self, now: float) -> int:
        """Return the stop for a call that begins at the time `now`, in seconds.

        The stop changes to the fastest one if that saves at least the policy's margin, and the
        last change is long enough ago.
        """
        with self._lock:
            costs = {int(cost.cut): cost for cost in self.costs()}
            if not costs or now - self._changed_at < self.policy.dwell_s:
                return self.current

            conditions = self.conditions()
            best = fastest(tuple(costs.values()), conditions)
            latency_ns = costs[self.current].latency_ns(conditions)
            if best.latency_ns(conditions) < (1 - self.policy.margin) * latency_ns:
                self.current = int(best.cut)
                self._changed_at = now
                self.changes += 1
            return self.current

    def trial(self, stop: int, now: float) -> int | None:
        """Return where else to send a call, only to measure that.

        A call that sends nothing is tried at the stop that would be best if it sent. A call that
        sends little is tried at the next larger frame, if the rate was not measured lately and
        another cut would be better over a link without limits.

        Args:
            stop: The stop at which the call itself sends.
            now: The current time.

        Returns:
            The stop to try, None if there is nothing to learn.
        """
        costs = [cost for cost in self.costs() if int(cost.cut) < self._count]
        if not costs:
            return None
        if stop == self._count:
            return int(fastest(costs, self.conditions()).cut)
        if self.link.rate_age_s(now) < self.policy.trial_s:
            return None

        # Would a faster link change the cut at all?
        unlimited = replace(self.conditions(), up_bit_s=_ANY_RATE_BIT_S, down_bit_s=_ANY_RATE_BIT_S)
        if int(fastest(costs, unlimited).cut) == stop:
            return None
        larger = [cost for cost in costs if int(cost.cut) < stop and cost.up_bytes > SMALL_BYTES]
        return int(min(larger, key=lambda cost: cost.up_bytes).cut) if larger else None

    def conditions(self) -> Conditions:
        """Return the current link and server; what was not measured is as it was planned."""
        rate, rtt = self.link.rate_bit_s, self.link.rtt_s
        rate_bit_s = self._planned.up_bit_s if rate is None else max(round(rate), 1)
        rtt_ns = self._planned.rtt_ns if rtt is None else round(1e9 * rtt)
        return Conditions(rate_bit_s, rate_bit_s, rtt_ns, wait_ns=round(1e9 * self.wait_s))

    def costs(self) -> tuple[CutEstimate, ...]:
        """Return what every stop costs.

        Returns:
            One estimate for each stop, whose number is the id of the cut; empty as long as a
            part is neither priced nor measured.
        """
        device, server = expected(self._device.values()), expected(self._server.values())
        up, down = expected(self._up.values()), expected([self._down])
        if device is None or server is None or up is None or down is None:
            return ()

        estimates: list[CutEstimate] = []
        for stop, up_bytes in zip(self._up, up, strict=True):
            device_s = sum(device[:stop]) + (self._encode[stop].value or 0.0)
            server_s = sum(server[stop - self.stops[0] :])
            estimates.append(
                CutEstimate(
                    str(stop), _ns(device_s), _ns(server_s), round(up_bytes), round(down[0])
                )
            )
        if self.stops[-1] == self._count:
            estimates.append(CutEstimate(str(self._count), _ns(sum(device)), 0, 0, 0))
        return tuple(estimates)

    def computed(self, seconds: Mapping[int, float], now: float) -> None:
        """Take the times of segments that the device ran: seconds by index."""
        with self._lock:
            for index, segment_s in seconds.items():
                self._device[index].add(segment_s, now)

    def encoded(self, stop: int, size: int, seconds: float, now: float) -> None:
        """Take the size of the frame at a stop, in bytes, and how long it took to encode."""
        with self._lock:
            self._up[stop].add(size, now)
            self._encode[stop].add(seconds, now)

    def answered(self, sending: Sending, answered: Answered, now: float) -> None:
        """Take the measurements of a request that was answered.

        Args:
            sending: What `link.begin` returned for the request.
            answered: What the request measured.
            now: The current time.
        """
        on_link_s = answered.seconds - answered.service_s
        self.link.delivered(sending, answered.up_bytes + answered.down_bytes, on_link_s, now)

        # What the server spent beside its segments, the request has waited.
        segments = answered.segments_s
        with self._lock:
            self._down.add(answered.down_bytes, now)
            for index, segment_s in segments.items():
                if index in self._server:
                    self._server[index].add(segment_s, now)
            if answered.service_s:
                self._wait.add(max(answered.service_s - sum(segments.values()), 0.0), now)


@dataclass(frozen=True, slots=True)
class _Prices:
    """What the compiler expected.

    Attributes:
        device_s: Seconds on the device by segment.
        server_s: Seconds on the server by segment.
        up_bytes: Size of the frame by stop.
        down_bytes: Size of an answer.
        link: The link that it planned for.
    """

    device_s: Mapping[int, float]
    server_s: Mapping[int, float]
    up_bytes: Mapping[int, float]
    down_bytes: float | None
    link: Conditions


_NO_PRICES = _Prices({}, {}, {}, None, Conditions(_ANY_RATE_BIT_S, _ANY_RATE_BIT_S))


def _prices(choice: Mapping[str, Any]) -> _Prices:
    """Prices of a bundle that was planned; none at all if one of its cuts was not priced.

    The manifest prices whole cuts. The price of a segment is the difference of the cuts before
    and behind it.
    """
    names = (*choice["cuts"], DEVICE_ONLY)
    by_name = {cost.cut: cost for cost in cut_costs({"choice": choice})}
    if any(name not in by_name for name in names):
        return _NO_PRICES

    costs = [by_name[name] for name in names]
    device_ns, server_ns = [costs[0].device_ns], list[int]()
    for before, behind in pairwise(costs):
        device_ns.append(max(behind.device_ns - before.device_ns, 0))
        server_ns.append(max(before.server_ns - behind.server_ns, 0))

    terms = next(row["terms"] for row in choice["ranked"] if row["cut"] == names[0])
    return _Prices(
        device_s={index: ns / 1e9 for index, ns in enumerate(device_ns)},
        server_s={index: ns / 1e9 for index, ns in enumerate(server_ns, 1)},
        up_bytes={stop: cost.up_bytes for stop, cost in enumerate(costs[:-1], 1)},
        down_bytes=costs[0].down_bytes,
        link=_planned_link(terms),
    )


def _planned_link(terms: Mapping[str, int]) -> Conditions:
    """The link that a frame was priced with."""
    rate_bit_s = _ANY_RATE_BIT_S
    if terms["uplink_ns"]:
        rate_bit_s = max(8 * terms["up_bytes"] * 10**9 // terms["uplink_ns"], 1)
    return Conditions(rate_bit_s, rate_bit_s, terms["message_ns"])


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
