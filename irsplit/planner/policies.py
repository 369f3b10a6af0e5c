"""The policies of papers, over the same cost table as the exact planner, for comparison.

* `ushakov` compares prefixes with three maxima (Ushakov et al. 2018).
* `neurosurgeon` tries every cut of a chain (Kang et al. 2017).
* `dads` is a minimum cut with the device first (Hu et al. 2019).
* `collabdnn` is a shortest path over single layers.
* `jointdnn` is a shortest path over blocks of layers, within limits.

docs/papers.md describes each of them and how well the results of the papers are met.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irsplit import planner
from irsplit.base.errors import PlanError
from irsplit.planner import Costs, Goal
from irsplit.planner.chain import BlockCost, is_chain, shortest_path
from irsplit.planner.cost import CostTable, Placement
from irsplit.planner.placement import Solution, Sweep, crossing, evaluate, stuck_steps, sweep
from irsplit.planner.result import describe, placements_of
from irsplit.planner.terms import TERMS, Mask, metric_terms

AGREE_LEVELS = 1
"""Two of the levels j, k, q agree when they are at most this far apart."""
OVERSHOOT_PERCENT = 20
"""How far beyond a maximum the fuzzy bound may go."""


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """What a policy chose: the placement of every stage, the objective's value, and the costs."""

    policy: str
    placements: tuple[Placement, ...]
    value: int
    costs: Costs


@dataclass(frozen=True, slots=True)
class Prefix:
    """The load of running levels 1..i on the device: memory, CPU, and what its end sends."""

    memory_bytes: int
    cpu: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class UshakovCut:
    """The levels that the policy of Ushakov et al. finds; level 0 means that no level fits.

    Attributes:
        j: The deepest level that fits into memory.
        k: The deepest level that the CPU can run.
        q: The shallowest level whose traffic comes closest to the link's maximum.
        g: The level of the cut, the least of them.
        fuzzy: The parameter whose bound was relaxed: memory, cpu or link; None if none was.
        broken: The parameters whose maxima level g does not keep; the relaxed one may exceed its
            maximum by the tolerance. A g below q can break the link's maximum: the paper's policy
            is followed literally.
    """

    j: int
    k: int
    q: int
    g: int
    fuzzy: str | None
    broken: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        """Whether the chosen level keeps all three maxima."""
        return not self.broken


def ushakov_cut(
    prefixes: Sequence[Prefix], memory_max: int, cpu_max: int, sent_max: int, *, fuzzy: bool = True
) -> UshakovCut:
    """Find the level of Ushakov et al. 2018 (U9), with its fuzzy bound (U10), literally.

    j and k are the deepest levels within the maxima of memory and CPU. q is the level whose traffic
    is the largest within the maximum of the link, the shallowest of several. The cut is at the
    least of the three. If two of them agree and the third alone holds the cut back, its bound is
    relaxed by up to OVERSHOOT_PERCENT.

    Args:
        prefixes: The load of running levels 1..i on the device, for every i.
        memory_max: The largest allowed memory.
        cpu_max: The largest allowed CPU load.
        sent_max: The largest allowed traffic, Cmax * Dmax of the paper.
        fuzzy: Whether a bound may be relaxed.
    """
    loads = {
        "memory": [prefix.memory_bytes for prefix in prefixes],
        "cpu": [prefix.cpu for prefix in prefixes],
        "link": [prefix.sent_bytes for prefix in prefixes],
    }
    maxima = {"memory": memory_max, "cpu": cpu_max, "link": sent_max}
    levels = {
        "memory": _deepest(loads["memory"], memory_max),
        "cpu": _deepest(loads["cpu"], cpu_max),
        "link": _fullest(loads["link"], sent_max),
    }

    percent = dict.fromkeys(maxima, 100)
    relaxed = _relaxed(levels, loads, maxima) if fuzzy else None
    if relaxed is not None:
        name, level = relaxed
        levels[name] = level
        percent[name] += OVERSHOOT_PERCENT

    # The literal rule looks at no load again, so the level that it chose may break a maximum.
    g = min(levels.values())
    if g:
        broken = [
            name for name in maxima if loads[name][g - 1] * 100 > maxima[name] * percent[name]
        ]
    else:
        broken = [name for name in maxima if not levels[name]]
    name = None if relaxed is None else relaxed[0]
    return UshakovCut(levels["memory"], levels["cpu"], levels["link"], g, name, tuple(broken))


def _deepest(loads: Sequence[int], most: int) -> int:
    """The last level whose load is at most `most`; 0 if there is none."""
    return max((level for level, load in enumerate(loads, 1) if load <= most), default=0)


def _fullest(sent: Sequence[int], most: int) -> int:
    """The level with the largest traffic of at most `most`, the first of several; 0 if none."""
    fitting = [level for level, size in enumerate(sent, 1) if size <= most]
    return max(fitting, key=lambda level: (sent[level - 1], -level), default=0)


def _relaxed(
    levels: Mapping[str, int], loads: Mapping[str, Sequence[int]], maxima: Mapping[str, int]
) -> tuple[str, int] | None:
    """The parameter that alone holds the cut back, and the level to which it may be relaxed.

    None if the other two do not agree, or if the overshoot is not tolerable.
    """
    lowest = min(levels, key=lambda name: levels[name])
    level, highest = sorted(other for name, other in levels.items() if name != lowest)
    if levels[lowest] >= level or highest - level > AGREE_LEVELS:
        return None

    overshoot = loads[lowest][level - 1] - maxima[lowest]
    tolerable = overshoot * 100 <= OVERSHOOT_PERCENT * maxima[lowest]
    return (lowest, level) if tolerable else None


def prefixes(table: CostTable) -> tuple[Prefix, ...]:
    """The load of every prefix of a table's order (U8); its traffic is what its end sends."""
    swept = _sweep(table, "bytes")
    memory, device = swept.metric("memory"), swept.metric("device")
    sent = swept.terms[TERMS.index("up_bytes")]

    return tuple(
        Prefix(int(memory[i]), int(device[i]), int(sent[i]))
        for i in range(1, len(table.stages) + 1)
    )


def ushakov(
    table: CostTable, objective: str, *, memory_max: int, cpu_max: int, sent_max: int
) -> tuple[PolicyChoice, UshakovCut]:
    """Apply `ushakov_cut` to a table in its order; the prefix of g levels runs on the device.

    Raises:
        PlanError: A tensor of the chosen cut cannot be sent.
    """
    cut = ushakov_cut(prefixes(table), memory_max, cpu_max, sent_max)

    swept = _sweep(table, objective)
    if stuck_steps(swept)[cut.g]:
        raise PlanError(f"policy ushakov chose level {cut.g}, where a tensor cannot be sent")
    return _choice("ushakov", table, Goal(objective, {}), swept.placement(cut.g)), cut


def neurosurgeon(table: CostTable, objective: str = "latency") -> PolicyChoice:
    """Try every cut of the order, the whole network on either side included.

    Source: Kang et al., Neurosurgeon, ASPLOS 2017, algorithm 1.

    Raises:
        PlanError: No cut of the order can be sent.
    """
    swept = _sweep(table, objective)

    allowed = ~stuck_steps(swept)
    if not allowed.any():
        raise PlanError("policy neurosurgeon: no cut of the order can be sent")

    value = np.max([swept.metric(name) for name in Goal(objective, {}).metrics], axis=0)
    best = int(np.argmin(np.where(allowed, value, np.iinfo(np.int64).max)))
    return _choice("neurosurgeon", table, Goal(objective, {}), swept.placement(best))


def dads(table: CostTable, objective: str = "latency") -> PolicyChoice:
    """Find a minimum cut with the device first.

    Source: Hu et al., DADS, INFOCOM 2019, without its replicated auxiliary nodes.
    """
    plan = planner.plan(table, objective, monotone=True)
    return PolicyChoice("dads", plan.placements, plan.value, plan.costs)


def collabdnn(table: CostTable, objective: str = "latency") -> PolicyChoice:
    """Find the shortest path over (layer, placement); any pattern may come out.

    Raises:
        PlanError: The table is not a chain.
    """
    return _path("collabdnn", table, Goal(objective, {}), None)


def jointdnn(
    table: CostTable,
    objective: str = "latency",
    *,
    blocks: BlockCost | None = None,
    battery_nj: int | None = None,
    cloud_ns: int | None = None,
    qos_ns: int | None = None,
) -> PolicyChoice:
    """Find the shortest path over blocks of layers that run together, within limits.

    Args:
        table: The cost table of a chain.
        objective: The objective.
        blocks: The cost of every block; None adds up the costs of its stages.
        battery_nj: The largest allowed energy of the device.
        cloud_ns: The largest allowed time of the server.
        qos_ns: The largest allowed latency.

    Raises:
        PlanError: The table is not a chain, or no path keeps the limits.
    """
    by_metric = {"energy": battery_nj, "server": cloud_ns, "latency": qos_ns}
    limits = {name: limit for name, limit in by_metric.items() if limit is not None}
    return _path("jointdnn", table, Goal(objective, limits), blocks)


def _path(policy: str, table: CostTable, goal: Goal, blocks: BlockCost | None) -> PolicyChoice:
    """The choice of a policy that is a shortest path."""
    if not is_chain(table.columns):
        raise PlanError(
            f"policy {policy} plans chains; merge the stages of {table.name!r} between its legal "
            "cuts"
        )

    path = shortest_path(table.columns, goal, blocks=blocks)
    if path is None:
        raise PlanError(
            f"policy {policy}: no path keeps the limits ({goal.limits_text()}); relax one of them"
        )
    return _named(policy, table, goal, path.solution)


def _sweep(table: CostTable, objective: str) -> Sweep:
    """Price every prefix of the order, each tensor in the option that suits the objective."""
    columns = table.columns
    weights = metric_terms(dict.fromkeys(Goal(objective, {}).metrics, 1))
    nothing = np.zeros(len(table.stages), dtype=np.bool_)
    everything = np.arange(len(table.stages))
    up, down = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    return sweep(columns, nothing, everything, up, down)


def choice_of_placements(
    policy: str, table: CostTable, objective: str, placements: Sequence[Placement]
) -> PolicyChoice:
    """Price placements that somebody else chose.

    Args:
        policy: The name of the policy, for messages.
        table: The cost table.
        objective: What the value is of, such as "latency".
        placements: One for every stage, in the order of the table.

    Raises:
        PlanError: There are not as many placements as stages, or a tensor would cross that cannot.
    """
    if len(placements) != len(table.stages):
        raise PlanError(
            f"policy {policy} places {len(placements)} of {len(table.stages)} stages; "
            "it must place each of them"
        )

    on_device = np.array([placement == Placement.DEVICE for placement in placements], dtype=bool)
    columns = table.columns
    weights = metric_terms(dict.fromkeys(Goal(objective, {}).metrics, 1))
    up_choice, down_choice = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    up, down = crossing(columns, on_device)
    if (up_choice[up] < 0).any() or (down_choice[down] < 0).any():
        raise PlanError(f"policy {policy} sends a tensor that cannot be sent; it must keep it")
    return _choice(policy, table, Goal(objective, {}), on_device)


def _choice(policy: str, table: CostTable, goal: Goal, on_device: Mask) -> PolicyChoice:
    """The choice of a placement, each tensor in the option that suits the objective."""
    columns = table.columns
    weights = metric_terms(dict.fromkeys(goal.metrics, 1))
    up, down = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    return _named(policy, table, goal, evaluate(columns, on_device, up, down))


def _named(policy: str, table: CostTable, goal: Goal, solution: Solution) -> PolicyChoice:
    placements = placements_of(solution)
    return PolicyChoice(policy, placements, goal.value(solution), describe(table, solution))
