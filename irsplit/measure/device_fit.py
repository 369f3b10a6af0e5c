"""From measured parts to a device profile: rates per operator class, by regression, with the error it makes.

The time of a part is modelled as the profile prices it: multiply-adds of each class, bytes moved by operators without
any, and a fixed time per operator. Least squares of the relative errors, no rate negative.
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
_FASTEST = {"work": 10**15, "bytes": 10**13}  # a class that cost nothing measurable: MAC/s, bytes/s


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """Nanoseconds per unit of each feature (None: nothing to learn it from), and the errors on what it learned from."""

    costs: dict[str, float | None]
    parts: int
    median_error: float
    total_error: float
    machine: str
    model: str


def fit(
    parts: Stages, macs: Macs, profile: ModelProfile, summed: Summed | None = None
) -> DeviceFit:
    """Learn a machine's rates from the stretches of a measured model. Raises PlanError when there is too little.

    With `summed`, what the dialect knows of bodies and called graphs, the nodes inside are learned from, as they are
    what is priced.
    """
    own = tuple(id for id in profile.cuts if id.isdecimal())
    if own != tuple(cut.id for cut in parts.cuts) or len(profile.stretches) < 2:
        raise PlanError(
            f"profile of {profile.model!r} has too few stretches of this model to learn rates from"
        )
    counts = np.array(
        [features(parts.plan.nodes[start:stop], macs, summed) for start, stop in parts.bounds],
        dtype=np.float64,
    )
    times = np.array([max(1, load.wall_ns) for load in profile.stretches], dtype=np.float64)
    scale = np.maximum(counts.max(axis=0), 1.0)
    found, _ = nnls(counts / scale / times[:, None], np.ones(len(times)))
    costs = found / scale
    errors = np.abs(counts @ costs - times) / times
    learned = {
        name: float(cost) if counts[:, i].any() else None
        for i, (name, cost) in enumerate(zip(FEATURES, costs, strict=True))
    }
    total = abs(float((counts @ costs).sum() / times.sum()) - 1)
    return DeviceFit(
        learned,
        len(times),
        statistics.median(errors.tolist()),
        total,
        profile.machine,
        profile.model,
    )


def features(nodes: Sequence[Node], macs: Macs, summed: Summed | None) -> list[int]:
    """How much of each feature some nodes have; of branches, each feature counts from the one that has most of it."""

    def total(node: Node, feature: str) -> int:
        if summed is not None and (node.graphs or node.callees):
            return summed(node, lambda inner: _feature(inner, feature, macs))
        return _feature(node, feature, macs)

    return [sum(total(node, feature) for node in nodes) for feature in FEATURES]


def _feature(node: Node, feature: str, macs: Macs) -> int:
    if feature == "operators":
        return 1
    kind, work = operator_class(node), macs(node)
    if work and kind in OPERATOR_CLASSES:
        return work if feature == kind else 0
    return moved_bytes(node) if feature == "bytes" else 0


def device_toml(found: DeviceFit, today: datetime.date) -> str:
    """The fit as a device profile that `--device FILE` reads."""
    error = f"median error {100 * found.median_error:.0f} % of {found.parts} parts, {100 * found.total_error:.0f} % in all"
    rates = [_rate(name, found.costs[name], found.costs["conv"]) for name in OPERATOR_CLASSES]
    moved = found.costs["bytes"]
    speed = _FASTEST["bytes"] if not moved else min(_FASTEST["bytes"], round(1e9 / moved))
    return "\n".join(
        [
            f"# {found.machine}, learned from {found.model}: {error}.",
            "# A class that the model does not have is taken as fast as a convolution.",
            'kind = "device"',
            "",
            "[sources.fit]",
            f'text = "irsplit profile --fit on {_plain(found.machine)}, model {_plain(found.model)}: {error}"',
            f'date = "{today.isoformat()}"',
            "",
            "[values]",
            *rates,
            f'memory_rate = {{ value = {speed}, unit = "B/s", source = "fit" }}',
            f'overhead = {{ value = {round(found.costs["operators"] or 0)}, unit = "ns", source = "fit" }}',
            "",
        ]
    )


def _rate(name: str, cost: float | None, conv: float | None) -> str:
    used = cost if cost is not None else conv
    rate = _FASTEST["work"] if not used else min(_FASTEST["work"], round(1e9 / used))
    return f'{name} = {{ value = {max(1, rate // 10**6)}, unit = "MMAC/s", source = "fit" }}'


def _plain(text: str) -> str:
    return text.replace("\\", "/").replace('"', "'")
