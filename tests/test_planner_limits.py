"""Limits on large tables: early stops, repairs by moves, and bounds that hold all the same."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_tables import LINK, brute_force, dags
from irsplit.base.errors import PlanError
from irsplit.planner import Goal, NotFoundError, plan, solve
from irsplit.planner.cost import Columns, CostTable, CostTensor, StageCost, TransferOption
from irsplit.planner.flow import minimum_cut, topology
from irsplit.planner.placement import Solution, evaluate
from irsplit.planner.repair import exchange, improve, shifted

GOALS = st.sampled_from(
    [("latency", "memory"), ("latency", "server"), ("energy", "bytes"), ("throughput", "memory")]
)


@settings(max_examples=200)
@given(table=dags(), goal=GOALS, limit=st.integers(0, 2000), monotone=st.booleans())
def test_bounds_hold_when_the_search_ends_early(
    table: CostTable, goal: tuple[str, str], limit: int, monotone: bool
):
    """Every table is treated as a large one, for which a small gap is good enough."""
    objective, limited = goal
    best = brute_force(table, Goal(objective, {limited: limit}), monotone=monotone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "_LARGE", 0)
        try:
            found = plan(table, objective, limits={limited: limit}, monotone=monotone)
        except NotFoundError:
            return
        except PlanError:
            assert best is None
            return
    assert best is not None
    assert found.bound <= best <= found.value
    assert found.costs.metrics[limited] <= limit


def test_a_cut_that_stops_early_goes_through_no_wall(monkeypatch: pytest.MonkeyPatch):
    """Nothing that reads the input can be on the server, however cheap it is there."""
    monkeypatch.setattr(solve, "_LARGE", 0)
    raw = (TransferOption("raw", 0),)
    table = CostTable(
        "walled",
        (StageCost("a", 0, 0), StageCost("b", 1, 0)),
        (
            CostTensor("x", None, (0, 1), (), ()),
            CostTensor("y", 0, (), raw, (), output=True),
            CostTensor("z", 1, (), (), raw, output=True),
        ),
        LINK,
    )
    found = plan(table, "throughput", limits={"memory": 0}, monotone=False)
    assert (found.value, [str(place) for place in found.placements]) == (1, ["device", "device"])


@settings(max_examples=100)
@given(
    arcs=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1 << 50)),
        min_size=1,
        max_size=20,
    ),
    precision=st.sampled_from([1, 10, 10**4]),
)
def test_a_cut_that_stops_early_is_near_below(arcs: list[tuple[int, int, int]], precision: int):
    tail, head, capacity = (np.array(column, dtype=np.int64) for column in zip(*arcs, strict=True))
    keep = tail != head
    network = topology(7, 0, 6, tail[keep], head[keep])
    most = int(capacity.sum())
    exact, near = (minimum_cut(network, capacity[keep], most, p) for p in (0, precision))
    assert near.value <= exact.value <= near.value + near.value // precision
    crossing = near.smallest[tail] & ~near.smallest[head]
    assert int(capacity[crossing].sum()) <= near.value + near.value // precision


def knapsack(costs: list[tuple[int, int]]) -> CostTable:
    """Independent groups that read the input: time on both, memory on the device only."""
    groups = tuple(
        StageCost(f"g{i}", time, 1_000, weight_bytes=weight)
        for i, (time, weight) in enumerate(costs)
    )
    tensors = tuple(
        CostTensor(f"x{i}", None, (i,), (TransferOption("raw", 0),), (TransferOption("raw", 0),))
        for i in range(len(costs))
    )
    return CostTable("knapsack", groups, tensors, LINK)


@settings(max_examples=100)
@given(
    costs=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 50)), min_size=2, max_size=8),
    share=st.floats(0.2, 0.8),
    start=st.integers(0, 255),
)
def test_exchange_finds_the_best_selection_of_moves(
    costs: list[tuple[int, int]], share: float, start: int
):
    columns = knapsack(costs).columns
    goal = Goal("latency", {"memory": int(share * sum(weight for _, weight in costs))})

    def solution(on_device: np.ndarray) -> Solution:
        weights = np.zeros(len(columns.device), dtype=np.int64)
        return evaluate(
            columns, on_device, columns.up.fold(weights)[1], columns.down.fold(weights)[1]
        )

    every = [
        solution(np.array(bits, dtype=np.bool_))
        for bits in product([False, True], repeat=len(costs))
    ]
    allowed = [one for one in every if one.meets(goal.limits)]
    best = min(goal.value(one) for one in allowed)
    begin = allowed[start % len(allowed)]
    found = exchange(columns, goal, begin, [every[0], every[-1]], 0, [0.0])
    assert goal.value(found) <= goal.value(begin)
    assert found.meets(goal.limits)
    assert goal.value(found) == best


def test_two_ends_of_a_walk_fit_where_one_does_not():
    """Alternating places: the cheap crossings are behind the second and before the last group."""
    groups = tuple(StageCost(f"g{i}", 100, 10, weight_bytes=1) for i in range(8))
    sizes = (90, 90, 1, 90, 90, 90, 1, 90)
    tensors = [CostTensor("x", None, (0,), (TransferOption("raw", 1),), ())]
    for i, size in enumerate(sizes):
        ways = (TransferOption("raw", size),)
        tensors.append(CostTensor(f"t{i}", i, (i + 1,) if i < 7 else (), ways, ways, output=i == 7))
    table = CostTable("line", groups, tuple(tensors), LINK)
    columns, goal = table.columns, Goal("bytes", {"server": 40})
    weights = np.zeros(len(columns.device), dtype=np.int64)
    ways = columns.up.fold(weights)[1], columns.down.fold(weights)[1]
    all_here, all_there = (evaluate(columns, np.full(8, here), *ways) for here in (True, False))
    one_end = improve(
        columns,
        Goal("bytes", {"server": 40, "energy": 10**9}),
        all_here,
        [all_there],
        monotone=False,
    )
    two_ends = improve(columns, goal, all_here, [all_there], monotone=False)
    assert goal.value(two_ends) <= goal.value(one_end)
    assert two_ends.meets(goal.limits)


def test_the_edge_moves_by_layers():
    groups = tuple(StageCost(f"g{i}", 1, 1) for i in range(5))
    ways = (TransferOption("raw", 1),)
    edges = {0: (1, 2), 1: (3,), 2: (3,), 3: (4,)}
    tensors = [CostTensor("x", None, (0,), ways, ways)]
    tensors += [CostTensor(f"t{i}", i, readers, ways, ways) for i, readers in edges.items()]
    columns = CostTable("diamond", groups, tuple(tensors), LINK).columns
    weights = np.zeros(len(columns.device), dtype=np.int64)
    start = evaluate(
        columns,
        np.array([1, 1, 0, 0, 0], dtype=np.bool_),
        columns.up.fold(weights)[1],
        columns.down.fold(weights)[1],
    )

    def edges_of(pinned: Columns) -> list[str]:
        return [
            "".join("MC"[not here] for here in one.on_device) for one in shifted(pinned, start, 2)
        ]

    assert edges_of(columns) == ["MMMCC", "MMMMC", "MCCCC", "CCCCC"]
    first = np.arange(5) == 0
    assert edges_of(replace(columns, pinned_device=first)) == ["MMMCC", "MMMMC", "MCCCC", "MCCCC"]
    third = np.arange(5) == 2
    assert edges_of(replace(columns, pinned_server=third)) == ["MMCCC", "MMCCC", "MCCCC", "CCCCC"]
