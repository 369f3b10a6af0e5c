"""What is asked of a plan: an objective and limits on metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from irsplit.base.errors import PlanError
from irsplit.planner.placement import Solution
from irsplit.planner.terms import METRICS, PIPELINE_STEPS, UNITS, unit

OBJECTIVES: dict[str, tuple[str, ...]] = {
    **{metric: (metric,) for metric in METRICS},
    "throughput": PIPELINE_STEPS,
}
"""The metrics whose largest value an objective minimises. `throughput` is the period of the
pipeline: the time of its slowest step."""

_SCALES = {
    "ns": ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns")),
    "nJ": ((10**9, "J"), (10**6, "mJ"), (10**3, "uJ"), (1, "nJ")),
    "bytes": ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B")),
}


@dataclass(frozen=True)
class Goal:
    """Minimise an objective, with metrics at or below limits.

    Attributes:
        objective: A name of OBJECTIVES.
        limits: The largest allowed value by the name of a metric, in the metric's unit.

    Raises:
        PlanError: The objective or a limit is unknown, or a limit is negative.

    Example:
        >>> Goal("latency", {"memory": 64_000_000}).limits_text()
        'memory=64 MB'
    """

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
        """The metrics whose largest value is minimised."""
        return OBJECTIVES[self.objective]

    @property
    def unit(self) -> str:
        """The unit of the objective."""
        return "ns" if self.objective == "throughput" else unit(self.objective)

    def limits_text(self) -> str:
        """The limits as text for people: `memory=64 MB, latency=20 ms`."""
        return ", ".join(f"{name}={human(name, limit)}" for name, limit in self.limits.items())

    def value(self, solution: Solution) -> int:
        """The objective's value for a placement."""
        return max(solution.metric(name) for name in self.metrics)


def human(metric: str, value: int) -> str:
    """A figure with its unit, for people: `64 MB`, `12.3 ms`, `1.5 J`.

    Args:
        metric: The name of a metric or of an objective.
        value: The figure, in nanoseconds, nanojoules or bytes.
    """
    # An objective without a unit of its own, such as throughput, is a time.
    scales = _SCALES[UNITS.get(metric, "ns")]
    size, name = next((scale for scale in scales if value >= scale[0]), scales[-1])
    return f"{value / size:.3g} {name}" if size > 1 else f"{value} {name}"
