"""The times of stages from the measured segments of a bundle.

The times at the bundle's cuts are measured; between them they are shared out by estimates.
"""

from collections.abc import Callable

from irsplit.base.errors import PlanError
from irsplit.ir import Node
from irsplit.passes.analysis.cuts import Cut
from irsplit.passes.planning.stages import Stages
from irsplit.profiles.measured import BundleProfile


def segment_times(
    stages: Stages, profile: BundleProfile, estimate: Callable[[Node], int]
) -> list[int]:
    """The time of every stage from what the segments of a bundle took.

    Each segment shares out its time to its nodes in proportion to their estimates, and a stage gets
    the shares of its nodes. A segment without a measurement is as much slower or faster than its
    estimate as all measured segments together are.

    Args:
        stages: The stages of the model that the bundle was made of.
        profile: The measurement of the bundle.
        estimate: Nanoseconds of a node on any device; only their ratios matter.

    Returns:
        Nanoseconds of every stage.

    Raises:
        PlanError: The bundle has a cut that is not legal in this model.
    """
    device_sides = [set(cut.order.nodes[: cut.position]) for cut in measured_cuts(stages, profile)]

    # A node belongs to the segment behind as many cuts as do not have it on their device side.
    segment_of: list[int] = []
    node_ns: list[int] = []
    segment_ns = [0] * len(profile.segments)
    for node in stages.plan.nodes:
        segment = sum(node not in side for side in device_sides)
        segment_of.append(segment)
        node_ns.append(1 + estimate(node))
        segment_ns[segment] += node_ns[-1]
    times = _completed(profile, segment_ns)

    done_ns = [0] * len(times)
    passed = 0
    result: list[int] = []
    for start, stop in stages.bounds:
        for index in range(start, stop):
            done_ns[segment_of[index]] += node_ns[index]

        # The running sum is rounded, not each share, so that sums at the bundle's cuts are exact.
        now = 0
        for time, done, whole in zip(times, done_ns, segment_ns, strict=True):
            if whole:
                now += time * done // whole
        result.append(now - passed)
        passed = now
    return result


def _completed(profile: BundleProfile, estimates: list[int]) -> list[int]:
    """The times of all segments; those that were not measured are scaled estimates."""
    measured_ns = estimated_ns = 0
    for load, estimate in zip(profile.segments, estimates, strict=True):
        if load is not None:
            measured_ns += load.wall_ns
            estimated_ns += estimate

    times: list[int] = []
    for load, estimate in zip(profile.segments, estimates, strict=True):
        scaled = measured_ns * estimate // max(1, estimated_ns)
        times.append(scaled if load is None else load.wall_ns)
    return times


def measured_cuts(stages: Stages, profile: BundleProfile) -> list[Cut]:
    """The legal cuts of the model, of any order, at which the bundle is cut.

    Raises:
        PlanError: No legal cut of this model sends what one of the bundle's cuts sends.
    """
    # Reversed, so that of several cuts with the same tensors the first one remains.
    legal: dict[frozenset[str], Cut] = {}
    for cut in reversed(stages.legal):
        legal[frozenset(value.name for value in cut.boundary)] = cut

    missing = next((names for names in profile.boundaries if frozenset(names) not in legal), None)
    if missing is not None:
        raise PlanError(
            f"profile of a bundle of {profile.model!r}: no legal cut of this model sends "
            f"{', '.join(missing)}; give the model, --max-tensors, --rematerialise and --state "
            "that the bundle was compiled with"
        )
    return [legal[frozenset(names)] for names in profile.boundaries]


def describe_times(stages: Stages, profile: BundleProfile) -> str:
    """Say which times are measured and which are estimated, as a note for the user."""
    ids = ", ".join(cut.id for cut in measured_cuts(stages, profile))
    text = (
        f"times on {profile.machine} are measured at the bundle's cuts ({ids}) and estimated "
        "between them"
    )
    absent = [f"segment {index}" for index, load in enumerate(profile.segments) if load is None]
    if absent:
        text += f"; {', '.join(absent)}, not there, estimated too"
    return text
