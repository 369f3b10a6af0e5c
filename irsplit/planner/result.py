"""What a plan says: the placement, its cost term by term, what is proved, and the baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irsplit.planner.cost import (
    CostTable,
    CostTensor,
    Placement,
    TransferOption,
    upload_terms,
)
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, crossing, evaluate, pattern
from irsplit.planner.terms import METRICS, PIPELINE_STEPS, TERMS, Ints, metric_terms


@dataclass(frozen=True, slots=True)
class Switch:
    """One tensor that crosses: to which side, in which codec, in how many bytes."""

    tensor: str
    to: Placement
    codec: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of a placement.

    Attributes:
        pattern: The sides in turn: `M`, `C`, `MC`, `MCM`; M is the mobile device, C the cloud.
        round_trips: How often the server is visited.
        terms: Every term of `TERMS` by name.
        metrics: The metrics that the terms add up to, by name.
        switches: The tensors that cross.
    """

    pattern: str
    round_trips: int
    terms: dict[str, int]
    metrics: dict[str, int]
    switches: tuple[Switch, ...]

    @property
    def throughput_ns(self) -> int:
        """The period of the pipeline: the time of its slowest step."""
        return max(self.metrics[step] for step in PIPELINE_STEPS)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A placement that needs no planner; `allowed` says whether pins and limits permit it."""

    name: str
    value: int
    allowed: bool
    costs: Costs


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of the planner.

    Attributes:
        table: The name of the cost table.
        objective: The name of the objective.
        unit: The unit of `value` and `bound`.
        limits: The limits by the name of their metric.
        monotone: Whether only plans were considered that run the device first.
        placements: The placement of every stage.
        value: What the placement costs.
        bound: The proved lower bound: no allowed placement costs less.
        gap: (value - bound) / value; 0 means proved optimal.
        solver: The name of the method that found the placement.
        costs: The cost term by term.
        baselines: Placements to compare with.
    """

    table: str
    objective: str
    unit: str
    limits: dict[str, int]
    monotone: bool
    placements: tuple[Placement, ...]
    value: int
    bound: int
    gap: float
    solver: str
    costs: Costs
    baselines: tuple[Baseline, ...]


def placements_of(solution: Solution) -> tuple[Placement, ...]:
    """The placement of every stage in a solution."""
    return tuple(
        Placement.DEVICE if on_device else Placement.SERVER
        for on_device in solution.on_device.tolist()
    )


def describe(table: CostTable, solution: Solution) -> Costs:
    """The terms, metrics and crossing tensors of a solution."""
    columns = table.columns
    up, down = crossing(columns, solution.on_device)

    sent_up = np.flatnonzero(up).tolist(), solution.up_choice
    sent_down = np.flatnonzero(down).tolist(), solution.down_choice
    return Costs(
        pattern=pattern(columns, solution.on_device),
        round_trips=solution.round_trips,
        switches=switches(table, sent_up, sent_down),
        **figures(solution.terms),
    )


def figures(terms: Ints) -> dict[str, dict[str, int]]:
    """Name the terms and add up the metrics.

    Returns:
        `terms` and `metrics`, the two fields of `Costs` with figures.
    """
    named: dict[str, int] = dict(zip(TERMS, terms.tolist(), strict=True))
    metrics: dict[str, int] = {}
    for name, summed in METRICS.items():
        metrics[name] = sum(named[term] for term in summed)
    return {"terms": named, "metrics": metrics}


def switches(
    table: CostTable, up: tuple[Sequence[int], Ints], down: tuple[Sequence[int], Ints]
) -> tuple[Switch, ...]:
    """Describe the tensors that cross.

    Args:
        table: The cost table.
        up: The indices of the tensors that are sent to the server, and the option of every tensor.
        down: The same for those that are sent to the device.
    """
    return (*_switches(table, *up, Placement.SERVER), *_switches(table, *down, Placement.DEVICE))


def _switches(
    table: CostTable, crossed: Sequence[int], choice: Ints, to: Placement
) -> list[Switch]:
    """Describe the tensors that cross in one direction."""
    columns = table.columns.up if to is Placement.SERVER else table.columns.down
    result: list[Switch] = []
    for index in crossed:
        tensor = table.tensors[index]
        options = tensor.up if to is Placement.SERVER else tensor.down
        option = options[int(choice[index] - columns.ptr[index])]
        result.append(Switch(tensor.name, to, option.codec, option.size_bytes))
    return result


def baselines(table: CostTable, goal: Goal) -> tuple[Baseline, ...]:
    """Price the placements that need no planner.

    They are: device only; server only with the raw input; server only with the input as small as it
    gets. They ignore pins, and `allowed` says so. A baseline for which a tensor would have to cross
    that cannot be sent is left out.
    """
    candidates = (
        _baseline("device only", table, goal, lambda tensor: tensor.up, on_device=True),
        _baseline("server only, raw input", table, goal, _raw, on_device=False),
        _baseline("server only, compressed input", table, goal, _compressed, on_device=False),
    )
    return tuple(baseline for baseline in candidates if baseline is not None)


def _raw(tensor: CostTensor) -> tuple[TransferOption, ...]:
    """The raw option; without one the first option."""
    return tuple(option for option in tensor.up if option.codec == "raw")[:1] or tensor.up[:1]


def _compressed(tensor: CostTensor) -> tuple[TransferOption, ...]:
    """All options but raw, those that change the tensor included; without any the raw one."""
    options = (*tensor.up, *tensor.preview)
    return tuple(option for option in options if option.codec != "raw") or tensor.up


def _baseline(
    name: str,
    table: CostTable,
    goal: Goal,
    input_options: Callable[[CostTensor], tuple[TransferOption, ...]],
    *,
    on_device: bool,
) -> Baseline | None:
    """Price everything on one side; None if a tensor would have to cross that cannot.

    Each graph input is sent in the best of its `input_options`, which need not be in the table.
    """
    # Every tensor is sent in the option that suits the objective.
    columns = table.columns
    weights = metric_terms(dict.fromkeys(goal.metrics, 1))
    placement = np.full(len(table.stages), on_device)
    up_choice, down_choice = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    up, down = crossing(columns, placement)
    if (up_choice[up] < 0).any() or (down_choice[down] < 0).any():
        return None

    solution = evaluate(columns, placement, up_choice, down_choice)
    costs = describe(table, solution)

    # Replace the option of every graph input that is sent.
    sent: list[Switch] = []
    terms = solution.terms
    for index in np.flatnonzero(up).tolist():
        tensor = table.tensors[index]
        options = input_options(tensor)
        priced = upload_terms(table, options)
        best = int(np.argmin(weights @ priced))
        terms = terms + priced[:, best] - columns.up.terms[:, up_choice[index]]
        option = options[best]
        sent.append(Switch(tensor.name, Placement.SERVER, option.codec, option.size_bytes))
    if sent:
        solution = replace(solution, terms=terms)
        back = [switch for switch in costs.switches if switch.to is Placement.DEVICE]
        costs = replace(costs, **figures(terms), switches=(*sent, *back))

    pinned = columns.pinned_server if on_device else columns.pinned_device
    allowed = solution.meets(goal.limits) and not bool(pinned.any())
    return Baseline(name, goal.value(solution), allowed, costs)
