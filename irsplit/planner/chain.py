"""Shortest path on a chain: exact for any pattern of places, fixed costs per message and limits, all at once.

The graph of CollabDNN and JointDNN: a state is (groups done, place), an edge runs a block of groups at one place, and
a change of place sends what is read next. With one criterion this is Dijkstra's path; with limits every state keeps
its Pareto-optimal labels. `blocks` replaces the sum of single groups by the measured cost of a block run together, as
all is that runs at a place between two changes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from irsplit.planner.cost import METRICS, TERMS, Columns, CostColumns, Ints
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, evaluate

LONGEST = 400  # groups; beyond it the general network is the better tool
_WORKING = TERMS.index("working_bytes")
DEVICE, SERVER = 0, 1

# Terms of running groups start <= g < stop together at a place (0 device, 1 server), compute only.
BlockCost = Callable[[int, int, int], Ints]
_Ways = tuple[tuple[int, int], ...]  # (tensor, way) of what is sent


@dataclass(frozen=True, slots=True)
class _Label:
    """Terms so far, and how they came about."""

    key: tuple[int, ...]
    terms: Ints
    previous: "_Label | None"
    place: int
    stop: int
    up: _Ways = ()
    down: _Ways = ()


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """The optimum on a chain, its terms as the block costs see them, and the blocks chosen as (place, start, stop)."""

    solution: Solution
    blocks: tuple[tuple[int, int, int], ...]


def is_chain(columns: Columns) -> bool:
    """Whether every group reads from the one before alone, the first from graph inputs, and none is left out."""
    producer = np.repeat(columns.producer, np.diff(columns.consumer_ptr))
    linked = np.unique(columns.consumer[producer >= 0]).size == columns.pinned_device.size - 1
    return bool((columns.consumer == producer + 1).all()) and linked


def shortest_path(
    columns: Columns, goal: Goal, *, monotone: bool = False, blocks: BlockCost | None = None
) -> ChainPlan | None:
    """The exact optimum on a chain, or None when no placement meets the limits."""
    count = columns.pinned_device.size
    table = _Chain(columns, goal, monotone)
    labels: dict[tuple[int, int], list[_Label]] = {
        (0, DEVICE): [_Label((0,), table.zero, None, DEVICE, 0)]
    }
    for start in range(count):
        for place in (DEVICE, SERVER):
            for label in labels.pop((start, place), []):
                for next_place in (DEVICE, SERVER):
                    if monotone and (place, next_place) == (SERVER, DEVICE):
                        continue
                    if blocks and start and place == next_place:
                        continue  # what stays at a place is one block
                    for stop in range(start + 1, count + 1) if blocks else (start + 1,):
                        if not table.allowed(next_place, start, stop):
                            break
                        run = (
                            blocks(next_place, start, stop)
                            if blocks
                            else table.group(next_place, start)
                        )
                        table.extend(labels, label, next_place, start, stop, run)
    final = [*labels.get((count, DEVICE), []), *labels.get((count, SERVER), [])]
    if not final:
        return None
    best = min(final, key=lambda label: table.value(label.terms))
    return _trace(columns, best)


class _Chain:
    """Costs of the edges of the path graph."""

    def __init__(self, columns: Columns, goal: Goal, monotone: bool) -> None:
        self.columns, self.goal, self.monotone = columns, goal, monotone
        self.zero = np.zeros(len(TERMS), dtype=np.int64)
        names = [*goal.metrics, *goal.limits]
        self.metric_rows = [[TERMS.index(term) for term in METRICS[name]] for name in names]
        self.criteria = [[row for row in rows if row != _WORKING] for rows in self.metric_rows]
        self.watch_working = any(_WORKING in rows for rows in self.metric_rows)
        self.ceilings = list(goal.limits.values())
        made: dict[int, list[int]] = {}
        for tensor, producer in enumerate(columns.producer.tolist()):
            made.setdefault(producer, []).append(tensor)
        self.made = made

    def allowed(self, place: int, start: int, stop: int) -> bool:
        pinned = self.columns.pinned_server if place == DEVICE else self.columns.pinned_device
        return not pinned[start:stop].any()

    def group(self, place: int, group: int) -> Ints:
        return (self.columns.device if place == DEVICE else self.columns.server)[:, group]

    def value(self, terms: Ints) -> int:
        return max(int(terms[rows].sum()) for rows in self.metric_rows[: len(self.goal.metrics)])

    def key(self, terms: Ints) -> tuple[int, ...]:
        """What a label is compared by: smaller everywhere is better, whatever follows."""
        criteria = tuple(int(terms[rows].sum()) for rows in self.criteria)
        return (*criteria, int(terms[_WORKING])) if self.watch_working else criteria

    def over(self, terms: Ints) -> bool:
        rows = self.metric_rows[len(self.goal.metrics) :]
        return any(
            int(terms[r].sum()) > limit for r, limit in zip(rows, self.ceilings, strict=True)
        )

    def extend(
        self,
        labels: dict[tuple[int, int], list[_Label]],
        label: _Label,
        place: int,
        start: int,
        stop: int,
        run: Ints,
    ) -> None:
        """Add every label that running a block at a place makes of one label."""
        base = label.terms + run
        base[_WORKING] = max(label.terms[_WORKING], run[_WORKING])
        up: list[int] = []
        down: list[int] = []
        if (label.place, place) == (DEVICE, SERVER):
            base = base + self.columns.round_trip
            up = [t for t in self.made.get(start - 1, []) if self._read(t)]
        if (label.place, place) == (SERVER, DEVICE):
            down = [
                t
                for t in self.made.get(start - 1, [])
                if self._read(t) and not self.columns.output[t]
            ]
        if place == SERVER:
            down += [
                t
                for group in range(start, stop)
                for t in self.made.get(group, [])
                if self.columns.output[t]
            ]
        bucket = labels.setdefault((stop, place), [])
        for ups in product(*(_ways(self.columns.up, t) for t in up)):
            for downs in product(*(_ways(self.columns.down, t) for t in down)):
                terms = base + sum((self.columns.up.terms[:, way] for _, way in ups), self.zero)
                terms = terms + sum(
                    (self.columns.down.terms[:, way] for _, way in downs), self.zero
                )
                if not self.over(terms):
                    _keep(bucket, _Label(self.key(terms), terms, label, place, stop, ups, downs))

    def _read(self, tensor: int) -> bool:
        return bool(self.columns.consumer_ptr[tensor + 1] > self.columns.consumer_ptr[tensor])


def _ways(ways: CostColumns, tensor: int) -> list[tuple[int, int]]:
    return [(tensor, way) for way in range(int(ways.ptr[tensor]), int(ways.ptr[tensor + 1]))]


def _keep(bucket: list[_Label], label: _Label) -> None:
    """Keep a label unless another is at least as good everywhere; drop those it beats."""
    if any(all(a <= b for a, b in zip(other.key, label.key, strict=True)) for other in bucket):
        return
    bucket[:] = [
        o for o in bucket if not all(a <= b for a, b in zip(label.key, o.key, strict=True))
    ]
    bucket.append(label)


def _trace(columns: Columns, last: _Label) -> ChainPlan:
    count = columns.producer.size
    up_choice, down_choice = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    on_device = np.zeros(columns.pinned_device.size, dtype=np.bool_)
    blocks: list[tuple[int, int, int]] = []
    label = last
    while label.previous is not None:
        start = label.previous.stop
        blocks.append((label.place, start, label.stop))
        on_device[start : label.stop] = label.place == DEVICE
        for choice, ways in ((up_choice, label.up), (down_choice, label.down)):
            for tensor, way in ways:
                choice[tensor] = way
        label = label.previous
    counted = evaluate(columns, on_device, up_choice, down_choice)
    solution = Solution(on_device, up_choice, down_choice, last.terms, counted.round_trips)
    return ChainPlan(solution, tuple(reversed(blocks)))
