"""Limits and slowest-step objectives by Lagrange multipliers: every step is a minimum cut again.

The goal is to minimise max f_k, over the metrics f_k of the objective, with g_m <= B_m for every
limit. For multipliers a_k >= 0, not all zero, and l_m >= 0, the minimum cut

    V = min over placements of  sum a_k f_k + sum l_m g_m

proves that no allowed placement has max f_k below (V - sum l_m B_m) / sum a_k. The multipliers are
integers, so the bound is exact.

1. Every placement that was seen bounds, as a linear function of the multipliers, what any cut can
   prove. A small linear program finds the multipliers at which the lowest of these functions is the
   highest, a cut is made there, and its placements join those seen (Kelley's cutting planes, 1960).
   With one limit this is the classical two-point search.
2. Every placement seen is offered as a solution; the best allowed one remains.
3. What gap the multipliers leave open is narrowed from the other side (repair.py).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from irsplit.planner.cost import Columns
from irsplit.planner.goal import Goal
from irsplit.planner.network import Network, Relaxed
from irsplit.planner.placement import Solution, evaluate
from irsplit.planner.repair import exchange, improve, shifted
from irsplit.planner.terms import Mask, metric_rows, metric_terms

# The weighted total of a cut: fine enough for multipliers, small enough for two rounds of flow.
_PRECISION = 1 << 52
_ROUNDS = 60  # of cutting planes
_FINER = 20  # how many times finer than the tolerance cuts and multipliers are
_WALKS = 2  # of repair
_RIVALS = 4  # placements seen towards which every step is tried
_SOURCES = 12  # placements seen from which moves are taken
_LAYERS = 8  # layers at the edge of the best placement from which moves are taken


class Impossible(Exception):
    """No placement obeys the pins and limits of a region; proved, not merely not found."""


@dataclass
class Search:
    """The state of the search of one region.

    Attributes:
        columns: The cost table with the region's pins.
        network: The network of the table.
        goal: The objective and the limits.
        best: The best allowed solution.
        bound: The proved bound.
        points: For each solution seen, the metrics of the objective and then those with limits.
        seen: The solutions seen.
        multipliers: Those that proved the bound, in the order of a point.
        precision: The precision of the cuts; see `minimum_cut`.
    """

    columns: Columns
    network: Network
    goal: Goal
    best: Solution | None = None
    bound: int = 0
    points: list[list[int]] = field(default_factory=list)
    seen: list[Solution] = field(default_factory=list)
    multipliers: list[int] = field(default_factory=list)
    precision: int = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of a point: those of the objective, then those with limits."""
        return (*self.goal.metrics, *self.goal.limits)

    @property
    def gap(self) -> float:
        """The relative distance of the best solution from the bound; infinite without one."""
        if self.best is None:
            return math.inf
        value = self.goal.value(self.best)
        return (value - self.bound) / value if value else 0.0

    def offer(self, solution: Solution) -> None:
        """Keep a solution if it is allowed and better than the best so far."""
        if not solution.meets(self.goal.limits):
            return
        if self.best is None or self.goal.value(solution) < self.goal.value(self.best):
            self.best = solution

    @property
    def prices(self) -> list[float]:
        """What a unit of each limited metric is worth, by the multipliers that proved the bound."""
        count = len(self.goal.metrics)
        scale = max(1, sum(self.multipliers[:count]))
        return [multiplier / scale for multiplier in self.multipliers[count:]]

    def priced(self, solution: Solution) -> int:
        """What a solution costs under the multipliers that proved the bound."""
        return _dot(self.multipliers, self.point(solution))

    def price(self, weights: dict[str, int]) -> Relaxed:
        """Make one minimum cut, and offer both its extreme placements."""
        relaxed = self.network.solve(self.columns, metric_terms(weights), self.precision)
        if relaxed.value is None:
            raise Impossible
        sides = [relaxed.smallest]
        if (relaxed.smallest != relaxed.largest).any():
            sides.append(relaxed.largest)

        for side in sides:
            solution = evaluate(self.columns, side, relaxed.up_choice, relaxed.down_choice)
            self.seen.append(solution)
            self.points.append(self.point(solution))
            self.offer(solution)
        return relaxed

    def point(self, solution: Solution) -> list[int]:
        """The metrics of a solution as a cut sees them: round trips count once."""
        extra = self.columns.round_trip * max(0, solution.round_trips - 1)
        terms = solution.terms - extra

        # Python's integers, since a sum of terms may exceed 64 bits.
        figures: list[int] = []
        for name in self.metrics:
            figures.append(sum(int(terms[row]) for row in metric_rows(name)))
        return figures

    def raise_bound(self, multipliers: list[int]) -> None:
        """Make a cut under integer multipliers, and keep the bound that they prove if it is better.

        Args:
            multipliers: One per metric of the objective, then one per limit.

        Raises:
            Impossible: The multipliers prove that no placement is allowed.
        """
        weights: dict[str, int] = {}
        for name, multiplier in zip(self.metrics, multipliers, strict=True):
            weights[name] = weights.get(name, 0) + multiplier
        value = self.price(weights).value
        assert value is not None

        count = len(self.goal.metrics)
        slack = value - _dot(multipliers[count:], [*self.goal.limits.values()])
        scale = sum(multipliers[:count])
        if scale == 0:
            if slack > 0:
                raise Impossible
            return
        proved = -(-slack // scale)  # rounded up: values are integers
        if not self.multipliers or proved > self.bound:
            self.bound, self.multipliers = max(self.bound, proved), multipliers


def _dot(left: list[int], right: list[int]) -> int:
    """The sum of products, in Python's integers, which do not overflow."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def search(
    columns: Columns, network: Network, goal: Goal, tolerance: float, parent: "Search | None" = None
) -> Search:
    """Search one region for the best allowed placement.

    Args:
        columns: The cost table with the region's pins.
        network: The network of the table.
        goal: The objective and the limits.
        tolerance: The relative gap at which the search ends.
        parent: The search of a larger region. Its best solution can end this one early; its
            multipliers and those of its placements that are in this region begin it.

    Returns:
        The ended search with its best solution and bound.

    Raises:
        Impossible: The region has no allowed placement.
    """
    is_relaxed = bool(goal.limits) or len(goal.metrics) > 1
    precision = round(_FINER / tolerance) if tolerance and is_relaxed else 0
    state = Search(columns, network, goal, precision=precision)

    # Begin with what is known of the larger region, or with the objective alone.
    if parent is not None:
        state.best, state.bound = parent.best, parent.bound
        state.seen = [solution for solution in parent.seen if _inside(columns, solution.on_device)]
        state.points = [state.point(solution) for solution in state.seen]
        state.raise_bound(parent.multipliers)
    elif len(goal.metrics) == 1:
        state.raise_bound([1] + [0] * len(goal.limits))
    if state.gap <= tolerance:
        return state

    if parent is None:
        _check_limits(state)
    _cutting_planes(state, tolerance)
    if state.gap > tolerance:
        _repair(state)
    return state


def _check_limits(state: Search) -> None:
    """Raise Impossible if a limit alone cannot be met; else its least placement has been seen."""
    for name, limit in state.goal.limits.items():
        least = state.price({name: 1}).value
        assert least is not None
        if least > limit:
            raise Impossible


def _inside(columns: Columns, on_device: Mask) -> bool:
    """Whether a placement obeys the pins."""
    left_device = (columns.pinned_device & ~on_device).any()
    left_server = (columns.pinned_server & on_device).any()
    return not (left_device or left_server)


def _cutting_planes(state: Search, tolerance: float) -> None:
    """Raise the bound until the placements seen show that it cannot be raised any more."""
    totals = [_total(state.columns, name) for name in state.metrics]
    if len(state.goal.metrics) > 1 and not state.points:
        for index in range(len(state.goal.metrics)):
            state.raise_bound([int(i == index) for i in range(len(totals))])

    points_before = 0
    for _ in range(_ROUNDS):
        points = len({tuple(point) for point in state.points})
        if state.gap <= tolerance or points == points_before:
            return
        points_before = points

        height, multipliers = _master(state)
        if height <= state.bound * (1 + max(1e-9, tolerance / _FINER)):
            return
        # Integers as large as the weighted total of a cut may be.
        weighted = sum(m * total for m, total in zip(multipliers, totals, strict=True))
        state.raise_bound([int(m * (_PRECISION / max(weighted, 1.0))) for m in multipliers])


def _total(columns: Columns, name: str) -> int:
    """An upper bound on all that the network can add up for one metric."""
    rows = metric_rows(name)
    total = 1 + int(columns.round_trip[rows].sum())
    for block in (columns.device, columns.server, columns.up.terms, columns.down.terms):
        total += int(block[rows].sum())
    return total


def _master(state: Search) -> tuple[float, list[float]]:
    """Find the multipliers at which the lower envelope of the points seen is the highest.

    The variables of the linear program are the height, the multipliers of the objective's metrics,
    which add up to 1, and those of the limits. All are scaled to about 1.

    Returns:
        The height, and the multipliers.
    """
    count, limits = len(state.goal.metrics), list(state.goal.limits.values())

    points = np.array(state.points, dtype=np.float64)
    points[:, count:] -= np.array(limits, dtype=np.float64)
    scale = np.maximum(1.0, np.abs(points).max(axis=0))
    scale[:count] = scale[:count].max()

    # height <= multipliers @ point, for every point.
    rows = np.hstack([np.ones((len(points), 1)), -points / scale])
    cost = np.zeros(rows.shape[1])
    cost[0] = -1.0
    simplex = np.array([[0.0] + [1.0] * count + [0.0] * len(limits)])
    bounds = [(None, None)] + [(0.0, 1.0)] * count + [(0.0, 1e6)] * len(limits)
    result = linprog(
        cost, A_ub=rows, b_ub=np.zeros(len(points)), A_eq=simplex, b_eq=[1.0], bounds=bounds
    )
    assert result.status == 0, result.message
    multipliers: NDArray[np.float64] = result.x[1:] / scale * scale[0]
    return float(result.x[0] * scale[0]), [max(0.0, float(m)) for m in multipliers]


def _repair(state: Search) -> None:
    """Look for better allowed placements between the best one and what else was seen."""
    monotone = state.network.monotone

    for _ in range(_WALKS):
        if state.best is None:
            return

        before = state.best
        rivals = sorted(state.seen, key=state.priced)
        best = improve(state.columns, state.goal, before, rivals[:_RIVALS], monotone=monotone)
        sources = [*rivals[:_SOURCES], *shifted(state.columns, best, _LAYERS)]
        state.best = exchange(state.columns, state.goal, best, sources, state.bound, state.prices)
        if state.best is before:
            return
