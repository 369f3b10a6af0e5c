"""Compares two runs of `irsplit bench`: which cuts changed by more than their spread."""

from collections.abc import Iterator
from dataclasses import dataclass

from irsplit.measure.bench import Bench, CutCost

_LIBRARIES = 1 << 18
"""Bytes by which the peaks of two processes differ, whatever they do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one cut in both runs.

    Attributes:
        cut: Id of the cut in the new run.
        boundary: The tensors that cross, joined by "+".
        figure: What was measured: a phase, "whole", "total", "frame", or a side's memory.
        old: Nanoseconds or bytes in the old run.
        new: The same in the new run.
        noise: Difference that means nothing: for times the spreads of both runs together, for peaks
            of memory a twentieth, for the bytes of a frame zero.
    """

    cut: str
    boundary: str
    figure: str
    old: int
    new: int
    noise: int

    @property
    def percent(self) -> float:
        """How much the figure grew, in percent."""
        return 100 * (self.new - self.old) / self.old if self.old else 0.0

    @property
    def beyond(self) -> bool:
        """Whether the figure changed by more than noise."""
        return abs(self.new - self.old) > self.noise


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two runs.

    Attributes:
        changes: Every figure of the cuts that both runs have, matched by what crosses.
        only_new: Boundaries that only the new run has.
        only_old: Boundaries that only the old run has.
        conditions: What else differs, such as machine or options, in words.
    """

    changes: tuple[Change, ...]
    only_new: tuple[str, ...]
    only_old: tuple[str, ...]
    conditions: tuple[str, ...]

    def beyond(self) -> tuple[Change, ...]:
        """The figures that changed by more than noise."""
        return tuple(change for change in self.changes if change.beyond)

    def worse(self, percent: float) -> tuple[Change, ...]:
        """The totals and frames that grew by more than noise and by more than `percent`."""
        return tuple(
            change
            for change in self.beyond()
            if change.figure in ("total", "frame") and change.percent > percent
        )


def compare(old: Bench, new: Bench) -> Comparison:
    """Compare two runs cut by cut."""
    old_cuts = {cut.boundary: cut for cut in old.cuts}
    new_cuts = {cut.boundary: cut for cut in new.cuts}
    # Ids of cuts move when a model changes; what crosses tells which cuts are the same.
    changes: list[Change] = []
    for boundary, cut in new_cuts.items():
        if boundary in old_cuts:
            changes.extend(_changes(old_cuts[boundary], cut))

    return Comparison(
        changes=tuple(changes),
        only_new=tuple(name for name in new_cuts if name not in old_cuts),
        only_old=tuple(name for name in old_cuts if name not in new_cuts),
        conditions=tuple(_conditions(old, new)),
    )


def _changes(old: CutCost, new: CutCost) -> Iterator[Change]:
    """Every figure of one cut."""
    for phase, now in new.times.items():
        then = old.times[phase]
        noise = then.spread_ns + now.spread_ns
        yield Change(new.id, new.boundary, phase, then.median_ns, now.median_ns, noise)

    yield Change(new.id, new.boundary, "frame", old.frame_bytes, new.frame_bytes, 0)

    peaks = (
        ("device memory", old.device_peak_bytes, new.device_peak_bytes),
        ("server memory", old.server_peak_bytes, new.server_peak_bytes),
    )
    for figure, then, now in peaks:
        if then and now:  # measured in both runs
            noise = max(then // 20, _LIBRARIES)
            yield Change(new.id, new.boundary, figure, then, now, noise)


def _conditions(old: Bench, new: Bench) -> Iterator[str]:
    """What else differs between two runs."""
    for name in ("model", "digest", "machine", "cpus", "engine", "irsplit"):
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            yield f"{name}: {str(then)[:40]} then, {str(now)[:40]} now"

    for name in sorted({*old.conditions, *new.conditions}):
        then, now = old.conditions.get(name), new.conditions.get(name)
        if then != now:
            yield f"{name}: {then} then, {now} now"
