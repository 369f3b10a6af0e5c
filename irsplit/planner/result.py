"""What a plan says: where everything runs, what it costs term by term, what it is worth, and the baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irsplit.planner.cost import (
    METRICS,
    TERMS,
    CostTable,
    CostTensor,
    Ints,
    Placement,
    TransferOption,
    metric_terms,
    upload_terms,
)
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, crossing, evaluate, pattern


@dataclass(frozen=True, slots=True)
class Switch:
    """One tensor that crosses, the way it is sent."""

    tensor: str
    to: Placement
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
    places: tuple[Placement, ...]
    value: int
    bound: int
    gap: float
    solver: str
    costs: Costs
    baselines: tuple[Baseline, ...]


def describe(table: CostTable, solution: Solution) -> Costs:
    """Terms, metrics and crossing tensors of a solution."""
    columns = table.columns
    up, down = (
        np.flatnonzero(crossed).tolist() for crossed in crossing(columns, solution.on_device)
    )
    return Costs(
        pattern=pattern(columns, solution.on_device),
        round_trips=solution.round_trips,
        switches=switches(table, (up, solution.up_choice), (down, solution.down_choice)),
        **figures(solution.terms),
    )


def figures(terms: Ints) -> dict[str, dict[str, int]]:
    """The terms by name, and the metrics that they add up to."""
    named: dict[str, int] = dict(zip(TERMS, terms.tolist(), strict=True))
    metrics = {name: sum(named[term] for term in summed) for name, summed in METRICS.items()}
    return {"terms": named, "metrics": metrics}


def switches(
    table: CostTable, up: tuple[Sequence[int], Ints], down: tuple[Sequence[int], Ints]
) -> tuple[Switch, ...]:
    """Tensors that are sent up and down, by index, each beside the way chosen for every tensor."""
    found: list[Switch] = []
    for (crossed, choice), ways, to in (
        (up, table.columns.up, Placement.SERVER),
        (down, table.columns.down, Placement.DEVICE),
    ):
        for index in crossed:
            tensor = table.tensors[index]
            options = tensor.up if to is Placement.SERVER else tensor.down
            coded = options[int(choice[index] - ways.ptr[index])]
            found.append(Switch(tensor.name, to, coded.codec, coded.size_bytes))
    return tuple(found)


def baselines(table: CostTable, goal: Goal) -> tuple[Baseline, ...]:
    """Device only; server only with the raw input; server only with the input as small as it gets.

    They ignore pins, and say so in `allowed`. One that would need a tensor to cross that cannot is left out.
    """
    found = (
        _baseline("device only", table, goal, lambda tensor: tensor.up, on_device=True),
        _baseline("server only, raw input", table, goal, _raw, on_device=False),
        _baseline("server only, compressed input", table, goal, _packed, on_device=False),
    )
    return tuple(baseline for baseline in found if baseline is not None)


def _raw(tensor: CostTensor) -> tuple[TransferOption, ...]:
    return tuple(coded for coded in tensor.up if coded.codec == "raw")[:1] or tensor.up[:1]


def _packed(tensor: CostTensor) -> tuple[TransferOption, ...]:
    return (
        tuple(coded for coded in (*tensor.up, *tensor.preview) if coded.codec != "raw") or tensor.up
    )


def _baseline(
    name: str,
    table: CostTable,
    goal: Goal,
    ways: Callable[[CostTensor], tuple[TransferOption, ...]],
    *,
    on_device: bool,
) -> Baseline | None:
    """Everything at one place; graph inputs are sent in the best of their `ways`, which need not be in the table."""
    columns = table.columns
    weights = metric_terms(dict.fromkeys(goal.metrics, 1))
    place = np.full(len(table.groups), on_device)
    up_choice, down_choice = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    up, down = crossing(columns, place)
    if (up_choice[up] < 0).any() or (down_choice[down] < 0).any():
        return None
    solution = evaluate(columns, place, up_choice, down_choice)
    costs = describe(table, solution)
    sent: list[Switch] = []
    for index in np.flatnonzero(up).tolist():
        tensor = table.tensors[index]
        options = ways(tensor)
        priced = upload_terms(table, options)
        best = int(np.argmin(weights @ priced))
        solution = replace(
            solution, terms=solution.terms + priced[:, best] - columns.up.terms[:, up_choice[index]]
        )
        sent.append(
            Switch(tensor.name, Placement.SERVER, options[best].codec, options[best].size_bytes)
        )
    if sent:
        back = tuple(switch for switch in costs.switches if switch.to is Placement.DEVICE)
        costs = replace(costs, **figures(solution.terms), switches=(*sent, *back))
    pinned = columns.pinned_server if on_device else columns.pinned_device
    allowed = solution.meets(goal.limits) and not bool(pinned.any())
    return Baseline(name, goal.value(solution), allowed, costs)
