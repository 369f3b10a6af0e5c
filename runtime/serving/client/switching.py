"""Which of a bundle's cuts to use for the next call: what is known of every part, and a choice that does not flap.

A *stop* is how many segments the device runs before it sends; as many as there are means that it sends nothing. Times
of segments and sizes of frames are measured as calls go by. What has not been measured yet is what the compiler priced
it at, times as much as the prices were off where both are known; a bundle that was cut by hand has no prices, and its
first call measures everything.
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
"""Assumed as long as no frame was large enough to tell the rate."""


_SEGMENTS_NS = re.compile(r"[0-9]{1,6}:[0-9]{1,18}(,[0-9]{1,6}:[0-9]{1,18}){0,9999}")
"""What an answer says of its segments: index and nanoseconds of each."""


@dataclass(frozen=True, slots=True)
class SwitchingPolicy:
    """When to change the cut, and what may be spent on knowing the link.

    A change must promise to save `margin` of the latency, and comes `dwell_s` after the last one at the earliest.
    When calls have told no round trip for `ping_s`, an empty request does. What is not used cannot be measured: while
    the device goes alone by choice, or sends too little to tell the rate, one call in `trial_s` is also sent at a cut
    that tells it. Its answer is not waited for.
    """

    margin: float = 0.15
    dwell_s: float = 1.0
    ping_s: float = 2.0
    trial_s: float = 5.0


DEFAULT_POLICY = SwitchingPolicy()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request told: sizes and seconds of both ways, and the answer's parameters."""

    up_bytes: int
    down_bytes: int
    seconds: float
    parameters: Mapping[str, Any]

    @property
    def service_s(self) -> float:
        """From the request's arrival at the server to its answer; 0 where the server does not say."""
        return self._seconds(self.parameters.get("service_ns"))

    @property
    def segments_s(self) -> dict[int, float]:
        """Seconds of every segment that the server ran; nothing where it does not say, or what makes no sense."""
        text = self.parameters.get("segment_ns")
        if not isinstance(text, str) or _SEGMENTS_NS.fullmatch(text) is None:
            return {}
        pairs = [word.split(":") for word in text.split(",")]
        return {int(index): self._seconds(int(ns)) for index, ns in pairs}

    def _seconds(self, ns: Any) -> float:
        """What a server says that it took: not more than the whole took."""
        return min(ns / 1e9, self.seconds) if type(ns) is int and ns > 0 else 0.0


def stops(manifest: Manifest, device: SegmentRunner) -> tuple[int, ...]:
    """The stops that device and server can do, ascending: what follows a stop all runs on the server, or nothing."""
    count = len(manifest.segments)
    served = [
        segment.placement == "server" or "server" in segment.copies for segment in manifest.segments
    ]
    found = [stop for stop in range(1, count) if device.has(0, stop) and all(served[stop:])]
    return (*found, count) if device.has(0) else tuple(found)


class CutSwitcher:
    """Measures and chooses. Thread-safe."""

    def __init__(
        self,
        count: int,
        among: Sequence[int],
        choice: Mapping[str, Any] | None = None,
        policy: SwitchingPolicy = DEFAULT_POLICY,
    ) -> None:
        """`count` segments, the stops that can be done, and what the manifest says of the planner's choice."""
        prices = _NO_PRICES if choice is None else _prices(choice)
        self.stops = tuple(among)
        self.policy = policy
        self.link = LinkEstimate()
        self.changes = 0
        self._count = count
        self._lock = threading.Lock()
        self._planned = prices.link
        self._device = {
            index: Average(prices.device_s.get(index)) for index in range(self.stops[-1])
        }
        self._server = {
            index: Average(prices.server_s.get(index)) for index in range(self.stops[0], count)
        }
        self._encode = {stop: Average(0.0) for stop in self.stops}
        self._up = {stop: Average(prices.up_bytes.get(stop)) for stop in self.stops if stop < count}
        self._down = Average(prices.down_bytes)
        self._wait = Average(0.0)
        self._changed = -float("inf")
        costs = self.costs()
        self.current = int(fastest(costs, self._planned).cut) if costs else self.stops[0]

    @property
    def wait_s(self) -> float:
        """What a request waits at the server before it runs."""
        return self._wait.value or 0.0

    @property
    def device_known(self) -> bool:
        """Whether every segment and frame of the device has a measurement or a price."""
        return (
            expected(self._device.values()) is not None and expected(self._up.values()) is not None
        )

    def choose(self, now: float) -> int:
        """The stop for a call that begins now."""
        with self._lock:
            costs = {int(cost.cut): cost for cost in self.costs()}
            if not costs or now - self._changed < self.policy.dwell_s:
                return self.current
            conditions = self.conditions()
            best = fastest(tuple(costs.values()), conditions)
            stays = costs[self.current].latency_ns(conditions)
            if best.latency_ns(conditions) < (1 - self.policy.margin) * stays:
                self.current, self._changed = int(best.cut), now
                self.changes += 1
            return self.current

    def trial(self, stop: int, now: float) -> int | None:
        """Where else to send a call that has run up to `stop`, for what could be learnt from it; None: nowhere.

        A device that goes alone tries what would be best if it sent. One that sends little tries the next larger frame
        when another cut would be better over a link without limits, and nothing has told the rate of late.
        """
        costs = [cost for cost in self.costs() if int(cost.cut) < self._count]
        if not costs:
            return None
        if stop == self._count:
            return int(fastest(costs, self.conditions()).cut)
        unlimited = replace(self.conditions(), up_bit_s=_ANY_RATE_BIT_S, down_bit_s=_ANY_RATE_BIT_S)
        if (
            self.link.rate_age_s(now) < self.policy.trial_s
            or int(fastest(costs, unlimited).cut) == stop
        ):
            return None
        larger = [cost for cost in costs if int(cost.cut) < stop and cost.up_bytes > SMALL_BYTES]
        return int(min(larger, key=lambda cost: cost.up_bytes).cut) if larger else None

    def conditions(self) -> Conditions:
        """Link and server as they are now, as far as is known."""
        rate, rtt = self.link.rate_bit_s, self.link.rtt_s
        rate_bit_s = self._planned.up_bit_s if rate is None else max(round(rate), 1)
        rtt_ns = self._planned.rtt_ns if rtt is None else round(1e9 * rtt)
        return Conditions(rate_bit_s, rate_bit_s, rtt_ns, wait_ns=round(1e9 * self.wait_s))

    def costs(self) -> tuple[CutEstimate, ...]:
        """What every stop costs, by its number; empty as long as a part is neither priced nor measured."""
        device, server = expected(self._device.values()), expected(self._server.values())
        up, down = expected(self._up.values()), expected([self._down])
        if device is None or server is None or up is None or down is None:
            return ()
        first = self.stops[0]
        found: list[CutEstimate] = []
        for stop, up_bytes in zip(self._up, up, strict=True):
            here = sum(device[:stop]) + (self._encode[stop].value or 0.0)
            there = sum(server[stop - first :])
            found.append(
                CutEstimate(str(stop), _ns(here), _ns(there), round(up_bytes), round(down[0]))
            )
        alone = (
            [CutEstimate(str(self._count), _ns(sum(device)), 0, 0, 0)]
            if self.stops[-1] == self._count
            else []
        )
        return (*found, *alone)

    def computed(self, seconds: Mapping[int, float], now: float) -> None:
        """The device ran these segments."""
        with self._lock:
            for index, each in seconds.items():
                self._device[index].add(each, now)

    def encoded(self, stop: int, size: int, seconds: float, now: float) -> None:
        """The frame at a stop had this size, and took so long to make."""
        with self._lock:
            self._up[stop].add(size, now)
            self._encode[stop].add(seconds, now)

    def answered(self, sending: Sending, told: Answered, now: float) -> None:
        self.link.delivered(
            sending, told.up_bytes + told.down_bytes, told.seconds - told.service_s, now
        )
        segments = told.segments_s
        with self._lock:
            self._down.add(told.down_bytes, now)
            for index, each in segments.items():
                if index in self._server:
                    self._server[index].add(each, now)
            if told.service_s:
                self._wait.add(max(told.service_s - sum(segments.values()), 0.0), now)


@dataclass(frozen=True, slots=True)
class _Prices:
    """What the compiler expected: seconds by segment, bytes of a frame by stop and of an answer, and the link."""

    device_s: Mapping[int, float]
    server_s: Mapping[int, float]
    up_bytes: Mapping[int, float]
    down_bytes: float | None
    link: Conditions


_NO_PRICES = _Prices({}, {}, {}, None, Conditions(_ANY_RATE_BIT_S, _ANY_RATE_BIT_S))


def _prices(choice: Mapping[str, Any]) -> _Prices:
    """Prices of a bundle that was planned; none when a part of it was not priced."""
    names = (*choice["cuts"], DEVICE_ONLY)
    by_name = {cost.cut: cost for cost in cut_costs({"choice": choice})}
    if any(name not in by_name for name in names):
        return _NO_PRICES
    costs = [by_name[name] for name in names]
    last = len(costs) - 1
    device = [costs[0].device_ns, *(max(b.device_ns - a.device_ns, 0) for a, b in pairwise(costs))]
    server = [max(a.server_ns - b.server_ns, 0) for a, b in pairwise(costs)]
    terms = next(row["terms"] for row in choice["ranked"] if row["cut"] == names[0])
    return _Prices(
        {index: ns / 1e9 for index, ns in enumerate(device)},
        {index: ns / 1e9 for index, ns in enumerate(server, 1)},
        {stop: costs[stop - 1].up_bytes for stop in range(1, last + 1)},
        costs[0].down_bytes,
        _planned_link(terms),
    )


def _planned_link(terms: Mapping[str, int]) -> Conditions:
    """The link that a frame was priced with."""
    rate = (
        8 * terms["up_bytes"] * 10**9 // terms["uplink_ns"]
        if terms["uplink_ns"]
        else _ANY_RATE_BIT_S
    )
    return Conditions(max(rate, 1), max(rate, 1), terms["message_ns"])


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
