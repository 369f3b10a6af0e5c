"""How long planning takes, from a cost table to a plan with baselines.

    python -m benchmarks.bench_planner [--json]

Three kinds of graph: a chain with short skips, a hundred parallel chains, and one whose operators
each suit another place. Medians; every plan is checked: without limits its gap must be 0.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.tables import markdown
from irsplit.planner import plan
from irsplit.planner.cost import CostTable, CostTensor, StageCost, TransferOption
from irsplit.profiles import Link

FAMILIES = ("skips", "parallel", "mixed")
SIZES = (1_000, 10_000, 50_000)
LIMITED = 10_000
PARALLEL = 100


def table(count: int, family: str, seed: int = 0) -> CostTable:
    """A seeded graph of `count` groups; sizes of tensors fall with depth, as in a network."""
    rng = np.random.default_rng(seed)
    device = rng.integers(1_000, 1_000_000, count)
    server = (
        (device * rng.uniform(0.05, 3.0, count)).astype(np.int64)
        if family == "mixed"
        else device // 10
    )
    consumers = _parallel(count) if family == "parallel" else _skips(count, rng)
    depth = (
        np.arange(count) // PARALLEL * PARALLEL / count
        if family == "parallel"
        else np.arange(count) / count
    )
    sizes = (rng.lognormal(11, 1.0, count) * np.exp(-4 * depth)).astype(np.int64) // (
        50 if family == "mixed" else 1
    )
    weights = rng.integers(1, 10_000, count)
    groups = tuple(
        StageCost(f"g{i}", int(device[i]), int(server[i]), 2 * int(device[i]), int(weights[i]))
        for i in range(count)
    )
    inputs = PARALLEL if family == "parallel" else 1
    tensors = [
        CostTensor(f"x{i}", None, (i,), (TransferOption("raw", 1_500_000 // inputs),), ())
        for i in range(inputs)
    ]
    for index, readers in enumerate(consumers):
        ways = (TransferOption("raw", int(sizes[index])),)
        tensors.append(
            CostTensor(f"t{index}", index, tuple(readers), ways, ways, output=index == count - 1)
        )
    rate = 1_000_000_000 if family == "mixed" else 100_000_000
    return CostTable(
        family,
        groups,
        tuple(tensors),
        Link("bench", rate, 2 * rate, up_uw=2_000_000, down_uw=1_000_000),
    )


def _skips(count: int, rng: np.random.Generator) -> list[list[int]]:
    consumers: list[list[int]] = [[] for _ in range(count)]
    for group in range(1, count):
        consumers[group - 1].append(group)
        start = max(0, group - 1 - int(rng.integers(1, 8)))
        if rng.random() < 0.3 and group not in consumers[start]:
            consumers[start].append(group)
    return consumers


def _parallel(count: int) -> list[list[int]]:
    return [[min(group + PARALLEL, count - 1)] for group in range(count - 1)] + [[]]


def measure(repeats: int) -> list[dict[str, object]]:
    """Rows of the result; tables are made anew for every run, so that nothing is cached."""
    rows: list[dict[str, object]] = []
    for count in SIZES:
        for family in FAMILIES:
            for monotone in (True, False):
                made = table(count, family)
                free = plan(made, monotone=monotone)
                assert free.gap == 0
                cases: list[Mapping[str, int]] = [{}]
                if count == LIMITED:
                    cases += [
                        {name: free.costs.metrics[name] * 7 // 10}
                        for name in ("memory", "bytes", "server")
                    ]
                for limits in cases:
                    seconds, gap = _timed(made, limits, monotone, repeats)
                    mode = "device first" if monotone else "any pattern"
                    rows.append(
                        {
                            "groups": count,
                            "graph": family,
                            "mode": mode,
                            "limits": limits,
                            "s": seconds,
                            "gap": gap,
                        }
                    )
    return rows


def _timed(
    made: CostTable, limits: Mapping[str, int], monotone: bool, repeats: int
) -> tuple[float, float]:
    seconds: list[float] = []
    gap = 0.0
    for _ in range(repeats):
        fresh = replace(made)
        start = time.perf_counter()
        gap = plan(fresh, limits=limits, monotone=monotone).gap
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rows = measure(arguments.repeats)
    if arguments.json:
        print(
            json.dumps(
                {"machine": platform.platform(), "repeats": arguments.repeats, "rows": rows},
                indent=1,
            )
        )
        return
    print(f"{platform.platform()}, median of {arguments.repeats}")
    cells = [[str(row[key]) for key in ("groups", "graph", "mode", "limits")] for row in rows]
    for row, line in zip(rows, cells, strict=True):
        line += [f"{row['s']:.3f}", f"{row['gap']:.1e}"]
    print(markdown(["groups", "graph", "mode", "limits", "seconds", "gap"], cells))


if __name__ == "__main__":
    main()
