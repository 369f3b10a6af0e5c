"""Limits and slowest-stage objectives by Lagrange multipliers: every step is a minimum cut again.

For multipliers a_k >= 0 (one per metric of the objective, not all zero) and l_m >= 0 (one per limit B_m), the cut
    V = min over placements of  sum a_k f_k + sum l_m g_m
proves that no allowed placement has max f_k below (V - sum l_m B_m) / sum a_k. The multipliers are integers, so the
bound is exact. A small linear program over the placements seen so far (Kelley's cutting planes) proposes the next
multipliers; with one limit this is the classical two-point search. What the multipliers leave open, the gap, is
narrowed from the other side (`repair.py`).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from irsplit.planner.cost import METRICS, TERMS, Columns, Mask, metric_terms
from irsplit.planner.goal import Goal
from irsplit.planner.network import Network, Relaxed
from irsplit.planner.placement import Solution, evaluate
from irsplit.planner.repair import exchange, improve, shifted

_PRECISION = (
    1 << 52
)  # of a weighted total: fine enough for multipliers, small enough for two rounds of flow
_ROUNDS = 60
_FINER = 20  # times finer than the tolerance: the cuts, and the multipliers
_WALKS = 2
_RIVALS = 4  # of the placements seen, towards which every step is tried
_SOURCES = 12  # of them, and
_LAYERS = 8  # of layers at the edge of the best, from which moves are taken


class Impossible(Exception):
    """No placement obeys the pins and limits of a region; proved, not merely not found."""


@dataclass
class Search:
    """The state of one search: the best allowed solution, the proved bound, and what was seen on the way."""

    columns: Columns
    network: Network
    goal: Goal
    best: Solution | None = None
    bound: int = 0
    points: list[list[int]] = field(default_factory=list)  # objective metrics, then limit metrics
    seen: list[Solution] = field(default_factory=list)
    multipliers: list[int] = field(default_factory=list)  # those that proved the bound
    precision: int = 0  # of its cuts; see `minimum_cut`

    @property
    def gap(self) -> float:
        """Relative distance of the best solution from the bound; infinite without a solution."""
        if self.best is None:
            return math.inf
        value = self.goal.value(self.best)
        return (value - self.bound) / value if value else 0.0

    def offer(self, solution: Solution) -> bool:
        """Keep a solution if it is allowed and better than the best so far."""
        if not solution.meets(self.goal.limits):
            return False
        if self.best is not None and self.goal.value(solution) >= self.goal.value(self.best):
            return False
        self.best = solution
        return True

    @property
    def prices(self) -> list[float]:
        """What a unit of each limited metric was worth when the bound was proved, in the objective's unit."""
        count = len(self.goal.metrics)
        return [
            multiplier / max(1, sum(self.multipliers[:count]))
            for multiplier in self.multipliers[count:]
        ]

    def priced(self, solution: Solution) -> int:
        """What a solution costs under the multipliers that proved the bound."""
        return sum(
            m * figure for m, figure in zip(self.multipliers, self.point(solution), strict=True)
        )

    def price(self, weights: dict[str, int]) -> Relaxed:
        """One minimum cut; both its extreme placements are evaluated and offered."""
        relaxed = self.network.solve(self.columns, metric_terms(weights), self.precision)
        if relaxed.value is None:
            raise Impossible
        sides = (
            [relaxed.smallest]
            if (relaxed.smallest == relaxed.largest).all()
            else [relaxed.smallest, relaxed.largest]
        )
        for side in sides:
            solution = evaluate(self.columns, side, relaxed.up_choice, relaxed.down_choice)
            self.seen.append(solution)
            self.points.append(self.point(solution))
            self.offer(solution)
        return relaxed

    def point(self, solution: Solution) -> list[int]:
        """Metrics as the cut sees them: round trips counted once."""
        extra = self.columns.round_trip * max(0, solution.round_trips - 1)
        terms = solution.terms - extra
        names = [*self.goal.metrics, *self.goal.limits]
        return [sum(int(terms[TERMS.index(term)]) for term in METRICS[name]) for name in names]

    def raise_bound(self, multipliers: list[int]) -> None:
        """Solve under integer multipliers (objective metrics first, then limits) and keep the bound they prove."""
        names = [*self.goal.metrics, *self.goal.limits]
        weights: dict[str, int] = {}
        for name, multiplier in zip(names, multipliers, strict=True):
            weights[name] = weights.get(name, 0) + multiplier
        value = self.price(weights).value
        assert value is not None
        count = len(self.goal.metrics)
        slack = value - sum(
            m * limit
            for m, limit in zip(multipliers[count:], self.goal.limits.values(), strict=True)
        )
        scale = sum(multipliers[:count])
        if scale == 0 and slack > 0:
            raise Impossible
        if scale > 0 and (not self.multipliers or -(-slack // scale) > self.bound):
            self.bound, self.multipliers = max(self.bound, -(-slack // scale)), multipliers


def search(
    columns: Columns, network: Network, goal: Goal, tolerance: float, parent: "Search | None" = None
) -> Search:
    """The best allowed placement found, with its proved bound. Raises Impossible if there is none.

    A `parent` is the search of a larger region: its best solution ends this one early, its multipliers and the
    placements it saw that are in this region begin it.
    """
    open_ended = tolerance and (goal.limits or len(goal.metrics) > 1)
    state = Search(columns, network, goal, precision=round(_FINER / tolerance) if open_ended else 0)
    if parent is not None:
        state.best, state.bound = parent.best, parent.bound
        state.seen = [solution for solution in parent.seen if _inside(columns, solution.on_device)]
        state.points = [state.point(solution) for solution in state.seen]
        state.raise_bound(parent.multipliers)
    elif len(goal.metrics) == 1:
        state.raise_bound([1] + [0] * len(goal.limits))
    if state.gap <= tolerance:
        return state
    for name, limit in goal.limits.items() if parent is None else ():
        least = state.price({name: 1}).value
        assert least is not None
        if least > limit:
            raise Impossible
    _cutting_planes(state, tolerance)
    if state.gap > tolerance:
        _repair(state)
    return state


def _inside(columns: Columns, on_device: Mask) -> bool:
    return not (
        (columns.pinned_device & ~on_device).any() or (columns.pinned_server & on_device).any()
    )


def _cutting_planes(state: Search, tolerance: float) -> None:
    totals = [_total(state.columns, name) for name in (*state.goal.metrics, *state.goal.limits)]
    if len(state.goal.metrics) > 1 and not state.points:
        for index in range(len(state.goal.metrics)):
            state.raise_bound([int(i == index) for i in range(len(totals))])
    known = 0
    for _ in range(_ROUNDS):
        if state.gap <= tolerance or known == len({tuple(point) for point in state.points}):
            return
        known = len({tuple(point) for point in state.points})
        height, multipliers = _master(state)
        if height <= state.bound * (1 + max(1e-9, tolerance / _FINER)):
            return
        weighted = sum(m * total for m, total in zip(multipliers, totals, strict=True))
        state.raise_bound([int(m * (_PRECISION / max(weighted, 1.0))) for m in multipliers])


def _total(columns: Columns, name: str) -> int:
    """An upper bound on everything the network can add up for one metric."""
    rows = [TERMS.index(term) for term in METRICS[name]]
    blocks = (columns.device, columns.server, columns.up.terms, columns.down.terms)
    return 1 + sum(int(block[rows].sum()) for block in blocks) + int(columns.round_trip[rows].sum())


def _master(state: Search) -> tuple[float, list[float]]:
    """Multipliers that raise the lower envelope of the points seen, and the height it then has."""
    count, limits = len(state.goal.metrics), list(state.goal.limits.values())
    points = np.array(state.points, dtype=np.float64)
    points[:, count:] -= np.array(limits, dtype=np.float64)
    scale = np.maximum(1.0, np.abs(points).max(axis=0))
    scale[:count] = scale[:count].max()
    rows = np.hstack([np.ones((len(points), 1)), -points / scale])
    cost = np.zeros(rows.shape[1])
    cost[0] = -1.0
    simplex = np.array([[0.0] + [1.0] * count + [0.0] * len(limits)])
    bounds = [(None, None)] + [(0.0, 1.0)] * count + [(0.0, 1e6)] * len(limits)
    found = linprog(
        cost, A_ub=rows, b_ub=np.zeros(len(points)), A_eq=simplex, b_eq=[1.0], bounds=bounds
    )
    assert found.status == 0, found.message
    multipliers: NDArray[np.float64] = found.x[1:] / scale * scale[0]
    return float(found.x[0] * scale[0]), [max(0.0, float(m)) for m in multipliers]


def _repair(state: Search) -> None:
    """Look for better allowed placements between the best one and what else was seen."""
    for _ in range(_WALKS):
        if state.best is None:
            return
        before = state.best
        rivals = sorted(state.seen, key=state.priced)
        best = improve(
            state.columns, state.goal, before, rivals[:_RIVALS], monotone=state.network.monotone
        )
        moves = [*rivals[:_SOURCES], *shifted(state.columns, best, _LAYERS)]
        state.best = exchange(state.columns, state.goal, best, moves, state.bound, state.prices)
        if state.best is before:
            return
