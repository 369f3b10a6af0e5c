"""Recognise outputs that are random, and compare them by their statistics.

An output is random when two runs of the whole model differ in it. From every run and sample a few
features are taken: how many elements there are, their mean, deviation and some quantiles. The
bundle agrees when the mean of each feature over its runs is as near to that of the whole model as
chance lets it be: Welch's test, at a limit that chance hardly ever passes.
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
"""How often the whole model and the bundle run."""

LARGEST_DEVIATION = 10.0
"""The largest deviation of a feature that still agrees, in standard errors of the difference of
two means of RUNS runs; chance passes it with a probability of 5e-11 (30 degrees of freedom)."""

_QUANTILES = (0.1, 0.5, 0.9)

Run = Sequence[dict[str, Any]]
"""The outputs for every sample."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """How a random output of the bundle compares with that of the whole model."""

    runs: int
    """How often each of both ran."""
    whole: tuple[float, float]
    """Mean and standard deviation of the elements of all runs of the whole model."""
    bundle: tuple[float, float]
    """The same of the bundle."""
    deviation: float
    """The largest of any feature, in standard errors; infinite where type or rank differ."""

    @property
    def agree(self) -> bool:
        """Whether the deviation may be chance."""
        return self.deviation <= LARGEST_DEVIATION


def random_outputs(names: Sequence[str], one: Run, other: Run) -> tuple[str, ...]:
    """Return the outputs in which two runs of a model on the same samples differ."""
    different: list[str] = []
    for name in names:
        first = [outputs[name] for outputs in one]
        second = [outputs[name] for outputs in other]
        if not compare(name, first, second).bit_equal:
            different.append(name)
    return tuple(different)


def runs_of_whole(
    file: SegmentFile, samples: Sequence[Inputs], options: EngineOptions, *, stateful: bool
) -> list[Run]:
    """Run the whole model RUNS times.

    Args:
        file: The model.
        samples: The inputs of every run.
        options: How the engine runs.
        stateful: Whether the model keeps state. Each run then has a process of its own; otherwise
            one process does all, since an engine goes on drawing numbers.

    Returns:
        The outputs of every run.
    """
    if stateful:
        return [isolated(run_whole, file, samples, options)[0] for _ in range(RUNS)]
    outputs = isolated(run_whole, file, [*samples] * RUNS, options)[0]
    return _divided(outputs, len(samples))


def runs_of_bundle(
    manifest: Manifest, samples: Sequence[Inputs], options: EngineOptions, *, stateful: bool
) -> list[Run]:
    """Run a bundle RUNS times, as `runs_of_whole` runs its model."""
    if stateful:
        return [isolated(run_bundle, manifest.folder, samples, options)[0] for _ in range(RUNS)]
    outputs = isolated(run_bundle, manifest.folder, [*samples] * RUNS, options)[0]
    return _divided(outputs, len(samples))


def _divided(outputs: Sequence[dict[str, Any]], count: int) -> list[Run]:
    """Divide outputs into runs of `count` samples."""
    return [outputs[at : at + count] for at in range(0, len(outputs), count)]


def statistics(
    name: str, whole: Sequence[Run], bundle: Sequence[Run], tolerance: float
) -> Statistics:
    """Compare the statistics of one output.

    Args:
        name: The output.
        whole: Runs of the whole model.
        bundle: As many runs of the bundle.
        tolerance: What features may differ by beside chance, as a share of their magnitude.

    Returns:
        The statistics of both, and how far they are apart.
    """
    deviations: list[float] = []
    with np.errstate(all="ignore"):
        for index in range(len(whole[0])):
            expected = [run[index][name] for run in whole]
            computed = [run[index].get(name) for run in bundle]
            deviations.append(_deviation(expected, computed, tolerance))
        return Statistics(
            len(whole), _summary(name, whole), _summary(name, bundle), max(deviations)
        )


def _deviation(whole: Sequence[Any], bundle: Sequence[Any], tolerance: float) -> float:
    """Return the largest deviation of any feature of the output for one sample."""
    if {_kind(value) for value in whole} != {_kind(value) for value in bundle}:
        return float("inf")

    # Both are [runs, features].
    a = np.array([_features(_elements(value)) for value in whole])
    b = np.array([_features(_elements(value)) for value in bundle])
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return float("inf")

    # The first feature, a count, has a magnitude of its own.
    magnitude = np.full(a.shape[1], np.abs(a[:, 1:]).max())
    magnitude[0] = np.abs(a[:, 0]).max()

    difference = np.abs(a.mean(0) - b.mean(0))
    error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(a))
    beyond = np.maximum(difference - tolerance * magnitude, 0)
    return float(np.where(beyond == 0, 0.0, beyond / error).max())


def _kind(value: Any) -> tuple[tuple[str, int], ...]:
    """Return the type and rank of every array of an output."""
    return tuple((leaf.dtype.str, leaf.ndim) for leaf in leaves(value))


def _features(elements: NDArray[np.float64]) -> list[float]:
    """Return the number of elements, their mean, standard deviation and quantiles."""
    if not elements.size:
        return [0.0] * (3 + len(_QUANTILES))
    return [
        float(elements.size),
        float(elements.mean()),
        float(elements.std()),
        *np.quantile(elements, _QUANTILES),
    ]


def _elements(value: Any) -> NDArray[np.float64]:
    """Return all numbers of an output, complex ones by their magnitude; text has none."""
    numbers = [np.zeros(0)]
    for leaf in leaves(value):
        if leaf.dtype.kind in "biufc":
            array = np.abs(leaf) if leaf.dtype.kind == "c" else leaf
            numbers.append(array.ravel().astype(np.float64))
    return np.concatenate(numbers)


def _summary(name: str, runs: Sequence[Run]) -> tuple[float, float]:
    """Return mean and standard deviation of the elements of all runs."""
    arrays: list[NDArray[np.float64]] = []
    for run in runs:
        arrays += [_elements(outputs.get(name)) for outputs in run]
    elements = np.concatenate(arrays)
    return (float(elements.mean()), float(elements.std())) if elements.size else (0.0, 0.0)
