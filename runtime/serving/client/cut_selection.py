"""Choose among the cuts of a bundle for the current link and load, in microseconds.

The compiler prices every cut once and leaves the terms in the manifest (`choice.ranked`). Only
the time to transfer bytes depends on the link, so a new rate needs no planner: the latency of a
cut is one sum over its terms. The same sum over many links tells which cuts a bundle should have
to choose from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irsplit.base.errors import BundleError

DEVICE_ONLY, SERVER_ONLY = "device only", "server only"
"""Stand in place of a cut's id where the model is not cut."""

_NS_PER_S = 10**9


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of link, server and device that a client has measured.

    Attributes:
        up_bit_s: Rate from the device to the server.
        down_bit_s: Rate from the server to the device.
        rtt_ns: Round trip time.
        server_load: Factor on the server's compute time: 2.0 for a server that takes twice as long.
        device_load: Factor on the device's compute time.
        wait_ns: How long a request waits at the server before it runs, whatever its cut.
    """

    up_bit_s: int
    down_bit_s: int
    rtt_ns: int = 0
    server_load: float = 1.0
    device_load: float = 1.0
    wait_ns: int = 0


@dataclass(frozen=True, slots=True)
class CutEstimate:
    """What one cut costs.

    Attributes:
        cut: Id of the cut, `device only` or `server only`.
        device_ns: Time to compute and code on the device.
        server_ns: Time to compute and code on the server.
        up_bytes: Bytes sent to the server.
        down_bytes: Bytes sent back.
    """

    cut: str
    device_ns: int
    server_ns: int
    up_bytes: int
    down_bytes: int

    def latency_ns(self, now: Conditions) -> int:
        """End-to-end latency: compute and coding on both sides, both transfers, one round trip.

        Args:
            now: The link and the loads to estimate for.

        Returns:
            Nanoseconds. If everything runs on the device, the link costs nothing.
        """
        on_device = self.device_ns * now.device_load
        if not (self.up_bytes or self.down_bytes or self.server_ns):
            return round(on_device)

        on_server = self.server_ns * now.server_load
        bytes_by_rate = self.up_bytes / now.up_bit_s + self.down_bytes / now.down_bit_s
        on_link = 8 * _NS_PER_S * bytes_by_rate
        return round(on_device + on_link + on_server + now.wait_ns + now.rtt_ns)


def cut_costs(manifest: Mapping[str, Any]) -> tuple[CutEstimate, ...]:
    """Read the priced cuts of a bundle.

    Args:
        manifest: The manifest as it was read from JSON (`Manifest.raw`).

    Returns:
        The cuts, best first for the link that the bundle was planned for.

    Raises:
        BundleError: The bundle was cut by hand, so that nothing was priced.
    """
    choice = manifest.get("choice")
    if choice is None:
        raise BundleError(
            "the bundle has no priced cuts; compile it with --device and --link instead of --cut"
        )

    # The terms are those of a server under the planned load, in percent.
    load = choice.get("load", 100) / 100
    return tuple(_estimate(row["cut"], row["terms"], load) for row in choice["ranked"])


def _estimate(cut: str, terms: Mapping[str, int], load: float) -> CutEstimate:
    """The estimate of one row of the manifest, with the planned server load taken out again."""
    server_ns = terms["server_ns"] + terms["server_codec_ns"]
    return CutEstimate(
        cut,
        device_ns=terms["device_ns"] + terms["device_codec_ns"],
        server_ns=round(server_ns / load),
        up_bytes=terms["up_bytes"],
        down_bytes=terms["down_bytes"],
    )


def fastest(
    costs: Sequence[CutEstimate], now: Conditions, among: Iterable[str] | None = None
) -> CutEstimate:
    """Return the cut with the least latency.

    Args:
        costs: The priced cuts.
        now: The link and the loads to choose for.
        among: Ids of the cuts that the bundle really has; None for all of `costs`.

    Returns:
        The fastest cut; of several that are equally fast, the first one.

    Raises:
        ValueError: None of the cuts is allowed.
    """
    candidates = list(costs)
    if among is not None:
        allowed = set(among)
        candidates = [cost for cost in costs if cost.cut in allowed]
    return min(candidates, key=lambda cost: cost.latency_ns(now))


_RATES_BIT_S = tuple(1 << power for power in range(14, 31))
_LOADS = (1.0, 4.0)
_LEAST_GAIN = 0.01


def worth_having(costs: Sequence[CutEstimate], at_most: int) -> tuple[CutEstimate, ...]:
    """Return the cuts that a bundle should have to choose from at run time.

    The cuts are taken greedily. For each cut and each of many links (16 kbit/s to 1 Gbit/s, the
    server idle or busy), its excess is its latency over that of the best cut for the link. Each
    step adds the cut that lowers the mean excess of the chosen cuts most; a step that lowers it
    by less than one percent is the end.

    Args:
        costs: The priced cuts.
        at_most: How many cuts to return at most.

    Returns:
        The chosen cuts, by growing compute time on the device.
    """
    split = [cost for cost in costs if cost.cut not in (DEVICE_ONLY, SERVER_ONLY)]
    links: list[Conditions] = []
    for rate in _RATES_BIT_S:
        links += [Conditions(rate, rate, server_load=load) for load in _LOADS]
    excess = _excess(split, links)

    # For each link, the least excess of the cuts that were chosen so far.
    chosen: list[CutEstimate] = []
    reached = [float("inf")] * len(links)
    while len(chosen) < min(at_most, len(split)):
        candidate = min(split, key=lambda cost: sum(map(min, reached, excess[cost])))
        with_candidate = [*map(min, reached, excess[candidate])]
        if sum(reached) - sum(with_candidate) < _LEAST_GAIN * len(links):
            break
        chosen.append(candidate)
        reached = with_candidate
    return tuple(sorted(chosen, key=lambda cost: cost.device_ns))


def _excess(
    split: Sequence[CutEstimate], links: Sequence[Conditions]
) -> dict[CutEstimate, list[float]]:
    """How many times longer each cut takes than the best one, link by link."""
    excess: dict[CutEstimate, list[float]] = {cost: [] for cost in split}
    for now in links if split else ():
        least = max(fastest(split, now).latency_ns(now), 1)
        for cost, ratios in excess.items():
            ratios.append(cost.latency_ns(now) / least)
    return excess
