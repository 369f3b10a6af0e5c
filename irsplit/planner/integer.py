"""The same optimum as an integer program (HiGHS), to close a gap that multipliers leave open.

The variables, in this order:

* x_v in {0, 1}: stage v is on the device;
* one in {0, 1} for every option to send a tensor up, then one for every option to send one down;
* r_v: the number of visits to the server on the way to v, the longest path over which the placement
  changes from device to server; unlike a minimum cut, this counts round trips exactly;
* the working set, an upper envelope of w_v x_v;
* the number of round trips, an upper envelope of r_v;
* the peak, an upper envelope of the metrics of the objective, which is minimised.

HiGHS computes with floating point and a tolerance. The bound is therefore lowered by it, and a
solution that breaks a limit by a hair is searched again with limits that are tighter by it.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import milp
from scipy.sparse import csr_array

from irsplit.planner.cost import Columns, CostColumns
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, evaluate
from irsplit.planner.terms import METRICS, WORKING, Ints, metric_rows

_TOLERANCE = 1e-6  # HiGHS' own, relative

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
        """Add one row per right-hand side, and return their indices."""
        rows = np.arange(self.count, self.count + least.size)
        self.count += least.size
        self.least.append(least)
        return rows

    def put(self, rows: Ints, columns: Ints, values: Floats | float) -> None:
        """Add coefficients; those of the same row and column add up."""
        self.row.append(rows)
        self.column.append(columns)
        self.value.append(np.broadcast_to(np.asarray(values, dtype=np.float64), rows.shape))


@dataclass(frozen=True, slots=True)
class _Layout:
    """The index of the first variable of each kind; `stages` come first, at 0."""

    stages: int
    up_options: int
    down_options: int

    @property
    def up(self) -> int:
        return self.stages

    @property
    def down(self) -> int:
        return self.up + self.up_options

    @property
    def visits(self) -> int:
        return self.down + self.down_options

    @property
    def working(self) -> int:
        return self.visits + self.stages

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
    """Find the optimum with an integer program.

    Args:
        columns: The cost table.
        goal: The objective and the limits.
        monotone: Whether the device comes first and the server after it.
        seconds: The time that the solver may take.

    Returns:
        The best allowed solution, or None, and the bound that is proved to the solver's tolerance.
    """
    solution, bound = _solve(columns, goal, monotone, seconds, 1.0)
    if solution is not None and not solution.meets(goal.limits):
        solution, _ = _solve(columns, goal, monotone, seconds, 1.0 - 2 * _TOLERANCE)
        if solution is not None and not solution.meets(goal.limits):
            solution = None
    return solution, bound


def _solve(
    columns: Columns, goal: Goal, monotone: bool, seconds: float, tighten: float
) -> tuple[Solution | None, int]:
    """Solve once, with limits multiplied by `tighten`."""
    up_options, down_options = columns.up.terms.shape[1], columns.down.terms.shape[1]
    layout = _Layout(columns.pinned_device.size, up_options, down_options)

    rows = _Rows()
    _add_crossing_rows(columns, layout, rows, monotone)
    _add_visit_rows(columns, layout, rows)
    _add_envelope_rows(columns, layout, rows)
    scale = _add_objective_rows(columns, layout, rows, goal)
    _add_limit_rows(columns, layout, rows, goal, tighten)

    cost = np.zeros(layout.size)
    cost[layout.peak] = 1.0

    # Binary variables end at 1, and pins fix stages.
    lower, upper = np.zeros(layout.size), np.full(layout.size, np.inf)
    upper[: layout.visits] = 1.0
    lower[: layout.stages][columns.pinned_device] = 1.0
    upper[: layout.stages][columns.pinned_server] = 0.0

    # All else may be continuous: the least values that the rows allow are integers where these are.
    integrality = np.zeros(layout.size)
    integrality[: layout.visits] = 1

    indices = np.concatenate(rows.row), np.concatenate(rows.column)
    matrix = csr_array((np.concatenate(rows.value), indices), shape=(rows.count, layout.size))
    result = milp(
        cost,
        constraints=(matrix, np.concatenate(rows.least), np.inf),
        bounds=(lower, upper),
        integrality=integrality,
        options={"mip_rel_gap": 0.0, "time_limit": seconds},
    )

    # Without a bound the solver says none or infinity.
    bound = 0 if result.mip_dual_bound is None else float(result.mip_dual_bound) * scale
    proved = 0 if not math.isfinite(bound) else math.ceil(bound - _TOLERANCE * abs(bound))
    if result.x is None:
        return None, proved

    return _solution(columns, layout, result.x), proved


def _metric(columns: Columns, layout: _Layout, name: str) -> tuple[Floats, float]:
    """A metric as an affine function of the variables: coefficients and constant."""
    rows = [row for row in metric_rows(name) if row != WORKING]
    device, server = columns.device[rows].sum(axis=0), columns.server[rows].sum(axis=0)

    # A stage costs what it costs on the server, plus the difference if it is on the device.
    coefficients = np.zeros(layout.size)
    coefficients[: layout.stages] = device - server
    coefficients[layout.up : layout.down] = columns.up.terms[rows].sum(axis=0)
    coefficients[layout.down : layout.visits] = columns.down.terms[rows].sum(axis=0)
    coefficients[layout.working] = 1.0 if "working_bytes" in METRICS[name] else 0.0
    coefficients[layout.trips] = columns.round_trip[rows].sum()
    return coefficients, float(server.sum())


def _add_objective_rows(columns: Columns, layout: _Layout, rows: _Rows, goal: Goal) -> float:
    """peak >= metric, for every metric of the objective; returns the unit of the peak."""
    metrics = [_metric(columns, layout, name) for name in goal.metrics]
    largest = [float(np.abs(coefficients).max(initial=0.0)) for coefficients, _ in metrics]
    scale = max(1.0, *largest)

    for coefficients, constant in metrics:
        row = rows.new(np.array([constant / scale]))
        rows.put(np.repeat(row, layout.size), np.arange(layout.size), -coefficients / scale)
        rows.put(row, np.array([layout.peak]), 1.0)
    return scale


def _add_limit_rows(
    columns: Columns, layout: _Layout, rows: _Rows, goal: Goal, tighten: float
) -> None:
    """limit >= metric, for every limit."""
    for name, limit in goal.limits.items():
        coefficients, constant = _metric(columns, layout, name)
        unit = max(1.0, float(np.abs(coefficients).max(initial=0.0)) / 1e6)
        row = rows.new(np.array([(constant - math.floor(limit * tighten)) / unit]))
        rows.put(np.repeat(row, layout.size), np.arange(layout.size), -coefficients / unit)


def _options_per_row(options: CostColumns, tensors: Ints) -> tuple[Ints, Ints]:
    """All options of the listed tensors, flat: (position in the list, option)."""
    width = np.diff(options.ptr)[tensors]
    position = np.repeat(np.arange(tensors.size), width)
    within = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
    return position, np.repeat(options.ptr[:-1][tensors], width) + within


def _add_crossing_rows(columns: Columns, layout: _Layout, rows: _Rows, monotone: bool) -> None:
    """A tensor that is read on the other side is sent there, and an output reaches the device."""
    tensor = np.repeat(np.arange(columns.producer.size), np.diff(columns.consumer_ptr))
    producer, reader = columns.producer[tensor], columns.consumer
    inner = producer >= 0

    # options up - x_producer + x_reader >= 0, where the producer of a graph input counts as 1
    row = rows.new(np.where(inner, 0.0, 1.0))
    position, option = _options_per_row(columns.up, tensor)
    rows.put(row[position], layout.up + option, 1.0)
    rows.put(row[inner], producer[inner], -1.0)
    rows.put(row, reader, 1.0)

    # options down + x_producer >= 1, for an output
    outputs = np.flatnonzero(columns.output & (columns.producer >= 0))
    row = rows.new(np.ones(outputs.size))
    position, option = _options_per_row(columns.down, outputs)
    rows.put(row[position], layout.down + option, 1.0)
    rows.put(row, columns.producer[outputs], 1.0)

    # options down + x_producer - x_reader >= 0, without options in a monotone plan
    producer, reader = columns.edges()
    row = rows.new(np.zeros(producer.size))
    rows.put(row, producer, 1.0)
    rows.put(row, reader, -1.0)
    if not monotone:
        position, option = _options_per_row(columns.down, tensor[inner])
        rows.put(row[position], layout.down + option, 1.0)


def _add_visit_rows(columns: Columns, layout: _Layout, rows: _Rows) -> None:
    """Count the visits to the server on the longest path to every stage."""
    # visits_reader >= visits_producer + x_producer - x_reader
    producer, reader = columns.edges()
    row = rows.new(np.zeros(producer.size))
    rows.put(row, layout.visits + reader, 1.0)
    rows.put(row, layout.visits + producer, -1.0)
    rows.put(row, producer, -1.0)
    rows.put(row, reader, 1.0)

    # visits_reader >= visits_producer
    row = rows.new(np.zeros(producer.size))
    rows.put(row, layout.visits + reader, 1.0)
    rows.put(row, layout.visits + producer, -1.0)

    # visits_v + x_v >= 1
    every = np.arange(layout.stages)
    row = rows.new(np.ones(layout.stages))
    rows.put(row, layout.visits + every, 1.0)
    rows.put(row, every, 1.0)


def _add_envelope_rows(columns: Columns, layout: _Layout, rows: _Rows) -> None:
    """Put the number of round trips and the working set above those of every stage."""
    # round trips >= visits_v
    every = np.arange(layout.stages)
    row = rows.new(np.zeros(layout.stages))
    rows.put(row, np.full(layout.stages, layout.trips), 1.0)
    rows.put(row, layout.visits + every, -1.0)

    # working set >= w_v x_v
    row = rows.new(np.zeros(layout.stages))
    rows.put(row, np.full(layout.stages, layout.working), 1.0)
    rows.put(row, every, -columns.device[WORKING].astype(np.float64))


def _solution(columns: Columns, layout: _Layout, values: Floats) -> Solution:
    """The placement and the options that the variables stand for, priced exactly."""
    on_device = values[: layout.stages] > 0.5
    up = _chosen(columns.up, values[layout.up : layout.down])
    down = _chosen(columns.down, values[layout.down : layout.visits])
    return evaluate(columns, on_device, up, down)


def _chosen(options: CostColumns, values: Floats) -> Ints:
    """The option with the largest value of each tensor; -1 if it has none."""
    choice = np.full(len(options.ptr) - 1, -1, dtype=np.int64)
    for tensor in np.flatnonzero(np.diff(options.ptr) > 0).tolist():
        start, stop = int(options.ptr[tensor]), int(options.ptr[tensor + 1])
        choice[tensor] = start + int(np.argmax(values[start:stop]))
    return choice
