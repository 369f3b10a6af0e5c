"""What a plan says: where everything runs, what it costs term by term, what it is worth, and the baselines."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from irsplit.cost import METRICS, TERMS, Coded, CostTable, Crossings, Ints, Mask, Place, Tensor, metric_terms
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, crossing, evaluate, pattern


@dataclass(frozen=True, slots=True)
class Switch:
    """One tensor that crosses, the way it is sent."""

    tensor: str
    to: Place
    codec: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Costs:
    """A placement and its cost: every term of `cost.TERMS` by name, and the metrics they add up to."""

    pattern: str
    round_trips: int
    terms: dict[str, int]
    metrics: dict[str, int]
    switches: tuple[Switch, ...]

    @property
    def throughput_ns(self) -> int:
        """The period of the pipeline: its slowest stage."""
        return max(self.metrics[stage] for stage in ("device", "uplink", "server", "downlink"))


@dataclass(frozen=True, slots=True)
class Baseline:
    """A placement that needs no planner; `allowed` says whether pins and limits permit it."""

    name: str
    value: int
    allowed: bool
    costs: Costs


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer: `value` is what the placement costs, no allowed placement costs less than `bound`.

    `gap` is (value - bound) / value: 0 means proved optimal. `solver` names what found it.
    """

    table: str
    objective: str
    unit: str
    limits: dict[str, int]
    monotone: bool
    places: tuple[Place, ...]
    value: int
    bound: int
    gap: float
    solver: str
    costs: Costs
    baselines: tuple[Baseline, ...]


def describe(table: CostTable, solution: Solution) -> Costs:
    """Terms, metrics and crossing tensors of a solution."""
    columns = table.columns
    up, down = crossing(columns, solution.on_device)
    switches = [
        *_switches(table, columns.up, up, solution.up_choice, Place.SERVER),
        *_switches(table, columns.down, down, solution.down_choice, Place.DEVICE),
    ]
    return Costs(
        pattern=pattern(columns, solution.on_device),
        round_trips=solution.round_trips,
        terms={term: int(value) for term, value in zip(TERMS, solution.terms, strict=True)},
        metrics={name: solution.metric(name) for name in METRICS},
        switches=tuple(switches),
    )


def _switches(table: CostTable, ways: Crossings, crossed: Mask, choice: Ints, to: Place) -> list[Switch]:
    found: list[Switch] = []
    for index in np.flatnonzero(crossed).tolist():
        tensor = table.tensors[index]
        options = tensor.up if to is Place.SERVER else tensor.down
        coded = options[int(choice[index] - ways.ptr[index])]
        found.append(Switch(tensor.name, to, coded.codec, coded.size_bytes))
    return found


def baselines(table: CostTable, goal: Goal) -> tuple[Baseline, ...]:
    """Device only; server only with the raw input; server only with the input as small as it gets.

    They ignore pins, and say so in `allowed`. One that would need a tensor to cross that cannot is left out.
    """
    found = (
        _baseline("device only", table, goal, on_device=True),
        _baseline("server only, raw input", _with_inputs(table, _raw), goal, on_device=False),
        _baseline("server only, compressed input", _with_inputs(table, _packed), goal, on_device=False),
    )
    return tuple(baseline for baseline in found if baseline is not None)


def _raw(tensor: Tensor) -> tuple[Coded, ...]:
    return tuple(coded for coded in tensor.up if coded.codec == "raw")[:1] or tensor.up[:1]


def _packed(tensor: Tensor) -> tuple[Coded, ...]:
    return tuple(coded for coded in (*tensor.up, *tensor.preview) if coded.codec != "raw") or tensor.up


def _with_inputs(table: CostTable, ways: Callable[[Tensor], tuple[Coded, ...]]) -> CostTable:
    tensors = tuple(t if t.producer is not None else replace(t, up=ways(t)) for t in table.tensors)
    return replace(table, tensors=tensors)


def _baseline(name: str, table: CostTable, goal: Goal, *, on_device: bool) -> Baseline | None:
    columns = table.columns
    place = np.full(len(table.groups), on_device)
    weights = metric_terms(dict.fromkeys(goal.metrics, 1))
    up_choice, down_choice = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    up, down = crossing(columns, place)
    if (up_choice[up] < 0).any() or (down_choice[down] < 0).any():
        return None
    solution = evaluate(columns, place, up_choice, down_choice)
    pinned = columns.pinned_server if on_device else columns.pinned_device
    allowed = solution.meets(goal.limits) and not bool(pinned.any())
    return Baseline(name, goal.value(solution), allowed, describe(table, solution))
