"""Two runs of `irsplit bench` against each other: which cuts changed by more than their spread."""

from collections.abc import Iterator
from dataclasses import dataclass

from irsplit.measure.bench import Bench, CutCost

_LIBRARIES = 1 << 18
"""Bytes by which the peaks of two processes differ whatever they do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one cut, then and now.

    Beyond `noise` it has changed: for times the distances between the quartiles of both runs together, for peaks of
    memory a twentieth, for the bytes of a frame nothing.
    """

    cut: str
    boundary: str
    figure: str
    old: int
    new: int
    noise: int

    @property
    def percent(self) -> float:
        return 100 * (self.new - self.old) / self.old if self.old else 0.0

    @property
    def beyond(self) -> bool:
        return abs(self.new - self.old) > self.noise


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every figure of the cuts that both runs have, matched by what crosses; cuts of one run alone; and what else
    differs between the runs, such as machine or options."""

    changes: tuple[Change, ...]
    only_new: tuple[str, ...]
    only_old: tuple[str, ...]
    conditions: tuple[str, ...]

    def beyond(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.beyond)

    def worse(self, percent: float) -> tuple[Change, ...]:
        """Totals and frames that grew beyond noise and by more than `percent`."""
        watched = ("total", "frame")
        return tuple(c for c in self.beyond() if c.figure in watched and c.percent > percent)


def compare(old: Bench, new: Bench) -> Comparison:
    before, after = ({cut.boundary: cut for cut in bench.cuts} for bench in (old, new))
    both = [(before[name], cut) for name, cut in after.items() if name in before]
    return Comparison(
        tuple(change for pair in both for change in _changes(*pair)),
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        tuple(_conditions(old, new)),
    )


def _changes(old: CutCost, new: CutCost) -> Iterator[Change]:
    for phase, now in new.times.items():
        then = old.times[phase]
        noise = then.spread_ns + now.spread_ns
        yield Change(new.id, new.boundary, phase, then.median_ns, now.median_ns, noise)
    yield Change(new.id, new.boundary, "frame", old.frame_bytes, new.frame_bytes, 0)
    for side in ("device", "server"):
        then, now = (getattr(cut, f"{side}_peak_bytes") for cut in (old, new))
        if then and now:  # measured in both runs
            yield Change(
                new.id, new.boundary, f"{side} memory", then, now, max(then // 20, _LIBRARIES)
            )


def _conditions(old: Bench, new: Bench) -> Iterator[str]:
    for name in ("model", "digest", "machine", "cpus", "engine", "irsplit"):
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            yield f"{name}: {str(then)[:40]} then, {str(now)[:40]} now"
    for name in sorted({*old.conditions, *new.conditions}):
        then, now = old.conditions.get(name), new.conditions.get(name)
        if then != now:
            yield f"{name}: {then} then, {now} now"
