"""Shortest path on a chain: exact for any pattern, fixed costs per message and limits, all at once.

This is the graph of CollabDNN and JointDNN (docs/papers.md). A node of the graph is a state: so
many stages done, and the side that ran the last of them. An edge runs the next block of stages on
one side; where the side changes, the edge also pays for what the block reads from the other side,
and for a round trip when it enters the server.

A label is one way to reach a state, with the terms that it has cost so far. With a single criterion
the best label of a state is all that is needed, as in Dijkstra's algorithm. With limits, or an
objective that is the largest of several metrics, a state keeps every label that no other label of
this state beats in all criteria (Martins 1984). A label that breaks a limit is dropped, which is
safe because terms only grow. The best label of a final state is the optimum.

By default a block is one stage. With `blocks` it is any run of stages on one side, at the measured
cost of running it as one piece; two blocks in a row are then always on different sides.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from irsplit.planner.cost import Columns, CostColumns
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, evaluate
from irsplit.planner.terms import TERMS, WORKING, Ints, metric_rows

LONGEST = 400
"""Stages; for a longer chain the general network is the better tool."""
DEVICE, SERVER = 0, 1

BlockCost = Callable[[int, int, int], Ints]
"""Terms of running the stages start <= i < stop together on a side (DEVICE or SERVER)."""

_Sent = tuple[tuple[int, int], ...]
"""Tensors that are sent, each with its transfer option."""


@dataclass(frozen=True, slots=True)
class _Label:
    """One way to have run the first `stop` stages, the last block of them on `side`.

    `terms` are what it cost, `key` the criteria by which labels are compared; `previous` is the
    label that the last block extended, `up` and `down` what that block had sent.
    """

    key: tuple[int, ...]
    terms: Ints
    previous: "_Label | None"
    side: int
    stop: int
    up: _Sent = ()
    down: _Sent = ()


_Labels = dict[tuple[int, int], list[_Label]]
"""The labels of every state (stages done, side)."""


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """The optimum on a chain.

    Attributes:
        solution: The placement; its terms count blocks as `blocks` prices them.
        blocks: The blocks in order, as (side, start, stop).
    """

    solution: Solution
    blocks: tuple[tuple[int, int, int], ...]


def is_chain(columns: Columns) -> bool:
    """Whether every stage reads from the one before it alone, and the first from graph inputs."""
    _, consumer = columns.edges()
    linked = np.unique(consumer).size == columns.pinned_device.size - 1
    producers = np.repeat(columns.producer, np.diff(columns.consumer_ptr))
    return bool((columns.consumer == producers + 1).all()) and linked


def shortest_path(
    columns: Columns, goal: Goal, *, monotone: bool = False, blocks: BlockCost | None = None
) -> ChainPlan | None:
    """Find the exact optimum on a chain.

    Args:
        columns: A cost table for which `is_chain` holds.
        goal: The objective and the limits.
        monotone: Whether the device comes first and the server after it.
        blocks: The cost of a block; None makes every stage a block of its own.

    Returns:
        The optimum, or None if no placement meets the limits.
    """
    count = columns.pinned_device.size
    search = _Search(columns, goal, monotone, blocks)

    # Labels leave the table when they have been extended: nothing reads a state twice.
    labels: _Labels = {(0, DEVICE): [search.start()]}
    for start in range(count):
        for side in (DEVICE, SERVER):
            for label in labels.pop((start, side), []):
                for next_side, stop in search.edges(side, start):
                    search.extend(labels, label, next_side, stop)

    final = [*labels.get((count, DEVICE), []), *labels.get((count, SERVER), [])]
    if not final:
        return None

    return _trace(columns, min(final, key=lambda label: search.value(label.terms)))


class _Search:
    """The edges of the path graph, what they cost, and how labels are compared."""

    def __init__(
        self, columns: Columns, goal: Goal, monotone: bool, blocks: BlockCost | None
    ) -> None:
        self.columns, self.monotone, self.blocks = columns, monotone, blocks
        self.count = columns.pinned_device.size
        self.objective_rows = [metric_rows(name) for name in goal.metrics]
        self.limits = [(metric_rows(name), limit) for name, limit in goal.limits.items()]

        # The working set is a maximum: it is a criterion of its own, beside sums without it.
        rows = [*self.objective_rows, *(limited for limited, _ in self.limits)]
        self.criteria = [_without_working(metric) for metric in rows]
        self.watches_working = any(WORKING in metric for metric in rows)

        self.made: dict[int, list[int]] = {}
        for tensor, producer in enumerate(columns.producer.tolist()):
            self.made.setdefault(producer, []).append(tensor)

    def start(self) -> _Label:
        """The label before the first stage: the graph inputs are on the device."""
        return _Label((0,), np.zeros(len(TERMS), dtype=np.int64), None, DEVICE, 0)

    def edges(self, side: int, start: int) -> Iterator[tuple[int, int]]:
        """The blocks that may follow a state, as (side, stop)."""
        stops = range(start + 1, self.count + 1) if self.blocks else (start + 1,)
        for next_side in (DEVICE, SERVER):
            # A monotone plan never returns to the device.
            if self.monotone and (side, next_side) == (SERVER, DEVICE):
                continue
            if self.blocks and start and side == next_side:
                continue  # both blocks would be one
            forbidden = (
                self.columns.pinned_server if next_side == DEVICE else self.columns.pinned_device
            )
            for stop in stops:
                if forbidden[start:stop].any():
                    break
                yield next_side, stop

    def value(self, terms: Ints) -> int:
        """The objective's value."""
        return max(int(terms[rows].sum()) for rows in self.objective_rows)

    def _key(self, terms: Ints) -> tuple[int, ...]:
        """The criteria of a label: if all of them are smaller, it is better, whatever follows."""
        criteria = tuple(int(terms[rows].sum()) for rows in self.criteria)
        return (*criteria, int(terms[WORKING])) if self.watches_working else criteria

    def _is_over_a_limit(self, terms: Ints) -> bool:
        return any(int(terms[rows].sum()) > limit for rows, limit in self.limits)

    def extend(self, labels: _Labels, label: _Label, side: int, stop: int) -> None:
        """Add every label that running a block up to `stop` on a side makes of one label."""
        run = self._run(side, label.stop, stop)

        base = label.terms + run
        base[WORKING] = max(label.terms[WORKING], run[WORKING])
        if (label.side, side) == (DEVICE, SERVER):
            base = base + self.columns.round_trip

        up, down = self._crossing(label, side, stop)
        # Every combination of options makes a label; most are dropped as dominated.
        up_options = [_options(self.columns.up, tensor) for tensor in up]
        down_options = [_options(self.columns.down, tensor) for tensor in down]

        bucket = labels.setdefault((stop, side), [])
        for sent_up in product(*up_options):
            for sent_down in product(*down_options):
                terms = base.copy()
                for _, option in sent_up:
                    terms += self.columns.up.terms[:, option]
                for _, option in sent_down:
                    terms += self.columns.down.terms[:, option]

                if not self._is_over_a_limit(terms):
                    key = self._key(terms)
                    _keep(bucket, _Label(key, terms, label, side, stop, sent_up, sent_down))

    def _run(self, side: int, start: int, stop: int) -> Ints:
        """The terms of running a block, without what it reads from the other side."""
        if self.blocks:
            return self.blocks(side, start, stop)
        by_side = self.columns.device if side == DEVICE else self.columns.server
        return by_side[:, start]

    def _crossing(self, label: _Label, side: int, stop: int) -> tuple[list[int], list[int]]:
        """The tensors that a block has sent to the server, and to the device."""
        output = self.columns.output

        # What the previous stage made is on the side of the previous block.
        before = [tensor for tensor in self.made.get(label.stop - 1, []) if self._is_read(tensor)]

        up = before if (label.side, side) == (DEVICE, SERVER) else []
        down: list[int] = []

        if (label.side, side) == (SERVER, DEVICE):
            # An output has been sent already, by the block that made it.
            down = [tensor for tensor in before if not output[tensor]]

        if side == SERVER:
            for stage in range(label.stop, stop):
                down += [tensor for tensor in self.made.get(stage, []) if output[tensor]]
        return up, down

    def _is_read(self, tensor: int) -> bool:
        ptr = self.columns.consumer_ptr
        return bool(ptr[tensor + 1] > ptr[tensor])


def _without_working(rows: list[int]) -> list[int]:
    """The rows of a metric that are sums."""
    return [row for row in rows if row != WORKING]


def _options(columns: CostColumns, tensor: int) -> list[tuple[int, int]]:
    """The options to send a tensor, as (tensor, option)."""
    start, stop = int(columns.ptr[tensor]), int(columns.ptr[tensor + 1])
    return [(tensor, option) for option in range(start, stop)]


def _keep(bucket: list[_Label], label: _Label) -> None:
    """Keep a label unless another is at least as good everywhere; drop those that it beats."""
    if any(_dominates(other, label) for other in bucket):
        return
    bucket[:] = [other for other in bucket if not _dominates(label, other)]
    bucket.append(label)


def _dominates(first: _Label, second: _Label) -> bool:
    """Whether the first label is at least as good as the second one in every criterion."""
    return all(a <= b for a, b in zip(first.key, second.key, strict=True))


def _trace(columns: Columns, last: _Label) -> ChainPlan:
    """Follow a final label back to the start."""
    count = columns.producer.size
    up_choice, down_choice = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    on_device = np.zeros(columns.pinned_device.size, dtype=np.bool_)

    blocks: list[tuple[int, int, int]] = []
    label = last
    while label.previous is not None:
        start = label.previous.stop
        blocks.append((label.side, start, label.stop))
        on_device[start : label.stop] = label.side == DEVICE

        for tensor, option in label.up:
            up_choice[tensor] = option
        for tensor, option in label.down:
            down_choice[tensor] = option

        label = label.previous

    round_trips = evaluate(columns, on_device, up_choice, down_choice).round_trips
    solution = Solution(on_device, up_choice, down_choice, last.terms, round_trips)
    return ChainPlan(solution, tuple(reversed(blocks)))
