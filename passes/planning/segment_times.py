"""Times of stretches by what the segments of a bundle took: measured at its cuts, shared out by estimates between."""

from collections.abc import Callable

from irsplit.base.errors import PlanError
from irsplit.ir import Node
from irsplit.passes.analysis.cuts import Cut
from irsplit.passes.planning.stages import Stages
from irsplit.profiles.measured import BundleProfile


def segment_times(
    parts: Stages, profile: BundleProfile, estimate: Callable[[Node], int]
) -> list[int]:
    """Time of every stretch, in nanoseconds.

    A segment's time is shared among its nodes as `estimate` has them on any machine; segments that were not measured
    are as much slower or faster than their estimate as those together that were. Raises PlanError for a profile of
    other cuts.
    """
    near = [set(cut.order.nodes[: cut.position]) for cut in measured_cuts(parts, profile)]
    nodes = [
        (sum(node not in side for side in near), 1 + estimate(node)) for node in parts.plan.nodes
    ]
    estimates = [
        sum(own for home, own in nodes if home == index) for index in range(len(profile.segments))
    ]
    times = _completed(profile, estimates)
    done, passed, found = [0] * len(times), 0, list[int]()
    for start, stop in parts.bounds:
        for home, own in nodes[start:stop]:
            done[home] += own
        # Rounded as sums, so that those at the bundle's cuts are what was measured.
        now = sum(
            time * part // whole
            for time, part, whole in zip(times, done, estimates, strict=True)
            if whole
        )
        found.append(now - passed)
        passed = now
    return found


def _completed(profile: BundleProfile, estimates: list[int]) -> list[int]:
    """Times of all segments, those that were not measured by their estimates."""
    known = [
        (load.wall_ns, own)
        for load, own in zip(profile.segments, estimates, strict=True)
        if load is not None
    ]
    time, own = (sum(column) for column in zip(*known, strict=True))
    return [
        load.wall_ns if load is not None else time * other // max(1, own)
        for load, other in zip(profile.segments, estimates, strict=True)
    ]


def measured_cuts(parts: Stages, profile: BundleProfile) -> list[Cut]:
    """The legal cuts of the model, of whichever order, at which the bundle is cut."""
    legal = {frozenset(value.name for value in cut.boundary): cut for cut in reversed(parts.legal)}
    missing = next((names for names in profile.boundaries if frozenset(names) not in legal), None)
    if missing is not None:
        raise PlanError(
            f"profile of a bundle of {profile.model!r}: no legal cut of this model sends {', '.join(missing)}; give "
            "the model, --max-tensors, --rematerialise and --state that the bundle was compiled with"
        )
    return [legal[frozenset(names)] for names in profile.boundaries]


def said_of(parts: Stages, profile: BundleProfile) -> str:
    """What is measured and what is not, in words."""
    ids = ", ".join(cut.id for cut in measured_cuts(parts, profile))
    absent = [f"segment {index}" for index, load in enumerate(profile.segments) if load is None]
    text = f"times on {profile.machine} are measured at the bundle's cuts ({ids}) and estimated between them"
    return text + (f"; {', '.join(absent)}, not there, estimated too" if absent else "")
