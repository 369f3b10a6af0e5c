"""Every cut of a table's order, priced and ranked: what a person compares before choosing one."""

from collections.abc import Mapping, Sequence
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


def best_cut(tables: Sequence[CostTable], ranked: Sequence[Ranked], goal: Goal) -> Ranked:
    """The best that is allowed of the ranked cuts of all tables.

    Raises PlanError naming the limit that binds, or those that exclude each other.
    """
    if not ranked:
        raise PlanError("no cut can be made: pins or tensors that cannot be sent stand in the way")
    if ranked[0].allowed:
        return ranked[0]
    for name, limit in goal.limits.items():
        least = _least(tables, name, {})
        if least is not None and least > limit:
            raise PlanError(
                f"limit {name}={human(name, limit)} cannot be met: every cut needs at least {human(name, least)}"
            )
    names = list(goal.limits)
    for name in goal.limits:
        fewer = [other for other in names if other != name]
        names = names if _least(tables, goal.objective, _only(goal, fewer)) is not None else fewer
    *others, last = names
    least = _least(tables, last, _only(goal, others))
    assert least is not None, "each of these limits is needed for there to be no cut"
    given = " and ".join(f"{name}={human(name, goal.limits[name])}" for name in others)
    limit = f"{last}={human(last, goal.limits[last])}"
    raise PlanError(
        f"limit {limit} cannot be met together with {given}: {last} is then at least {human(last, least)}; "
        "relax one of them"
    )


def _least(tables: Sequence[CostTable], objective: str, limits: Mapping[str, int]) -> int | None:
    """The least value of an objective over all cuts within some limits; None when no cut keeps them."""
    best = [ranked[0] for table in tables if (ranked := rank_cuts(table, Goal(objective, limits)))]
    return min((row.value for row in best if row.allowed), default=None)


def _only(goal: Goal, names: Sequence[str]) -> dict[str, int]:
    return {name: goal.limits[name] for name in names}


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
