"""One call plans one table: picks the solver whose answer is exact, and reports value, bound and gap."""

from collections.abc import Mapping
from dataclasses import replace

from irsplit.base.errors import PlanError
from irsplit.planner import chain
from irsplit.planner.branch import branch
from irsplit.planner.cost import Columns, CostTable, Placement, metric_terms
from irsplit.planner.goal import Goal, human
from irsplit.planner.integer import solve_exactly
from irsplit.planner.lagrange import Impossible
from irsplit.planner.network import Network, build
from irsplit.planner.placement import Solution
from irsplit.planner.probe import probe
from irsplit.planner.result import Plan, baselines, describe

_LARGE = (
    2_000  # groups; above it branch and bound is kept short and a gap of `_CLOSE` is good enough
)
_CLOSE = 9e-4
_REGIONS = 200
_REGIONS_LARGE = 6


class NotFoundError(PlanError):
    """The search ended with neither an allowed placement nor a proof that there is none."""


def plan(
    table: CostTable,
    objective: str = "latency",
    *,
    limits: Mapping[str, int] | None = None,
    monotone: bool = True,
    exact: bool = False,
    seconds: float = 60.0,
) -> Plan:
    """The best placement of a table's groups.

    `monotone` allows the device first and the server after it; otherwise any pattern may come out. Without limits
    the answer of a single-metric objective is exact; what is left open otherwise is in `Plan.gap`, which `exact`
    closes with an integer program of at most `seconds`. Raises PlanError naming the limit that cannot be met.
    """
    goal = Goal(objective, dict(limits or {}))
    columns = table.columns
    if len(table.groups) <= chain.LONGEST and chain.is_chain(columns):
        path = chain.shortest_path(columns, goal, monotone=monotone)
        if path is None:
            raise _why_not(columns, goal, build(columns, monotone=monotone))
        return _report(
            table, goal, monotone, path.solution, goal.value(path.solution), "shortest path"
        )
    network = build(columns, monotone=monotone)
    try:
        probed, best, bound = _search(columns, network, goal, monotone)
        solver = "minimum cut"
        if exact and (best is None or goal.value(best) > bound):
            closed, proved = solve_exactly(probed, goal, monotone=monotone, seconds=seconds)
            bound = max(bound, proved)
            if closed is not None and (best is None or goal.value(closed) < goal.value(best)):
                best, solver = closed, "integer program"
    except Impossible:
        raise _why_not(columns, goal, network) from None
    if best is None:
        raise NotFoundError(
            f"no placement within {goal.limits_text()} was found; relax a limit, or ask for the exact plan"
        )
    in_table = replace(
        best,
        up_choice=probed.up.in_table(best.up_choice),
        down_choice=probed.down.in_table(best.down_choice),
    )
    return _report(table, goal, monotone, in_table, min(bound, goal.value(best)), solver)


def _search(
    columns: Columns, network: Network, goal: Goal, monotone: bool
) -> tuple[Columns, Solution | None, int]:
    """The probed table, the best solution in it and the bound.

    Plans of several round trips, whose number a cut cannot see, are also compared with monotone ones.
    """
    small = columns.pinned_device.size <= _LARGE
    tolerance, regions = (0.0, _REGIONS) if small else (_CLOSE, _REGIONS_LARGE)
    probed = probe(columns, goal.limits, monotone=monotone)
    best, bound = branch(probed, network, goal, tolerance, regions)
    if monotone or best is None or best.round_trips <= 1 or not columns.round_trip.any():
        return probed, best, bound
    try:
        simple, _ = branch(probed, build(columns, monotone=True), goal, tolerance, regions)
    except Impossible:
        return probed, best, bound
    if simple is not None and goal.value(simple) < goal.value(best):
        best = simple
    return probed, best, bound


def _why_not(columns: Columns, goal: Goal, network: Network) -> PlanError:
    """What stands in the way when nothing is allowed: the pins, one limit, or the limits together."""
    if network.solve(columns, metric_terms({})).value is None:
        return PlanError(
            "no placement obeys the pins: a pinned group would need a tensor that cannot cross"
        )
    for name, limit in goal.limits.items():
        least = network.solve(columns, metric_terms({name: 1})).value
        if least is not None and least > limit:
            return PlanError(
                f"limit {name}={human(name, limit)} cannot be met: every placement needs at least {human(name, least)}"
            )
    return PlanError(
        f"no placement meets all limits together ({goal.limits_text()}); relax one of them"
    )


def _report(
    table: CostTable, goal: Goal, monotone: bool, best: Solution, bound: int, solver: str
) -> Plan:
    value = goal.value(best)
    return Plan(
        table=table.name,
        objective=goal.objective,
        unit=goal.unit,
        limits=dict(goal.limits),
        monotone=monotone,
        places=tuple(
            Placement.DEVICE if here else Placement.SERVER for here in best.on_device.tolist()
        ),
        value=value,
        bound=bound,
        gap=(value - bound) / value if value else 0.0,
        solver=solver,
        costs=describe(table, best),
        baselines=baselines(table, goal),
    )
