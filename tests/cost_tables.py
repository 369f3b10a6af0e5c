"""What the planner tests share: random tables small enough to try every placement."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from hypothesis import strategies as st

from irsplit.planner.cost import CostTable, CostTensor, Placement, StageCost, TransferOption
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, crossing, evaluate
from irsplit.profiles.model import NO_MESSAGE, Link, Message

LINK = Link(
    "test", up_bit_s=8_000_000_000, down_bit_s=8_000_000_000, up_uw=2_000_000, down_uw=1_000_000
)
MESSAGES = st.sampled_from(
    [NO_MESSAGE, NO_MESSAGE, Message(device_ns=3, exchange_ns=5, up_bytes=2, down_bytes=1)]
)


def ways(most: int = 2) -> st.SearchStrategy[tuple[TransferOption, ...]]:
    coded = st.builds(
        TransferOption, st.just("raw"), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5)
    )
    return st.lists(coded, min_size=0, max_size=most).map(tuple)


def groups(pins: bool) -> st.SearchStrategy[StageCost]:
    return st.builds(
        StageCost,
        name=st.just("g"),
        device_ns=st.integers(0, 60),
        server_ns=st.integers(0, 30),
        device_nj=st.integers(0, 40),
        weight_bytes=st.integers(0, 40),
        working_bytes=st.integers(0, 20),
        pin=st.sampled_from([None] * 8 + [Placement.DEVICE, Placement.SERVER])
        if pins
        else st.none(),
    )


def links() -> st.SearchStrategy[Link]:
    return st.builds(
        Link,
        name=st.just("test"),
        up_bit_s=st.sampled_from([2_000_000_000, 8_000_000_000]),
        down_bit_s=st.just(8_000_000_000),
        rtt_ns=st.sampled_from([0, 0, 9]),
        up_uw=st.just(2_000_000),
        down_uw=st.just(1_000_000),
        tail_nj=st.sampled_from([0, 7]),
    )


@st.composite
def dags(draw: st.DrawFn, most: int = 6) -> CostTable:
    """Any DAG: forks, joins, many inputs and outputs, unread values, pins, what cannot cross."""
    count = draw(st.integers(1, most))
    every = range(count)
    tensors = [
        CostTensor(
            f"x{i}",
            None,
            tuple(sorted(draw(st.sets(st.sampled_from(every), max_size=2)))),
            draw(ways()),
            (),
        )
        for i in range(draw(st.integers(0, 2)))
    ]
    for producer in every:
        later = list(range(producer + 1, count))
        readers = draw(st.sets(st.sampled_from(later), max_size=3)) if later else set[int]()
        output = not readers or draw(st.booleans())
        tensors.append(
            CostTensor(
                f"t{producer}", producer, tuple(sorted(readers)), draw(ways()), draw(ways()), output
            )
        )
    drawn = tuple(draw(groups(pins=True)) for _ in every)
    return CostTable(
        "dag",
        drawn,
        tuple(tensors),
        draw(links()),
        active_uw=1_000_000,
        idle_uw=draw(st.sampled_from([0, 500_000])),
        message=draw(MESSAGES),
    )


@st.composite
def chains(draw: st.DrawFn, most: int = 7) -> CostTable:
    """Every value is read by the next group alone."""
    count = draw(st.integers(1, most))
    tensors = [CostTensor("x", None, (0,), draw(ways()), ())]
    for producer in range(count):
        last = producer + 1 == count
        readers = () if last else (producer + 1,)
        tensors.append(
            CostTensor(
                f"t{producer}",
                producer,
                readers,
                draw(ways()),
                draw(ways()),
                output=last or draw(st.booleans()),
            )
        )
    drawn = tuple(draw(groups(pins=True)) for _ in range(count))
    return CostTable(
        "chain", drawn, tuple(tensors), draw(links()), active_uw=1_000_000, message=draw(MESSAGES)
    )


def is_monotone(table: CostTable, on_device: Sequence[bool]) -> bool:
    return not any(
        on_device[reader] and not on_device[tensor.producer]
        for tensor in table.tensors
        if tensor.producer is not None
        for reader in tensor.consumers
    )


def every_solution(table: CostTable, *, monotone: bool) -> Iterator[Solution]:
    """Every placement that the pins allow, with every way to send what crosses."""
    for places in product((True, False), repeat=len(table.stages)):
        pinned = zip(table.stages, places, strict=True)
        if any(
            group.pin is not None and (group.pin is Placement.DEVICE) != here
            for group, here in pinned
        ):
            continue
        if monotone and not is_monotone(table, places):
            continue
        yield from _every_way(table, np.array(places))


def _every_way(table: CostTable, on_device: np.ndarray) -> Iterator[Solution]:
    columns = table.columns
    up, down = crossing(columns, on_device)
    options = [
        range(int(ways.ptr[t]), int(ways.ptr[t + 1])) if crossed[t] else (-1,)
        for ways, crossed in ((columns.up, up), (columns.down, down))
        for t in range(len(table.tensors))
    ]
    for chosen in product(*options):
        half = len(table.tensors)
        yield evaluate(
            columns, on_device, np.array(chosen[:half], np.int64), np.array(chosen[half:], np.int64)
        )


def brute_force(table: CostTable, goal: Goal, *, monotone: bool) -> int | None:
    """Least value of all solutions within the limits; None if there is none."""
    values = [
        goal.value(s) for s in every_solution(table, monotone=monotone) if s.meets(goal.limits)
    ]
    return min(values, default=None)
