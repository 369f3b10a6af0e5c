"""Choose among the cuts of a bundle again, for the link and the load of this moment, in microseconds.

The compiler prices every cut once and leaves the terms in the manifest (`choice.ranked`). What depends on the link is
bytes, so a new rate needs no planner: one sum per cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irsplit.errors import BundleError


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a client knows of its link and its server; `server_load` 2.0 is a server that takes twice as long."""

    up_bit_s: int
    down_bit_s: int
    rtt_ns: int = 0
    server_load: float = 1.0
    device_load: float = 1.0


@dataclass(frozen=True, slots=True)
class CutCost:
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
        return round(here + wire + there + now.rtt_ns)


def cut_costs(manifest: Mapping[str, Any]) -> tuple[CutCost, ...]:
    """The priced cuts of a bundle's manifest (`Manifest.raw`), best first as they were planned.

    Raises BundleError for a bundle that was cut by hand: nothing was priced.
    """
    choice = manifest.get("choice")
    if choice is None:
        raise BundleError("the bundle has no priced cuts; compile it with --device and --link instead of --cut")
    load = choice.get("load", 100) / 100
    return tuple(_cost(row["cut"], row["terms"], load) for row in choice["ranked"])


def _cost(cut: str, terms: Mapping[str, int], load: float) -> CutCost:
    return CutCost(
        cut,
        terms["device_ns"] + terms["device_codec_ns"],
        round((terms["server_ns"] + terms["server_codec_ns"]) / load),
        terms["up_bytes"],
        terms["down_bytes"],
    )


def fastest(costs: Sequence[CutCost], now: Conditions, among: Iterable[str] | None = None) -> CutCost:
    """The cut with the least latency now, of those named in `among` (the cuts that the bundle really has)."""
    allowed = None if among is None else set(among)
    return min((c for c in costs if allowed is None or c.cut in allowed), key=lambda cost: cost.latency_ns(now))
