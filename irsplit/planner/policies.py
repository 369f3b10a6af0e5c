"""The papers' own ways to choose, over the same cost table as the exact planner, so that they can be compared.

`ushakov` looks at prefixes and three maxima; `neurosurgeon` tries every cut of a chain; `dads` is a minimum cut with
the device first; `collabdnn` a shortest path over single layers; `jointdnn` one over blocks of layers, with limits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irsplit import planner
from irsplit.base.errors import PlanError
from irsplit.planner import Costs, Goal
from irsplit.planner.chain import BlockCost, is_chain, shortest_path
from irsplit.planner.cost import TERMS, CostTable, Mask, Placement, metric_terms
from irsplit.planner.placement import Solution, Sweep, evaluate, stuck_steps, sweep
from irsplit.planner.result import describe

AGREE_LEVELS = 1  # two of j, k, q agree when they are at most this far apart
OVERSHOOT_PERCENT = 20  # of a maximum that the fuzzy rule tolerates


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """What a policy chose: groups per place, its value under the objective, its costs."""

    policy: str
    places: tuple[Placement, ...]
    value: int
    costs: Costs


@dataclass(frozen=True, slots=True)
class Prefix:
    """Measured load of running levels 1..i on the device: memory, CPU, and what its end sends."""

    memory_bytes: int
    cpu: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class UshakovCut:
    """The paper's j (memory), k (CPU), q (link) and g = min; level 0 means that not even the first level fits.

    `fuzzy` names the parameter whose bound was relaxed, `broken` those whose maxima the chosen level does not keep (the
    relaxed one within its tolerance). q is the shallowest level whose traffic fits best, so a g below q can break the
    link's limit: the literal rule is kept, and says so here.
    """

    j: int
    k: int
    q: int
    g: int
    fuzzy: str | None
    broken: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        """Whether the device can run the chosen level within all three maxima."""
        return not self.broken


def ushakov_rule(
    prefixes: Sequence[Prefix], memory_max: int, cpu_max: int, sent_max: int, *, fuzzy: bool = True
) -> UshakovCut:
    """The rule of Ushakov et al. 2018 (U9) and its fuzzy bound (U10), literally. `sent_max` is Cmax * Dmax."""
    j = _deepest([prefix.memory_bytes for prefix in prefixes], memory_max)
    k = _deepest([prefix.cpu for prefix in prefixes], cpu_max)
    sent = [prefix.sent_bytes for prefix in prefixes]
    q = max(
        (level for level, size in enumerate(sent, 1) if size <= sent_max),
        key=lambda i: (sent[i - 1], -i),
        default=0,
    )
    levels = {"memory": j, "cpu": k, "link": q}
    values = {
        "memory": [p.memory_bytes for p in prefixes],
        "cpu": [p.cpu for p in prefixes],
        "link": sent,
    }
    maxima = {"memory": memory_max, "cpu": cpu_max, "link": sent_max}
    relaxed = _relaxed(levels, values, maxima) if fuzzy else None
    chosen = dict(levels) if relaxed is None else {**levels, relaxed[0]: relaxed[1]}
    g = min(chosen.values())
    tolerance = dict.fromkeys(maxima, 100)
    if relaxed is not None:
        tolerance[relaxed[0]] += OVERSHOOT_PERCENT
    over = [
        name for name in maxima if g and values[name][g - 1] * 100 > maxima[name] * tolerance[name]
    ]
    broken = over if g else [name for name in maxima if not chosen[name]]
    return UshakovCut(
        chosen["memory"],
        chosen["cpu"],
        chosen["link"],
        g,
        relaxed[0] if relaxed else None,
        (*broken,),
    )


def _deepest(loads: Sequence[int], most: int) -> int:
    return max((level for level, load in enumerate(loads, 1) if load <= most), default=0)


def _relaxed(
    levels: Mapping[str, int], values: Mapping[str, Sequence[int]], maxima: Mapping[str, int]
) -> tuple[str, int] | None:
    """The parameter that alone holds the cut back, and the level it may go to, when its overshoot is tolerable."""
    third = min(levels, key=lambda name: levels[name])
    others = sorted(level for name, level in levels.items() if name != third)
    wanted = others[0]
    if levels[third] >= wanted or others[1] - others[0] > AGREE_LEVELS:
        return None
    overshoot = values[third][wanted - 1] - maxima[third]
    return (third, wanted) if overshoot * 100 <= OVERSHOOT_PERCENT * maxima[third] else None


def prefixes(table: CostTable) -> tuple[Prefix, ...]:
    """The load of every prefix of a table's order, as U8 measures it; traffic is what its end sends."""
    swept = _sweep(table, "bytes")
    memory, device, sent = (
        swept.metric("memory"),
        swept.metric("device"),
        swept.terms[TERMS.index("up_bytes")],
    )
    return tuple(
        Prefix(int(memory[i]), int(device[i]), int(sent[i]))
        for i in range(1, len(table.groups) + 1)
    )


def ushakov(
    table: CostTable, objective: str, *, memory_max: int, cpu_max: int, sent_max: int
) -> tuple[PolicyChoice, UshakovCut]:
    """The rule applied to a table in its order; the prefix of g levels runs on the device."""
    rule = ushakov_rule(prefixes(table), memory_max, cpu_max, sent_max)
    swept = _sweep(table, objective)
    if stuck_steps(swept)[rule.g]:
        raise PlanError(f"policy ushakov chose level {rule.g}, where a tensor cannot be sent")
    return _choice("ushakov", table, Goal(objective, {}), swept.placement(rule.g)), rule


def neurosurgeon(table: CostTable, objective: str = "latency") -> PolicyChoice:
    """Every cut of the order tried, whole network on either side included. Source: Kang et al. 2017, algorithm 1."""
    swept = _sweep(table, objective)
    allowed = ~stuck_steps(swept)
    if not allowed.any():
        raise PlanError("policy neurosurgeon: no cut of the order can be sent")
    value = np.max([swept.metric(name) for name in Goal(objective, {}).metrics], axis=0)
    best = int(np.argmin(np.where(allowed, value, np.iinfo(np.int64).max)))
    return _choice("neurosurgeon", table, Goal(objective, {}), swept.placement(best))


def dads(table: CostTable, objective: str = "latency") -> PolicyChoice:
    """A minimum cut, device first. Source: Hu et al., DADS, INFOCOM 2019, without its replicated auxiliary nodes."""
    found = planner.plan(table, objective, monotone=True)
    return PolicyChoice("dads", found.places, found.value, found.costs)


def collabdnn(table: CostTable, objective: str = "latency") -> PolicyChoice:
    """Shortest path over (layer, place) from start to end; any pattern may come out."""
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
    """Shortest path over blocks of layers run together, within the limits battery, cloud load and QoS (latency)."""
    given = {"energy": battery_nj, "server": cloud_ns, "latency": qos_ns}
    limits = {name: limit for name, limit in given.items() if limit is not None}
    return _path("jointdnn", table, Goal(objective, limits), blocks)


def _path(policy: str, table: CostTable, goal: Goal, blocks: BlockCost | None) -> PolicyChoice:
    if not is_chain(table.columns):
        raise PlanError(
            f"policy {policy} plans chains; merge the groups of {table.name!r} between its legal cuts"
        )
    found = shortest_path(table.columns, goal, blocks=blocks)
    if found is None:
        raise PlanError(
            f"policy {policy}: no path keeps the limits ({goal.limits_text()}); relax one of them"
        )
    return _named(policy, table, goal, found.solution)


def _sweep(table: CostTable, objective: str) -> Sweep:
    """Every prefix of the table's order on the device, each tensor sent in the way that suits the objective."""
    columns = table.columns
    weights = metric_terms(dict.fromkeys(Goal(objective, {}).metrics, 1))
    nothing = np.zeros(len(table.groups), dtype=np.bool_)
    return sweep(
        columns,
        nothing,
        np.arange(len(table.groups)),
        columns.up.fold(weights)[1],
        columns.down.fold(weights)[1],
    )


def _choice(policy: str, table: CostTable, goal: Goal, on_device: Mask) -> PolicyChoice:
    columns = table.columns
    weights = metric_terms(dict.fromkeys(goal.metrics, 1))
    solution = evaluate(
        columns, on_device, columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    )
    return _named(policy, table, goal, solution)


def _named(policy: str, table: CostTable, goal: Goal, solution: Solution) -> PolicyChoice:
    places = tuple(
        Placement.DEVICE if here else Placement.SERVER for here in solution.on_device.tolist()
    )
    return PolicyChoice(policy, places, goal.value(solution), describe(table, solution))
