"""What is asked of a plan: an objective, limits on metrics, and what the answer is worth."""

from collections.abc import Mapping
from dataclasses import dataclass

from irsplit.base.errors import PlanError
from irsplit.planner.cost import METRICS, STAGES, UNITS, unit
from irsplit.planner.placement import Solution

# `throughput` is the period of the pipeline: the time of its slowest stage.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    **{metric: (metric,) for metric in METRICS},
    "throughput": STAGES,
}


@dataclass(frozen=True)
class Goal:
    """Least value of the largest of `metrics`, with every metric in `limits` at or below its limit."""

    objective: str
    limits: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise PlanError(
                f"unknown objective {self.objective!r}; known objectives: {', '.join(OBJECTIVES)}"
            )
        for name, limit in self.limits.items():
            if name not in METRICS:
                raise PlanError(
                    f"unknown limit {name!r}; limits can be set on: {', '.join(METRICS)}"
                )
            if limit < 0:
                raise PlanError(
                    f"limit {name}={limit} is negative; give a size, time or energy of at least 0"
                )

    @property
    def metrics(self) -> tuple[str, ...]:
        return OBJECTIVES[self.objective]

    @property
    def unit(self) -> str:
        return "ns" if self.objective == "throughput" else unit(self.objective)

    def limits_text(self) -> str:
        return ", ".join(f"{name}={human(name, limit)}" for name, limit in self.limits.items())

    def value(self, solution: Solution) -> int:
        return max(solution.metric(name) for name in self.metrics)


def human(metric: str, value: int) -> str:
    """A figure with its unit, for people: 64.0 MB, 12.3 ms, 1.5 J."""
    steps = {
        "ns": ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns")),
        "nJ": ((10**9, "J"), (10**6, "mJ"), (10**3, "uJ"), (1, "nJ")),
        "bytes": ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B")),
    }[UNITS.get(metric, "ns")]
    size, name = next((step for step in steps if value >= step[0]), steps[-1])
    return f"{value / size:.3g} {name}" if size > 1 else f"{value} {name}"
