"""Choose among the cuts of a bundle again, for the link and the load of this moment, in microseconds.

The compiler prices every cut once and leaves the terms in the manifest (`choice.ranked`). What depends on the link is
bytes, so a new rate needs no planner: one sum per cut. The same sum over many links says which cuts a bundle should
have to choose from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irsplit.base.errors import BundleError

DEVICE_ONLY, SERVER_ONLY = "device only", "server only"
"""What stands in place of a cut's id where nothing is cut."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a client knows of its link and its server; `server_load` 2.0 is a server that takes twice as long.

    `wait_ns` is what a request waits at the server, whatever its cut.
    """

    up_bit_s: int
    down_bit_s: int
    rtt_ns: int = 0
    server_load: float = 1.0
    device_load: float = 1.0
    wait_ns: int = 0


@dataclass(frozen=True, slots=True)
class CutEstimate:
    """One way to run the model: a cut's id, `device only` or `server only`, and its terms at compile time."""

    cut: str
    device_ns: int
    server_ns: int
    up_bytes: int
    down_bytes: int

    def latency_ns(self, now: Conditions) -> int:
        """End to end: compute and coding on both sides, both ways over the link, one round trip if any."""
        here, there = self.device_ns * now.device_load, self.server_ns * now.server_load
        if not (self.up_bytes or self.down_bytes or self.server_ns):
            return round(here)
        wire = 8_000_000_000 * (self.up_bytes / now.up_bit_s + self.down_bytes / now.down_bit_s)
        return round(here + wire + there + now.wait_ns + now.rtt_ns)


def cut_costs(manifest: Mapping[str, Any]) -> tuple[CutEstimate, ...]:
    """The priced cuts of a bundle's manifest (`Manifest.raw`), best first as they were planned.

    Raises BundleError for a bundle that was cut by hand: nothing was priced.
    """
    choice = manifest.get("choice")
    if choice is None:
        raise BundleError(
            "the bundle has no priced cuts; compile it with --device and --link instead of --cut"
        )
    load = choice.get("load", 100) / 100
    return tuple(_cost(row["cut"], row["terms"], load) for row in choice["ranked"])


def _cost(cut: str, terms: Mapping[str, int], load: float) -> CutEstimate:
    return CutEstimate(
        cut,
        terms["device_ns"] + terms["device_codec_ns"],
        round((terms["server_ns"] + terms["server_codec_ns"]) / load),
        terms["up_bytes"],
        terms["down_bytes"],
    )


def fastest(
    costs: Sequence[CutEstimate], now: Conditions, among: Iterable[str] | None = None
) -> CutEstimate:
    """The cut with the least latency now, of those named in `among` (the cuts that the bundle really has)."""
    allowed = None if among is None else set(among)
    return min(
        (c for c in costs if allowed is None or c.cut in allowed),
        key=lambda cost: cost.latency_ns(now),
    )


_RATES_BIT_S = tuple(1 << power for power in range(14, 31))
_LOADS = (1.0, 4.0)
_LEAST_GAIN = 0.01


def worth_having(costs: Sequence[CutEstimate], at_most: int) -> tuple[CutEstimate, ...]:
    """At most so many cuts from which to choose at run time, by growing device part.

    Over links of 16 kbit/s to 1 Gbit/s, with a server that is idle or busy, each in turn brings the latency nearest to
    that of the best split, on average; one that brings less than a hundredth is left out.
    """
    split = [cost for cost in costs if cost.cut not in (DEVICE_ONLY, SERVER_ONLY)]
    links = [Conditions(rate, rate, server_load=load) for rate in _RATES_BIT_S for load in _LOADS]
    best = [fastest(split, now).latency_ns(now) for now in links] if split else []
    # how many times longer than with the best split, for every cut and link
    excess = {
        cost: [cost.latency_ns(now) / max(least, 1) for now, least in zip(links, best, strict=True)]
        for cost in split
    }
    chosen: list[CutEstimate] = []
    reached = [float("inf")] * len(links)
    while len(chosen) < min(at_most, len(split)):
        found = min(excess, key=lambda cost: sum(map(min, reached, excess[cost])))
        better = [*map(min, reached, excess[found])]
        if sum(reached) - sum(better) < _LEAST_GAIN * len(links):
            break
        chosen.append(found)
        reached = better
    return tuple(sorted(chosen, key=lambda cost: cost.device_ns))
