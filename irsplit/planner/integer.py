"""The same optimum as an integer program (HiGHS), to close a gap that multipliers leave open.

x_v = 1 puts group v on the device. Every way to send a tensor is a variable of its own, the working set and the
slowest stage are upper envelopes, and round trips are counted exactly: r_v is the number of visits to the server on
the way to v, the longest path over which the place changes from device to server.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import milp
from scipy.sparse import csr_array

from irsplit.planner.cost import METRICS, TERMS, Columns, CostColumns, Ints
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, evaluate

_WORKING = TERMS.index("working_bytes")
_TOLERANCE = 1e-6  # HiGHS' own: bounds are lowered, and limits tried again lowered, by this part

Floats = NDArray[np.float64]


@dataclass
class _Rows:
    """Rows `sum coefficient * variable >= least`, collected as triples."""

    row: list[Ints] = field(default_factory=list)
    column: list[Ints] = field(default_factory=list)
    value: list[Floats] = field(default_factory=list)
    least: list[Floats] = field(default_factory=list)
    count: int = 0

    def new(self, least: Floats) -> Ints:
        rows = np.arange(self.count, self.count + least.size)
        self.count += least.size
        self.least.append(least)
        return rows

    def put(self, rows: Ints, columns: Ints, values: Floats | float) -> None:
        self.row.append(rows)
        self.column.append(columns)
        self.value.append(np.broadcast_to(np.asarray(values, dtype=np.float64), rows.shape))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each variable lives: groups, ways up, ways down, visits per group, working set, round trips, peak."""

    groups: int
    up: int
    down: int

    @property
    def visits(self) -> int:
        return self.groups + self.up + self.down

    @property
    def working(self) -> int:
        return self.visits + self.groups

    @property
    def trips(self) -> int:
        return self.working + 1

    @property
    def peak(self) -> int:
        return self.working + 2

    @property
    def size(self) -> int:
        return self.working + 3


def solve_exactly(
    columns: Columns, goal: Goal, *, monotone: bool, seconds: float
) -> tuple[Solution | None, int]:
    """The best allowed solution and a proved bound, to the solver's tolerance of 1e-6; (None, bound) without one."""
    solution, bound = _solve(columns, goal, monotone, seconds, 1.0)
    if solution is not None and not solution.meets(goal.limits):
        solution, _ = _solve(columns, goal, monotone, seconds, 1.0 - 2 * _TOLERANCE)
        solution = solution if solution is not None and solution.meets(goal.limits) else None
    return solution, bound


def _solve(
    columns: Columns, goal: Goal, monotone: bool, seconds: float, tighten: float
) -> tuple[Solution | None, int]:
    layout = _Layout(
        columns.pinned_device.size, columns.up.terms.shape[1], columns.down.terms.shape[1]
    )
    rows = _Rows()
    _crossing_rows(columns, layout, rows, monotone)
    _envelope_rows(columns, layout, rows)
    cost = np.zeros(layout.size)
    scale = 1.0
    for name in goal.metrics:
        coefficients, constant = _metric(columns, layout, name)
        scale = max(scale, float(np.abs(coefficients).max(initial=0.0)))
    for name in goal.metrics:  # peak >= metric
        coefficients, constant = _metric(columns, layout, name)
        row = rows.new(np.array([constant / scale]))
        rows.put(np.repeat(row, layout.size), np.arange(layout.size), -coefficients / scale)
        rows.put(row, np.array([layout.peak]), 1.0)
    cost[layout.peak] = 1.0
    for name, limit in goal.limits.items():
        coefficients, constant = _metric(columns, layout, name)
        unit = max(1.0, float(np.abs(coefficients).max(initial=0.0)) / 1e6)
        row = rows.new(np.array([(constant - math.floor(limit * tighten)) / unit]))
        rows.put(np.repeat(row, layout.size), np.arange(layout.size), -coefficients / unit)
    matrix = csr_array(
        (np.concatenate(rows.value), (np.concatenate(rows.row), np.concatenate(rows.column))),
        shape=(rows.count, layout.size),
    )
    lower, upper = np.zeros(layout.size), np.full(layout.size, np.inf)
    upper[: layout.visits] = 1.0
    lower[: layout.groups][columns.pinned_device] = 1.0
    upper[: layout.groups][columns.pinned_server] = 0.0
    whole = np.zeros(layout.size)
    whole[: layout.visits] = 1
    result = milp(
        cost,
        constraints=(matrix, np.concatenate(rows.least), np.inf),
        bounds=(lower, upper),
        integrality=whole,
        options={"mip_rel_gap": 0.0, "time_limit": seconds},
    )
    bound = 0 if result.mip_dual_bound is None else float(result.mip_dual_bound) * scale
    proved = 0 if not math.isfinite(bound) else math.ceil(bound - _TOLERANCE * abs(bound))
    if result.x is None:
        return None, proved
    return _read(columns, layout, result.x), proved


def _metric(columns: Columns, layout: _Layout, name: str) -> tuple[Floats, float]:
    """A metric as an affine function of the variables: coefficients and constant."""
    rows = [TERMS.index(term) for term in METRICS[name] if term != "working_bytes"]
    device, server = columns.device[rows].sum(axis=0), columns.server[rows].sum(axis=0)
    coefficients = np.zeros(layout.size)
    coefficients[: layout.groups] = device - server
    coefficients[layout.groups : layout.groups + layout.up] = columns.up.terms[rows].sum(axis=0)
    coefficients[layout.groups + layout.up : layout.visits] = columns.down.terms[rows].sum(axis=0)
    coefficients[layout.working] = 1.0 if "working_bytes" in METRICS[name] else 0.0
    coefficients[layout.trips] = columns.round_trip[rows].sum()
    return coefficients, float(server.sum())


def _ways_per_row(ways: CostColumns, tensors: Ints) -> tuple[Ints, Ints]:
    """For each listed tensor all its ways, flat: (position in the list, way)."""
    width = np.diff(ways.ptr)[tensors]
    position = np.repeat(np.arange(tensors.size), width)
    within = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
    return position, np.repeat(ways.ptr[:-1][tensors], width) + within


def _crossing_rows(columns: Columns, layout: _Layout, rows: _Rows, monotone: bool) -> None:
    """A tensor read at the other place is sent; what the device wants back is sent back."""
    tensor = np.repeat(np.arange(columns.producer.size), np.diff(columns.consumer_ptr))
    maker, reader = columns.producer[tensor], columns.consumer
    inner = maker >= 0
    first_way = layout.groups
    row = rows.new(
        np.where(inner, 0.0, 1.0)
    )  # ways up - x_maker + x_reader >= 0; the maker of an input is 1
    position, way = _ways_per_row(columns.up, tensor)
    rows.put(row[position], first_way + way, 1.0)
    rows.put(row[inner], maker[inner], -1.0)
    rows.put(row, reader, 1.0)
    first_way += layout.up
    wanted = np.flatnonzero(columns.output & (columns.producer >= 0))
    row = rows.new(np.ones(wanted.size))  # ways down + x_maker >= 1
    position, way = _ways_per_row(columns.down, wanted)
    rows.put(row[position], first_way + way, 1.0)
    rows.put(row, columns.producer[wanted], 1.0)
    maker, reader, tensor = maker[inner], reader[inner], tensor[inner]
    row = rows.new(np.zeros(maker.size))  # ways down + x_maker - x_reader >= 0, no ways if monotone
    rows.put(row, maker, 1.0)
    rows.put(row, reader, -1.0)
    if not monotone:
        position, way = _ways_per_row(columns.down, tensor)
        rows.put(row[position], first_way + way, 1.0)
    row = rows.new(np.zeros(maker.size))  # visits_reader >= visits_maker + x_maker - x_reader
    rows.put(row, layout.visits + reader, 1.0)
    rows.put(row, layout.visits + maker, -1.0)
    rows.put(row, maker, -1.0)
    rows.put(row, reader, 1.0)
    row = rows.new(np.zeros(maker.size))
    rows.put(row, layout.visits + reader, 1.0)
    rows.put(row, layout.visits + maker, -1.0)


def _envelope_rows(columns: Columns, layout: _Layout, rows: _Rows) -> None:
    every = np.arange(layout.groups)
    row = rows.new(np.ones(layout.groups))  # visits_v + x_v >= 1
    rows.put(row, layout.visits + every, 1.0)
    rows.put(row, every, 1.0)
    row = rows.new(np.zeros(layout.groups))  # round trips >= visits_v
    rows.put(row, np.full(layout.groups, layout.trips), 1.0)
    rows.put(row, layout.visits + every, -1.0)
    row = rows.new(np.zeros(layout.groups))  # working set >= w_v x_v
    rows.put(row, np.full(layout.groups, layout.working), 1.0)
    rows.put(row, every, -columns.device[_WORKING].astype(np.float64))


def _read(columns: Columns, layout: _Layout, values: Floats) -> Solution:
    on_device = values[: layout.groups] > 0.5
    up = _chosen(columns.up, values[layout.groups : layout.groups + layout.up])
    down = _chosen(columns.down, values[layout.groups + layout.up : layout.visits])
    return evaluate(columns, on_device, up, down)


def _chosen(ways: CostColumns, values: Floats) -> Ints:
    """The way with the largest value of each tensor; -1 where there is none."""
    choice = np.full(len(ways.ptr) - 1, -1, dtype=np.int64)
    for tensor in np.flatnonzero(np.diff(ways.ptr) > 0).tolist():
        start, stop = int(ways.ptr[tensor]), int(ways.ptr[tensor + 1])
        choice[tensor] = start + int(np.argmax(values[start:stop]))
    return choice
