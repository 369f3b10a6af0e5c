"""Outputs that are another in each run: recognised by two runs of the whole model, compared by their statistics.

Of every run and call a few features are taken (how many elements, their mean, deviation and some quantiles). A bundle
agrees when the mean of each over its runs is as near to that of the whole model as chance lets it be: Welch's test, at
a limit that chance hardly ever passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.compilation.differences import compare, leaves
from irsplit.engines.execute import Inputs, SegmentFile, run_bundle, run_whole
from irsplit.engines.isolate import isolated
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions

RUNS = 16
LARGEST_DEVIATION = 10.0
"""Of a feature, in standard errors of the difference of two means of RUNS runs (30 degrees of freedom: 5e-11)."""

_QUANTILES = (0.1, 0.5, 0.9)

Run = Sequence[dict[str, Any]]
"""The outputs of every call."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """How a random output of the bundle compares with that of the whole model over RUNS runs of both.

    `whole` and `bundle` are mean and standard deviation of the elements of all runs; `deviation` is the largest of any
    feature, in standard errors, infinite where type or rank differ.
    """

    runs: int
    whole: tuple[float, float]
    bundle: tuple[float, float]
    deviation: float

    @property
    def agree(self) -> bool:
        return self.deviation <= LARGEST_DEVIATION


def random_outputs(names: Sequence[str], one: Run, other: Run) -> tuple[str, ...]:
    """The outputs in which two runs of the same model on the same calls differ."""
    return tuple(
        name
        for name in names
        if not compare(name, [call[name] for call in one], [call[name] for call in other]).bit_equal
    )


def runs_of_whole(
    file: SegmentFile, calls: Sequence[Inputs], options: EngineOptions, *, stateful: bool
) -> list[Run]:
    """Outputs of RUNS runs of the whole model. An engine goes on drawing numbers from call to call, so that one process
    will do unless state goes on with them."""
    if stateful:
        return [isolated(run_whole, file, calls, options)[0] for _ in range(RUNS)]
    outputs = isolated(run_whole, file, [*calls] * RUNS, options)[0]
    return _parts(outputs, len(calls))


def runs_of_bundle(
    manifest: Manifest, calls: Sequence[Inputs], options: EngineOptions, *, stateful: bool
) -> list[Run]:
    """The same of the bundle."""
    if stateful:
        return [isolated(run_bundle, manifest.folder, calls, options)[0] for _ in range(RUNS)]
    outputs = isolated(run_bundle, manifest.folder, [*calls] * RUNS, options)[0]
    return _parts(outputs, len(calls))


def statistics(
    name: str, whole: Sequence[Run], bundle: Sequence[Run], tolerance: float
) -> Statistics:
    """Of one output; `tolerance` is what its features may differ by beside chance, as a share of its magnitude."""
    with np.errstate(all="ignore"):
        deviation = max(
            _deviation(
                [run[call][name] for run in whole],
                [run[call].get(name) for run in bundle],
                tolerance,
            )
            for call in range(len(whole[0]))
        )
        return Statistics(len(whole), _summary(name, whole), _summary(name, bundle), deviation)


def _deviation(whole: Sequence[Any], bundle: Sequence[Any], tolerance: float) -> float:
    """The largest deviation of any feature of one call's output."""
    if {_kind(value) for value in whole} != {_kind(value) for value in bundle}:
        return float("inf")
    a, b = (
        np.array([_features(_elements(value)) for value in values]) for values in (whole, bundle)
    )
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return float("inf")
    difference = np.abs(a.mean(0) - b.mean(0))
    error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(a))
    magnitude = np.array([np.abs(a[:, 0]).max(), *[np.abs(a[:, 1:]).max()] * (a.shape[1] - 1)])
    beyond = np.maximum(difference - tolerance * magnitude, 0)
    return float(np.where(beyond == 0, 0.0, beyond / error).max())


def _kind(value: Any) -> tuple[tuple[str, int], ...]:
    """Types and ranks of what an output holds."""
    return tuple((leaf.dtype.str, leaf.ndim) for leaf in leaves(value))


def _features(elements: NDArray[np.float64]) -> list[float]:
    """How many elements, mean, standard deviation, quantiles."""
    if not elements.size:
        return [0.0] * (3 + len(_QUANTILES))
    return [
        float(elements.size),
        float(elements.mean()),
        float(elements.std()),
        *np.quantile(elements, _QUANTILES),
    ]


def _elements(value: Any) -> NDArray[np.float64]:
    """All numbers of an output; complex ones by their magnitude, text by nothing."""
    parts = [
        np.abs(leaf) if leaf.dtype.kind == "c" else leaf
        for leaf in leaves(value)
        if leaf.dtype.kind in "biufc"
    ]
    return (
        np.concatenate([part.ravel().astype(np.float64) for part in parts])
        if parts
        else np.zeros(0)
    )


def _summary(name: str, runs: Sequence[Run]) -> tuple[float, float]:
    elements = np.concatenate([_elements(call.get(name)) for run in runs for call in run])
    return (float(elements.mean()), float(elements.std())) if elements.size else (0.0, 0.0)


def _parts(outputs: Sequence[dict[str, Any]], count: int) -> list[Run]:
    return [outputs[at : at + count] for at in range(0, len(outputs), count)]
