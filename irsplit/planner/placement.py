"""The exact cost of a placement, or of every prefix of an order of stages at once.

A placement is a mask over the stages: True is the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irsplit.planner.cost import Columns, CostColumns
from irsplit.planner.terms import TERMS, WORKING, Ints, Mask, metric_rows

_MESSAGE = TERMS.index("message_ns")


@dataclass(frozen=True, slots=True)
class Solution:
    """A placement and its cost.

    Attributes:
        on_device: The placement of every stage.
        up_choice: The option to send each tensor to the server; -1 if it has none.
        down_choice: The option to send each tensor to the device; -1 if it has none.
        terms: The cost, one figure per term.
        round_trips: How often the server is visited.
    """

    on_device: Mask
    up_choice: Ints
    down_choice: Ints
    terms: Ints
    round_trips: int

    def metric(self, name: str) -> int:
        """The value of a metric."""
        return sum(int(self.terms[row]) for row in metric_rows(name))

    def meets(self, limits: Mapping[str, int]) -> bool:
        """Whether every limited metric is at or below its limit."""
        return all(self.metric(name) <= limit for name, limit in limits.items())


def crossing(columns: Columns, on_device: Mask) -> tuple[Mask, Mask]:
    """Find the tensors that cross under a placement.

    Returns:
        Whether each tensor is sent to the server, and whether each is sent to the device.
    """
    # A producer of -1 picks the appended True: graph inputs start on the device.
    made_on_device = np.append(on_device, True)[columns.producer]
    running = np.concatenate([[0], np.cumsum(on_device[columns.consumer])])
    device_readers = running[columns.consumer_ptr[1:]] - running[columns.consumer_ptr[:-1]]
    server_readers = np.diff(columns.consumer_ptr) - device_readers
    up = made_on_device & (server_readers > 0)
    down = ~made_on_device & ((device_readers > 0) | columns.output)
    return up, down


def evaluate(columns: Columns, on_device: Mask, up_choice: Ints, down_choice: Ints) -> Solution:
    """Add up the exact terms of a placement.

    Args:
        columns: The cost table.
        on_device: The placement of every stage.
        up_choice: The option to send each tensor to the server.
        down_choice: The option to send each tensor to the device.

    Returns:
        The solution. A tensor that crosses must have an option.
    """
    up, down = crossing(columns, on_device)
    round_trips = visits(columns, on_device)
    terms = columns.device[:, on_device].sum(axis=1)
    terms += columns.server[:, ~on_device].sum(axis=1)
    terms += columns.up.terms[:, up_choice[up]].sum(axis=1)
    terms += columns.down.terms[:, down_choice[down]].sum(axis=1)
    terms += columns.round_trip * round_trips
    terms[WORKING] = columns.device[WORKING, on_device].max(initial=0)
    return Solution(on_device, up_choice, down_choice, terms, round_trips)


def phases(columns: Columns, on_device: Mask) -> Ints:
    """The phase of every stage in the shortest alternation of device and server that runs them all.

    Phases count from 0; even ones are on the device, odd ones on the server. The phase of a stage
    is the longest path to it, counted in changes of placement.
    """
    phase = np.where(on_device, 0, 1)
    producer, consumer = columns.edges()
    if not (on_device[consumer] & ~on_device[producer]).any():
        return phase

    earliest, device = phase.tolist(), on_device.tolist()
    # Stages are in topological order, so by ascending consumer every producer is final when read.
    order = np.argsort(consumer, kind="stable")
    for made, read in zip(producer[order].tolist(), consumer[order].tolist(), strict=True):
        candidate = earliest[made] + (device[made] != device[read])
        earliest[read] = max(earliest[read], candidate)
    return np.array(earliest, dtype=np.int64)


def visits(columns: Columns, on_device: Mask) -> int:
    """The round trips of a placement: how often the server is entered."""
    return (int(phases(columns, on_device).max()) + 1) // 2


def pattern(columns: Columns, on_device: Mask) -> str:
    """The phases of a placement as text, such as `MCM`: M is the mobile device, C the cloud."""
    present = np.unique(phases(columns, on_device))
    return "".join("MC"[phase % 2] for phase in present.tolist())


@dataclass(frozen=True, slots=True)
class Sweep:
    """The cost of every prefix of an order of stages.

    Attributes:
        order: The stages in the order in which they move to the device.
        base: The placement before the first of them has moved.
        terms: One row per term; column i is the cost with the first i stages of the order moved.
    """

    order: Ints
    base: Mask
    terms: Ints

    def metric(self, name: str) -> Ints:
        """The value of a metric at every step."""
        return self.terms[metric_rows(name)].sum(axis=0)

    def placement(self, index: int) -> Mask:
        """The placement with the first `index` stages of the order moved."""
        on_device = self.base.copy()
        on_device[self.order[:index]] = True
        return on_device


def sweep(columns: Columns, base: Mask, order: Ints, up_choice: Ints, down_choice: Ints) -> Sweep:
    """Price all placements that arise when the stages of `order` move to the device one by one.

    Every cost is paid during one interval of steps: a stage's device cost from the step at which it
    has moved, its server cost until then; an upload from the step at which the producer has moved
    until its last reader has, a download from the first reader until the producer. Each interval
    adds its cost at its start and subtracts it at its end, and a running sum over the steps gives
    all placements in one pass.

    Args:
        columns: The cost table.
        base: The placement at step 0.
        order: Stages that are on the server in `base`, in the order in which they move.
        up_choice: The option to send each tensor to the server; -1 if it cannot be sent.
        down_choice: The option to send each tensor to the device; -1 if it cannot be sent.

    Returns:
        The costs of all steps. Round trips count as one as long as any stage is on the server,
        which is exact if all placements are monotone. `stuck_steps` tells the steps at which a
        tensor would cross that cannot be sent.
    """
    steps = order.size + 1
    # The first step at which each stage is on the device; `steps` means never.
    moved = np.where(base, 0, steps)
    moved[order] = np.arange(1, steps)
    made = np.append(moved, 0)[columns.producer]
    first, last = _segment_extremes(moved[columns.consumer], columns.consumer_ptr, steps)

    deltas = np.zeros((len(TERMS), steps + 1), dtype=np.int64)
    _spread(deltas, columns.device, moved, np.full(moved.size, steps))
    _spread(deltas, columns.server, np.zeros_like(moved), moved)

    stuck = np.zeros((1, steps + 1), dtype=np.int64)
    _spread_options(deltas, stuck, columns.up, up_choice, made, last)
    wanted_from = np.where(columns.output, 0, first)
    wanted_until = np.where(columns.producer < 0, 0, made)
    _spread_options(deltas, stuck, columns.down, down_choice, wanted_from, wanted_until)
    terms = np.cumsum(deltas, axis=1)[:, :steps]

    # The working set is the largest of the stages that have moved.
    working = np.zeros(steps + 1, dtype=np.int64)
    np.maximum.at(working, moved, columns.device[WORKING])
    terms[WORKING] = np.maximum.accumulate(working[:steps])

    server_used = np.arange(steps) < moved.max()
    terms += columns.round_trip[:, None] * server_used
    terms[_MESSAGE][np.cumsum(stuck, axis=1)[0, :steps] > 0] = -1  # the mark of stuck_steps
    return Sweep(order, base, terms)


def _segment_extremes(values: Ints, ptr: Ints, steps: int) -> tuple[Ints, Ints]:
    """The smallest and the largest value of each segment; (steps, 0) for an empty one."""
    count = len(ptr) - 1
    first, last = np.full(count, steps, dtype=np.int64), np.zeros(count, dtype=np.int64)
    filled = np.flatnonzero(ptr[:-1] < ptr[1:])
    if filled.size:
        first[filled] = np.minimum.reduceat(values, ptr[:-1][filled])
        last[filled] = np.maximum.reduceat(values, ptr[:-1][filled])
    return first, last


def _spread(deltas: Ints, costs: Ints, start: Ints, stop: Ints) -> None:
    """Add each column of `costs` to the steps start <= step < stop, as differences."""
    paid = start < stop
    width = deltas.shape[1]
    for row, cost in zip(deltas, costs[:, paid], strict=True):
        if cost.any():
            np.add.at(row, np.minimum(start[paid], width - 1), cost)
            np.subtract.at(row, np.minimum(stop[paid], width - 1), cost)


def _spread_options(
    deltas: Ints, stuck: Ints, options: CostColumns, choice: Ints, start: Ints, stop: Ints
) -> None:
    """Add what crossing costs, and count the tensors that would cross and cannot in `stuck`."""
    possible = choice >= 0
    _spread(deltas, options.terms[:, choice[possible]], start[possible], stop[possible])
    ones = np.ones((1, int((~possible).sum())), dtype=np.int64)
    _spread(stuck, ones, start[~possible], stop[~possible])


def stuck_steps(swept: Sweep) -> Mask:
    """The steps of a sweep at which a tensor would cross that cannot be sent."""
    return swept.terms[_MESSAGE] < 0
