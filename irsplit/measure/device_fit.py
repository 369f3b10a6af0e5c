"""Learns a device profile from a measured model: rates by operator class, and the error they make.

A device profile prices a stage by the multiply-accumulates of each operator class, the bytes that
operators without any move, and a fixed time for each operator. These counts are the features of a
linear regression whose target is the measured time of each stage. The costs are those with the
least squares of the relative errors, none of them negative.
"""

import datetime
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from irsplit.base.errors import PlanError
from irsplit.ir import Node
from irsplit.passes.planning.stages import Macs, Stages, Summed, moved_bytes, operator_class
from irsplit.profiles.load import OPERATOR_CLASSES
from irsplit.profiles.measured import ModelProfile

FEATURES = (*OPERATOR_CLASSES, "bytes", "operators")
_FASTEST_MAC_S = 10**15
_FASTEST_BYTES_S = 10**13
"""The rate of what cost nothing measurable."""


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """What was learned from one profile.

    Attributes:
        costs: Nanoseconds per unit of each feature; None where the model has none of it.
        parts: Stages that it was learned from.
        median_error: Median of the relative errors on those stages.
        total_error: Relative error of their sum.
        machine: The machine that was measured, in words.
        model: The model that was measured.
    """

    costs: dict[str, float | None]
    parts: int
    median_error: float
    total_error: float
    machine: str
    model: str


def fit(
    stages: Stages, macs: Macs, profile: ModelProfile, summed: Summed | None = None
) -> DeviceFit:
    """Learn the rates of a machine from the stages of a measured model.

    Args:
        stages: The stages between the cuts of the model's own order.
        macs: Multiply-accumulates of a node.
        profile: Measured times of these stages.
        summed: The dialect's rule for the cost of a node with bodies or callees. With it, the nodes
            inside are counted, as these are what a plan prices.

    Raises:
        PlanError: The profile is of other stages, or of fewer than two.
    """
    own_order = tuple(id for id in profile.cuts if id.isdecimal())
    if own_order != tuple(cut.id for cut in stages.cuts) or len(profile.stretches) < 2:
        raise PlanError(
            f"profile of {profile.model!r} has too few stretches of this model to learn rates from"
        )

    rows = [features(stages.plan.nodes[start:stop], macs, summed) for start, stop in stages.bounds]
    counts = np.array(rows, dtype=np.float64)
    times = np.array([max(1, load.wall_ns) for load in profile.stretches], dtype=np.float64)

    # Dividing by the times makes errors relative, dividing by the scale makes features comparable.
    scale = np.maximum(counts.max(axis=0), 1.0)
    scaled_costs, _ = nnls(counts / scale / times[:, None], np.ones(len(times)))
    costs = scaled_costs / scale

    predicted = counts @ costs
    errors = np.abs(predicted - times) / times
    learned: dict[str, float | None] = {}
    for index, name in enumerate(FEATURES):
        learned[name] = float(costs[index]) if counts[:, index].any() else None

    return DeviceFit(
        costs=learned,
        parts=len(times),
        median_error=statistics.median(errors.tolist()),
        total_error=abs(float(predicted.sum() / times.sum()) - 1),
        machine=profile.machine,
        model=profile.model,
    )


def features(nodes: Sequence[Node], macs: Macs, summed: Summed | None) -> list[int]:
    """How much of each feature some nodes have, in the order of FEATURES.

    Of the branches of a conditional, each feature counts from the branch that has most of it.
    """

    def amount(node: Node, feature: str) -> int:
        if summed is not None and (node.graphs or node.callees):
            return summed(node, lambda inner: _amount(inner, feature, macs))

        return _amount(node, feature, macs)

    return [sum(amount(node, feature) for node in nodes) for feature in FEATURES]


def _amount(node: Node, feature: str, macs: Macs) -> int:
    """How much of a feature one node has, without what it contains."""
    if feature == "operators":
        return 1

    kind, work = operator_class(node), macs(node)
    if work and kind in OPERATOR_CLASSES:
        return work if feature == kind else 0

    return moved_bytes(node) if feature == "bytes" else 0


def device_toml(learned: DeviceFit, today: datetime.date) -> str:
    """A fit as a device profile in TOML, dated `today`."""
    error = (
        f"median error {100 * learned.median_error:.0f} % of {learned.parts} parts, "
        f"{100 * learned.total_error:.0f} % in all"
    )
    machine, model = _quotable(learned.machine), _quotable(learned.model)
    memory_rate = _units_per_second(learned.costs["bytes"], _FASTEST_BYTES_S)
    overhead = round(learned.costs["operators"] or 0)
    lines = [
        f"# {learned.machine}, learned from {learned.model}: {error}.",
        "# A class that the model does not have is taken as fast as a convolution.",
        'kind = "device"',
        "",
        "[sources.fit]",
        f'text = "irsplit profile --fit on {machine}, model {model}: {error}"',
        f'date = "{today.isoformat()}"',
        "",
        "[values]",
        *(_rate(name, learned) for name in OPERATOR_CLASSES),
        f'memory_rate = {{ value = {memory_rate}, unit = "B/s", source = "fit" }}',
        f'overhead = {{ value = {overhead}, unit = "ns", source = "fit" }}',
        "",
    ]
    return "\n".join(lines)


def _rate(name: str, learned: DeviceFit) -> str:
    """The line of one operator class; a class without a cost is as fast as a convolution."""
    cost = learned.costs[name]
    if cost is None:
        cost = learned.costs["conv"]
    rate = max(1, _units_per_second(cost, _FASTEST_MAC_S) // 10**6)
    return f'{name} = {{ value = {rate}, unit = "MMAC/s", source = "fit" }}'


def _units_per_second(cost_ns: float | None, fastest: int) -> int:
    return min(fastest, round(1e9 / cost_ns)) if cost_ns else fastest


def _quotable(text: str) -> str:
    """A text that may stand between quotation marks in TOML."""
    return text.replace("\\", "/").replace('"', "'")
