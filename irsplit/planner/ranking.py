"""Every cut of a table's order, priced and ranked: what a person compares before choosing one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from irsplit.base.errors import PlanError
from irsplit.planner.cost import Columns, CostTable, Mask, metric_terms
from irsplit.planner.goal import Goal, human
from irsplit.planner.placement import Sweep, stuck_steps, sweep
from irsplit.planner.result import Costs, figures, switches


@dataclass(frozen=True, slots=True)
class Ranked:
    """The first `groups` groups on the device, the rest on the server; `allowed` says whether the limits hold."""

    groups: int
    value: int
    allowed: bool
    _way: "_Way" = field(repr=False, compare=False)

    @property
    def costs(self) -> Costs:
        """Made when asked for: of very many cuts only the best are looked at."""
        return self._way.costs(self.groups)


def rank_cuts(table: CostTable, goal: Goal) -> tuple[Ranked, ...]:
    """Every prefix that can be sent and that the pins permit, the best first; those over a limit come last.

    The first one is the exact optimum among prefixes: all are tried. A tensor is sent in the way that suits the
    objective, or, where that breaks a limit, the limited metric. Linear but for the sorting.
    """
    crossing = _Crossing(table)
    ways = [
        _Way(table, crossing, names) for names in (goal.metrics, *((name,) for name in goal.limits))
    ]
    values = np.array(
        [np.max([way.swept.metric(name) for name in goal.metrics], axis=0) for way in ways]
    )
    allowed = np.array([way.meets(goal.limits) for way in ways])
    best = np.lexsort((values, ~allowed), axis=0)[0]
    steps = np.flatnonzero(_permitted(table.columns) & ~stuck_steps(ways[0].swept))
    found = [
        Ranked(
            count,
            int(values[best[count], count]),
            bool(allowed[best[count], count]),
            ways[best[count]],
        )
        for count in steps.tolist()
    ]
    return tuple(
        sorted(found, key=lambda ranked: (not ranked.allowed, ranked.value, ranked.groups))
    )


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


def _permitted(columns: Columns) -> Mask:
    """For every number of groups on the device, whether the pins permit it."""
    late = np.flatnonzero(columns.pinned_device)
    early = np.flatnonzero(columns.pinned_server)
    steps = np.arange(columns.pinned_device.size + 1)
    return (steps > late.max(initial=-1)) & (steps <= early.min(initial=steps[-1]))


class _Crossing:
    """The tensors that are sent up and down at every cut, found for all cuts at once when first asked for."""

    def __init__(self, table: CostTable) -> None:
        self._table = table

    @cached_property
    def up(self) -> list[list[int]]:
        read = (
            (index, tensor) for index, tensor in enumerate(self._table.tensors) if tensor.consumers
        )
        return self._at(
            (index, _made(tensor.producer), max(tensor.consumers) + 1) for index, tensor in read
        )

    @cached_property
    def down(self) -> list[list[int]]:
        outputs = (
            (index, tensor) for index, tensor in enumerate(self._table.tensors) if tensor.output
        )
        return self._at((index, 0, _made(tensor.producer)) for index, tensor in outputs)

    def _at(self, spans: Iterable[tuple[int, int, int]]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(len(self._table.groups) + 1)]
        for tensor, start, stop in spans:
            for cut in found[start:stop]:
                cut.append(tensor)
        return found


def _made(producer: int | None) -> int:
    """The least number of groups on the device with which a tensor is made there; graph inputs always are."""
    return 0 if producer is None else producer + 1


class _Way:
    """All cuts with every tensor sent in the way that suits some metrics."""

    def __init__(self, table: CostTable, crossing: _Crossing, metrics: Sequence[str]) -> None:
        columns = table.columns
        weights = metric_terms(dict.fromkeys(metrics, 1))
        self._table, self._crossing = table, crossing
        self._up, self._down = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
        every = np.arange(len(table.groups))
        self.swept: Sweep = sweep(
            columns, np.zeros(every.size, dtype=np.bool_), every, self._up, self._down
        )

    def meets(self, limits: Mapping[str, int]) -> Mask:
        """For every cut, whether the limits hold."""
        held = [self.swept.metric(name) <= limit for name, limit in limits.items()]
        return (
            np.logical_and.reduce(held)
            if held
            else np.ones(self.swept.terms.shape[1], dtype=np.bool_)
        )

    def costs(self, groups: int) -> Costs:
        """Terms, metrics and crossing tensors of one cut."""
        count = len(self._table.groups)
        sent = (self._crossing.up[groups], self._up), (self._crossing.down[groups], self._down)
        return Costs(
            pattern="MC" if 0 < groups < count else "M" if groups else "C",
            round_trips=int(groups < count),
            switches=switches(self._table, *sent),
            **figures(self.swept.terms[:, groups]),
        )
