"""Planning over a cost table: the exact planner against the papers' own algorithms."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_planner import FAMILIES, table
from benchmarks.suite import Kind, describe
from irsplit.planner import Plan, plan, policies
from irsplit.planner.cost import CostTable

PLANNERS: dict[str, Callable[[CostTable], Any]] = {
    "irsplit": lambda made: plan(made, monotone=True),
    "irsplit, any pattern": lambda made: plan(made, monotone=False),
    "DADS": lambda made: policies.dads(made, "latency"),
}


def _fresh(made: CostTable) -> tuple[tuple[CostTable], dict[str, Any]]:
    """A table of which nothing is cached yet."""
    return (replace(made),), {}


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1_000, 10_000])
def test_free(planner: str, family: str, count: int, benchmark: BenchmarkFixture) -> None:
    kind: Kind = "ours" if planner.startswith("irsplit") else "peer"
    describe(benchmark, f"plan: {count} groups, {family}", planner, kind)
    made = table(count, family)
    best = plan(made, monotone=False)
    assert best.gap == 0
    assert PLANNERS[planner](made).value >= best.value
    benchmark.pedantic(PLANNERS[planner], setup=lambda: _fresh(made), rounds=5)


@pytest.mark.parametrize("metric", ["memory", "bytes", "server"])
@pytest.mark.parametrize("family", FAMILIES)
def test_limited(metric: str, family: str, benchmark: BenchmarkFixture) -> None:
    describe(benchmark, "plan: 10 000 groups under a limit of 70 %", f"{family}, {metric}")
    made = table(10_000, family)
    limits = {metric: plan(made, monotone=False).costs.metrics[metric] * 7 // 10}

    def run(table: CostTable) -> Plan:
        return plan(table, limits=limits, monotone=False)

    found = benchmark.pedantic(run, setup=lambda: _fresh(made), rounds=3)
    assert found.costs.metrics[metric] <= limits[metric]
