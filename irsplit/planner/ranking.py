"""Every cut of a table's order, priced and ranked: what a person compares before choosing one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irsplit.cost import Columns, CostTable, metric_terms
from irsplit.errors import PlanError
from irsplit.planner.goal import Goal, human
from irsplit.planner.placement import Solution, evaluate, stuck_steps, sweep
from irsplit.planner.result import Costs, describe


@dataclass(frozen=True, slots=True)
class Ranked:
    """The first `groups` groups on the device, the rest on the server; `allowed` says whether the limits hold."""

    groups: int
    value: int
    allowed: bool
    costs: Costs


def rank_cuts(table: CostTable, goal: Goal) -> tuple[Ranked, ...]:
    """Every prefix that can be sent and that the pins permit, the best first; those over a limit come last.

    The first one is the exact optimum among prefixes: all are tried. A tensor is sent in the way that suits the
    objective, or, where that breaks a limit, the limited metric.
    """
    columns = table.columns
    found = [ranked for count in range(len(table.groups) + 1) if (ranked := _best_way(table, columns, goal, count))]
    return tuple(sorted(found, key=lambda ranked: (not ranked.allowed, ranked.value, ranked.groups)))


def best_cut(ranked: Sequence[Ranked], goal: Goal) -> Ranked:
    """The best that is allowed. Raises PlanError naming the limit that binds."""
    if not ranked:
        raise PlanError("no cut can be made: pins or tensors that cannot be sent stand in the way")
    if ranked[0].allowed:
        return ranked[0]
    for name, limit in goal.limits.items():
        least = min(row.costs.metrics[name] for row in ranked)
        if least > limit:
            raise PlanError(
                f"limit {name}={human(name, limit)} cannot be met: every cut needs at least {human(name, least)}"
            )
    raise PlanError(f"no cut meets all limits together ({goal.limits_text()}); relax one of them")


def _best_way(table: CostTable, columns: Columns, goal: Goal, count: int) -> Ranked | None:
    on_device = np.arange(len(table.groups)) < count
    if (columns.pinned_device & ~on_device).any() or (columns.pinned_server & on_device).any():
        return None
    ways: list[Solution] = []
    for names in (goal.metrics, *((name,) for name in goal.limits)):
        weights = metric_terms(dict.fromkeys(names, 1))
        up_choice, down_choice = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
        if stuck_steps(sweep(columns, on_device, np.array([], np.int64), up_choice, down_choice))[0]:
            return None
        ways.append(evaluate(columns, on_device, up_choice, down_choice))
    best = min(ways, key=lambda way: (not way.meets(goal.limits), goal.value(way)))
    return Ranked(count, goal.value(best), best.meets(goal.limits), describe(table, best))
