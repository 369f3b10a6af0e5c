"""Plan one table: pick the solver whose answer is exact, and report value, bound and gap.

A chain is planned by the shortest path (chain.py), which is exact for everything. Any other table
becomes a network whose minimum cut is the best placement (network.py); limits and the throughput
objective add Lagrange multipliers and branch and bound (lagrange.py, branch.py). What gap these
leave is closed on request by an integer program (integer.py).
"""

from collections.abc import Mapping
from dataclasses import replace

from irsplit.base.errors import PlanError
from irsplit.planner import chain
from irsplit.planner.branch import branch
from irsplit.planner.cost import Columns, CostTable
from irsplit.planner.goal import Goal, human
from irsplit.planner.integer import solve_exactly
from irsplit.planner.lagrange import Impossible
from irsplit.planner.network import Network, build
from irsplit.planner.placement import Solution
from irsplit.planner.probe import probe
from irsplit.planner.result import Plan, baselines, describe, placements_of
from irsplit.planner.terms import metric_terms

# Above this number of stages branch and bound is kept short, and a small gap is good enough.
_LARGE = 2_000
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
    """Find the best placement of a table's stages.

    Without limits the answer for an objective of one metric is exact. What is left open otherwise
    is in `Plan.gap`.

    Args:
        table: The cost table.
        objective: A name of `OBJECTIVES`.
        limits: The largest allowed value by the name of a metric, in the metric's unit.
        monotone: Whether the device comes first and the server after it. Without it the placement
            may change any number of times.
        exact: Whether to close a gap with an integer program.
        seconds: The time that the integer program may take.

    Returns:
        The plan with its value, its proved bound and the baselines.

    Raises:
        PlanError: A limit or the pins cannot be met; the error names what stands in the way.
        NotFoundError: No allowed placement was found, but none is proved not to exist.

    Example:
        >>> from irsplit.planner.cost import CostTable, CostTensor, StageCost, TransferOption
        >>> from irsplit.profiles import link
        >>> large, small = (TransferOption("raw", 10**6),), (TransferOption("raw", 100),)
        >>> stages = (StageCost("a", 10, 10), StageCost("b", 10**9, 10**6))
        >>> x = CostTensor("x", None, (0,), large, large)
        >>> tensors = (x, CostTensor("t", 0, (1,), small, small))
        >>> [str(side) for side in plan(CostTable("m", stages, tensors, link("5g"))).placements]
        ['device', 'server']
    """
    goal = Goal(objective, dict(limits or {}))
    columns = table.columns
    if len(table.stages) <= chain.LONGEST and chain.is_chain(columns):
        path = chain.shortest_path(columns, goal, monotone=monotone)
        if path is None:
            raise _why_not(columns, goal, build(columns, monotone=monotone))
        value = goal.value(path.solution)
        return _report(table, goal, monotone, path.solution, value, "shortest path")

    # Anything else is searched by minimum cuts; an integer program may close what these leave open.
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
            f"no placement within {goal.limits_text()} was found; relax a limit, or ask for the "
            "exact plan"
        )

    # The search dropped options; its choices are counted in the full table again.
    in_table = replace(
        best,
        up_choice=probed.up.in_table(best.up_choice),
        down_choice=probed.down.in_table(best.down_choice),
    )
    return _report(table, goal, monotone, in_table, min(bound, goal.value(best)), solver)


def _search(
    columns: Columns, network: Network, goal: Goal, monotone: bool
) -> tuple[Columns, Solution | None, int]:
    """Search by minimum cuts.

    A cut cannot see the number of round trips. A plan of several of them is therefore compared with
    the best monotone one.

    Returns:
        The probed table, the best solution in it, and the bound.
    """
    is_small = columns.pinned_device.size <= _LARGE
    tolerance, regions = (0.0, _REGIONS) if is_small else (_CLOSE, _REGIONS_LARGE)
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
    """Say what stands in the way: the pins, one limit, or the limits together."""
    if network.solve(columns, metric_terms({})).value is None:
        return PlanError(
            "no placement obeys the pins: a pinned stage would need a tensor that cannot cross"
        )
    for name, limit in goal.limits.items():
        least = network.solve(columns, metric_terms({name: 1})).value
        if least is not None and least > limit:
            return PlanError(
                f"limit {name}={human(name, limit)} cannot be met: every placement needs at least "
                f"{human(name, least)}"
            )
    return PlanError(
        f"no placement meets all limits together ({goal.limits_text()}); relax one of them"
    )


def _report(
    table: CostTable, goal: Goal, monotone: bool, best: Solution, bound: int, solver: str
) -> Plan:
    """Describe a solution as a plan."""
    value = goal.value(best)
    return Plan(
        table=table.name,
        objective=goal.objective,
        unit=goal.unit,
        limits=dict(goal.limits),
        monotone=monotone,
        placements=placements_of(best),
        value=value,
        bound=bound,
        gap=(value - bound) / value if value else 0.0,
        solver=solver,
        costs=describe(table, best),
        baselines=baselines(table, goal),
    )
