"""What a placement costs: exact integer terms for one placement, or for every prefix of an order at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irsplit.planner.cost import METRICS, TERMS, Columns, CostColumns, Ints, Mask

_WORKING = TERMS.index("working_bytes")


@dataclass(frozen=True, slots=True)
class Solution:
    """A placement (True: device), the way chosen for every tensor in each direction, and its terms."""

    on_device: Mask
    up_choice: Ints
    down_choice: Ints
    terms: Ints
    round_trips: int

    def metric(self, name: str) -> int:
        return sum(int(self.terms[TERMS.index(term)]) for term in METRICS[name])

    def meets(self, limits: Mapping[str, int]) -> bool:
        return all(self.metric(name) <= limit for name, limit in limits.items())


def crossing(columns: Columns, on_device: Mask) -> tuple[Mask, Mask]:
    """Which tensors are uploaded and which are downloaded under a placement."""
    made_here = np.append(on_device, True)[
        columns.producer
    ]  # -1 picks the appended True: inputs start on the device
    devices = np.concatenate([[0], np.cumsum(on_device[columns.consumer])])
    here = devices[columns.consumer_ptr[1:]] - devices[columns.consumer_ptr[:-1]]
    there = np.diff(columns.consumer_ptr) - here
    return made_here & (there > 0), ~made_here & ((here > 0) | columns.output)


def evaluate(columns: Columns, on_device: Mask, up_choice: Ints, down_choice: Ints) -> Solution:
    """Exact terms of a placement. A tensor that cannot cross must not be made to."""
    up, down = crossing(columns, on_device)
    round_trips = visits(columns, on_device)
    terms = columns.device[:, on_device].sum(axis=1)
    terms += columns.server[:, ~on_device].sum(axis=1)
    terms += columns.up.terms[:, up_choice[up]].sum(axis=1)
    terms += columns.down.terms[:, down_choice[down]].sum(axis=1)
    terms += columns.round_trip * round_trips
    terms[_WORKING] = columns.device[_WORKING, on_device].max(initial=0)
    return Solution(on_device, up_choice, down_choice, terms, round_trips)


def stages(columns: Columns, on_device: Mask) -> NDArray[np.int64]:
    """Step of every group in the shortest alternation of places that runs it: even on the device, odd on the server."""
    stage = np.where(on_device, 0, 1)
    producer = np.repeat(columns.producer, np.diff(columns.consumer_ptr))
    inner = producer >= 0
    producer, consumer = producer[inner], columns.consumer[inner]
    if not (on_device[consumer] & ~on_device[producer]).any():
        return stage
    earliest = stage.tolist()
    here = on_device.tolist()
    order = np.argsort(
        consumer, kind="stable"
    )  # groups are sorted, so producers are final before they are read
    for made, read in zip(producer[order].tolist(), consumer[order].tolist(), strict=True):
        step = earliest[made] + (here[made] != here[read])
        if step > earliest[read]:
            earliest[read] = step
    return np.array(earliest, dtype=np.int64)


def visits(columns: Columns, on_device: Mask) -> int:
    """Round trips of a placement: how often the server is entered."""
    return (int(stages(columns, on_device).max()) + 1) // 2


def pattern(columns: Columns, on_device: Mask) -> str:
    """`M`, `C`, `MC`, `MCM`, ...: the places in turn, M the mobile device, C the cloud."""
    present = np.unique(stages(columns, on_device))
    return "".join("MC"[stage % 2] for stage in present.tolist())


@dataclass(frozen=True, slots=True)
class Sweep:
    """Terms of every prefix of an order: column i has the first i groups of the order moved to the device."""

    order: Ints
    base: Mask
    terms: Ints

    def metric(self, name: str) -> Ints:
        return self.terms[[TERMS.index(term) for term in METRICS[name]]].sum(axis=0)

    def placement(self, index: int) -> Mask:
        on_device = self.base.copy()
        on_device[self.order[:index]] = True
        return on_device


def sweep(columns: Columns, base: Mask, order: Ints, up_choice: Ints, down_choice: Ints) -> Sweep:
    """Move the groups of `order` to the device one by one, starting from `base`; every step in one pass.

    Round trips are counted as one as long as anything is on the server: exact when all placements are monotone.
    A step at which a tensor crosses that cannot is marked by a term of -1 in `message_ns`.
    """
    steps = order.size + 1
    position = np.where(
        base, 0, steps
    )  # first step at which a group is on the device; `steps`: never
    position[order] = np.arange(1, steps)
    made = np.append(position, 0)[columns.producer]
    first, last = _segment_extremes(position[columns.consumer], columns.consumer_ptr, steps)
    deltas = np.zeros((len(TERMS), steps + 1), dtype=np.int64)
    _spread(deltas, columns.device, position, np.full(position.size, steps))
    _spread(deltas, columns.server, np.zeros_like(position), position)
    stuck = np.zeros((1, steps + 1), dtype=np.int64)
    for ways, choice, start, stop in (
        (columns.up, up_choice, made, last),  # producer here, some reader still there
        (
            columns.down,
            down_choice,
            np.where(columns.output, 0, first),
            np.where(columns.producer < 0, 0, made),
        ),
    ):
        _cross(deltas, stuck, ways, choice, start, stop)
    terms = np.cumsum(deltas, axis=1)[:, :steps]
    working = np.zeros(steps + 1, dtype=np.int64)
    np.maximum.at(working, position, columns.device[_WORKING])
    terms[_WORKING] = np.maximum.accumulate(working[:steps])
    anything = np.arange(steps) < position.max()
    terms += columns.round_trip[:, None] * anything
    terms[TERMS.index("message_ns")][np.cumsum(stuck, axis=1)[0, :steps] > 0] = -1
    return Sweep(order, base, terms)


def _segment_extremes(values: Ints, ptr: Ints, steps: int) -> tuple[Ints, Ints]:
    """Smallest and largest value of each segment; (steps, 0) for an empty one: nobody waits for it."""
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


def _cross(
    deltas: Ints, stuck: Ints, ways: CostColumns, choice: Ints, start: Ints, stop: Ints
) -> None:
    possible = choice >= 0
    _spread(deltas, ways.terms[:, choice[possible]], start[possible], stop[possible])
    _spread(
        stuck,
        np.ones((1, int((~possible).sum())), dtype=np.int64),
        start[~possible],
        stop[~possible],
    )


def stuck_steps(swept: Sweep) -> Mask:
    """Steps at which a tensor would cross that cannot."""
    return swept.terms[TERMS.index("message_ns")] < 0
