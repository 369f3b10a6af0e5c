"""Price and rank every cut of a table's order: what a person compares before choosing one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from irsplit.base.errors import PlanError
from irsplit.planner.cost import Columns, CostTable
from irsplit.planner.goal import Goal, human
from irsplit.planner.placement import Sweep, stuck_steps, sweep
from irsplit.planner.result import Costs, figures, switches
from irsplit.planner.terms import Ints, Mask, metric_terms


@dataclass(frozen=True, slots=True)
class Ranked:
    """One cut: the first `device_stages` stages on the device, the rest on the server.

    Attributes:
        device_stages: The number of stages on the device.
        value: What the cut costs under the objective.
        allowed: Whether it keeps the limits.
    """

    device_stages: int
    value: int
    allowed: bool
    _prices: "_Prices" = field(repr=False, compare=False)

    @property
    def costs(self) -> Costs:
        """The cost term by term, computed when asked for: of many cuts only a few are looked at."""
        return self._prices.costs(self.device_stages)


def rank_cuts(table: CostTable, goal: Goal) -> tuple[Ranked, ...]:
    """Rank every prefix of the table's order that can be sent and that the pins permit.

    Every tensor is sent in the option that suits the objective or, where that breaks a limit, in
    the option that suits the limited metric. All prefixes are priced in one sweep per such metric,
    so the work is linear but for the sorting.

    Args:
        table: The cost table.
        goal: The objective and the limits.

    Returns:
        The cuts, the best first; those that break a limit come last. The first one is the exact
        optimum among prefixes if it is allowed.
    """
    crossing = _Crossing(table)
    choices = [goal.metrics, *((name,) for name in goal.limits)]
    prices = [_Prices(table, crossing, metrics) for metrics in choices]

    # For every prefix the prices that keep the limits and are the least, in this order.
    values = np.array([one.largest(goal.metrics) for one in prices])
    allowed = np.array([one.meets(goal.limits) for one in prices])
    best = np.lexsort((values, ~allowed), axis=0)[0]

    sendable = np.flatnonzero(_permitted(table.columns) & ~stuck_steps(prices[0].swept))
    ranked: list[Ranked] = []
    for count in sendable.tolist():
        index = best[count]
        value, is_allowed = int(values[index, count]), bool(allowed[index, count])
        ranked.append(Ranked(count, value, is_allowed, prices[index]))
    return tuple(sorted(ranked, key=_rank))


def _rank(row: Ranked) -> tuple[bool, int, int]:
    return not row.allowed, row.value, row.device_stages


def best_cut(tables: Sequence[CostTable], ranked: Sequence[Ranked], goal: Goal) -> Ranked:
    """Return the best cut of all tables, or explain why there is none.

    Args:
        tables: The cost tables of one model, one per chain.
        ranked: The ranked cuts of all these tables, the best first.
        goal: The objective and the limits.

    Raises:
        PlanError: No cut is allowed. The error names the limit that binds, or the limits that
            exclude each other.
    """
    if not ranked:
        raise PlanError("no cut can be made: pins or tensors that cannot be sent stand in the way")
    if ranked[0].allowed:
        return ranked[0]

    # One limit that even its own best cut does not keep explains the failure alone.
    for name, limit in goal.limits.items():
        least = _least(tables, name, {})
        if least is not None and least > limit:
            raise PlanError(
                f"limit {name}={human(name, limit)} cannot be met: every cut needs at least "
                f"{human(name, least)}"
            )

    # Each limit alone can be met. Drop limits as long as the others still exclude each other.
    names = list(goal.limits)
    for name in goal.limits:
        fewer = [other for other in names if other != name]
        if _least(tables, goal.objective, _only(goal, fewer)) is None:
            names = fewer

    *others, last = names
    least = _least(tables, last, _only(goal, others))
    assert least is not None, "each of these limits is needed for there to be no cut"
    with_others = " and ".join(f"{name}={human(name, goal.limits[name])}" for name in others)
    raise PlanError(
        f"limit {last}={human(last, goal.limits[last])} cannot be met together with {with_others}: "
        f"{last} is then at least {human(last, least)}; relax one of them"
    )


def _least(tables: Sequence[CostTable], objective: str, limits: Mapping[str, int]) -> int | None:
    """The least value of an objective over all cuts within limits; None if no cut keeps them."""
    values: list[int] = []
    for table in tables:
        ranked = rank_cuts(table, Goal(objective, limits))
        if ranked and ranked[0].allowed:
            values.append(ranked[0].value)
    return min(values, default=None)


def _only(goal: Goal, names: Sequence[str]) -> dict[str, int]:
    """The limits of these names."""
    return {name: goal.limits[name] for name in names}


def _permitted(columns: Columns) -> Mask:
    """For every number of stages on the device, whether the pins permit it.

    All stages that are pinned to the device must be among the first, all others behind them.
    """
    late = np.flatnonzero(columns.pinned_device)
    early = np.flatnonzero(columns.pinned_server)
    steps = np.arange(columns.pinned_device.size + 1)
    return (steps > late.max(initial=-1)) & (steps <= early.min(initial=steps[-1]))


class _Crossing:
    """The tensors that cross at every cut, found for all cuts at once when first asked for."""

    def __init__(self, table: CostTable) -> None:
        self._table = table

    @cached_property
    def up(self) -> list[list[int]]:
        """For every cut the tensors that are sent to the server."""
        spans: list[tuple[int, int, int]] = []
        for index, tensor in enumerate(self._table.tensors):
            if tensor.consumers:
                spans.append((index, _made(tensor.producer), max(tensor.consumers) + 1))
        return self._at(spans)

    @cached_property
    def down(self) -> list[list[int]]:
        """For every cut the graph outputs that are sent to the device."""
        spans: list[tuple[int, int, int]] = []
        for index, tensor in enumerate(self._table.tensors):
            if tensor.output:
                spans.append((index, 0, _made(tensor.producer)))
        return self._at(spans)

    def _at(self, spans: Iterable[tuple[int, int, int]]) -> list[list[int]]:
        """Turn (tensor, first cut, behind the last cut) into the tensors of every cut."""
        result: list[list[int]] = [[] for _ in range(len(self._table.stages) + 1)]
        for tensor, start, stop in spans:
            for crossing in result[start:stop]:
                crossing.append(tensor)
        return result


def _made(producer: int | None) -> int:
    """The least number of stages on the device with which a tensor is made there."""
    return 0 if producer is None else producer + 1


class _Prices:
    """The cost of all cuts, with every tensor sent in the option that suits some metrics."""

    def __init__(self, table: CostTable, crossing: _Crossing, metrics: Sequence[str]) -> None:
        columns = table.columns
        weights = metric_terms(dict.fromkeys(metrics, 1))
        self._table, self._crossing = table, crossing

        self._up, self._down = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
        everything = np.arange(len(table.stages))
        nothing = np.zeros(everything.size, dtype=np.bool_)
        self.swept: Sweep = sweep(columns, nothing, everything, self._up, self._down)

    def largest(self, metrics: Sequence[str]) -> Ints:
        """For every cut, the largest of some metrics."""
        return np.max([self.swept.metric(name) for name in metrics], axis=0)

    def meets(self, limits: Mapping[str, int]) -> Mask:
        """For every cut, whether the limits hold."""
        held = np.ones(self.swept.terms.shape[1], dtype=np.bool_)
        for name, limit in limits.items():
            held &= self.swept.metric(name) <= limit
        return held

    def costs(self, device_stages: int) -> Costs:
        """The terms, metrics and crossing tensors of one cut."""
        count = len(self._table.stages)

        pattern = "MC" if device_stages < count else "M"
        up = self._crossing.up[device_stages], self._up
        down = self._crossing.down[device_stages], self._down

        return Costs(
            pattern=pattern if device_stages else "C",
            round_trips=int(device_stages < count),
            switches=switches(self._table, up, down),
            **figures(self.swept.terms[:, device_stages]),
        )
