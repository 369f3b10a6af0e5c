"""Does a bundle compute what its model computes: the whole against the chain of segments, through real frames."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.progress import Progress, Steps, silent
from irsplit.codec_training.agreement import agreement
from irsplit.compilation import sources
from irsplit.compilation.compiler import whole_model
from irsplit.engines.execute import EXACT, Inputs, SegmentFile, run_bundle, run_whole
from irsplit.engines.isolate import isolated
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions

TOLERANCE = 1e-3
"""Largest error, relative to the largest magnitude of the output, that counts as `close`.

With optimisations on, an engine fuses operators across the cut in the whole model and cannot in the halves; sums are
then rounded in another order. Measured on float models: mostly 1e-6, at most 3e-4 after thousands of summands.
"""

HALF_TOLERANCE = {"f16": 2**-8, "bf16": 2**-5}
"""The same for boundaries of these types, 8 units in the last place: engines compute them in f32 from operator to
operator, even with optimisations off, and round only what crosses."""


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How one output differs over all calls; errors are absolute, `scale` is the output's largest magnitude."""

    name: str
    bit_equal: bool
    max_error: float
    mean_error: float
    scale: float
    agreement: float
    """Share of the rows (along the last axis) with their largest element in the same place."""

    def close(self, tolerance: float = TOLERANCE) -> bool:
        return self.bit_equal or self.max_error <= tolerance * self.scale


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of `verify_bundle`; `holds` is what its exit code says.

    A lossless bundle must be bit-equal with the engine's optimisations off, or close to it where the boundary has a
    half-precision type. A quantized one has no promise but the numbers here: it holds when every output has the right
    shape and type.
    """

    holds: bool
    lossless: bool
    calls: int
    shapes: dict[str, tuple[int, ...]]
    """Of the inputs of the first call, by name."""
    exact: tuple[OutputDifference, ...]
    """Optimisations off, one thread, unless the engine has no such way to run the model."""
    optimized: tuple[OutputDifference, ...]
    """The engine's defaults, as a user runs it."""
    tolerance: float
    """What `exact` may differ by, relative to the largest value; infinite for a quantized boundary."""
    frame_bytes: tuple[int, ...]
    """Bytes of the frame at each boundary, mean over the calls."""

    @property
    def bit_equal(self) -> bool:
        """Whether every output has the bits of the whole model's, with the engine's optimisations off."""
        return all(output.bit_equal for output in self.exact)

    def to_json(self) -> dict[str, Any]:
        """What `irsplit verify --json` prints."""
        tolerance = self.tolerance if self.lossless else None  # JSON has no infinity
        return asdict(self) | {"bit_equal": self.bit_equal, "tolerance": tolerance}


def verify_bundle(
    bundle: Path | str,
    model: Path | str | None = None,
    *,
    calls: Sequence[Inputs] = (),
    fixed: Inputs | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    engine_defaults: bool = True,
    progress: Progress = silent,
) -> Verification:
    """Run the whole model and the bundle on the same inputs, both in processes of their own, and compare.

    `calls` are inputs by name; without any, three seeded ones are made up, but for the inputs in `fixed`, in sizes that
    the engine takes (`dims` gives sizes to dimensions that may vary). A stateful model sees them as a sequence. `model`
    is needed only when the source has moved. Without `engine_defaults` only the run with the engine's optimisations off
    is made.

    Raises BundleError for a bundle that is damaged or whose model is not found, EngineError for inputs that do not fit.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    whole, infos = whole_model(sources.find(manifest, None if model is None else Path(model)))
    kept = tuple(info for segment in manifest.segments for info in segment.state)
    whole, names = replace(whole, state=kept), {info.input for info in kept}
    infos = [info for info in infos if info.name not in names]
    steps = Steps(progress, 4 if engine_defaults else 2)
    if calls:
        exact, frames = _compare(manifest, whole, calls, EXACT, steps)
    else:
        calls, (exact, frames) = first_taken(
            lambda calls: _compare(manifest, whole, calls, EXACT, steps),
            infos,
            3,
            seed=seed,
            dims=dims,
            given=fixed,
        )
    optimized = (
        _compare(manifest, whole, calls, DEFAULT_OPTIONS, steps)[0] if engine_defaults else ()
    )
    specs = [spec for boundary in manifest.boundaries for spec in boundary.tensors]
    lossless = (
        all(spec.quantization is None for spec in specs) and "boundary_ops" not in manifest.raw
    )
    tolerance = (
        max((HALF_TOLERANCE.get(spec.dtype, 0.0) for spec in specs), default=0.0)
        if lossless
        else np.inf
    )
    holds = all(output.close(tolerance) and np.isfinite(output.max_error) for output in exact)
    means = tuple(round(sum(sizes) / len(sizes)) for sizes in zip(*frames, strict=True))
    shapes = {name: np.shape(array) for name, array in calls[0].items()}
    return Verification(holds, lossless, len(calls), shapes, exact, optimized, tolerance, means)


def _compare(
    manifest: Manifest,
    whole: SegmentFile,
    calls: Sequence[Inputs],
    options: EngineOptions,
    steps: Steps,
) -> tuple[tuple[OutputDifference, ...], list[list[int]]]:
    setting = "engine defaults" if options.optimize else "optimisations off"
    steps.begin(f"whole model, {setting}")
    expected, optimized = isolated(run_whole, whole, calls, options)
    options = replace(
        options, optimize=optimized
    )  # halves must not be run more exactly than the whole could be
    steps.begin(f"bundle, {setting}")
    found, frames = isolated(run_bundle, manifest.folder, calls, options)
    names = [info.name for info in manifest.outputs]
    return tuple(
        compare(name, [c[name] for c in expected], [c.get(name) for c in found]) for name in names
    ), frames


def compare(name: str, expected: Sequence[Any], found: Sequence[Any]) -> OutputDifference:
    """How the values of one output over several calls differ from the expected ones.

    A missing value, or one of another type or shape, is infinitely wrong; so is text that differs. NaN where NaN is
    expected is no error.
    """
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(expected, found, strict=True)]
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return OutputDifference(name, False, float("inf"), float("inf"), 0.0, 0.0)
    bit_equal = all(_bits(a) == _bits(b) for a, b in pairs)
    numeric = [(_wide(a), _wide(b)) for a, b in pairs if a.dtype.kind in "biufc" and a.size]
    if not numeric:
        error = 0.0 if bit_equal else float("inf")
        return OutputDifference(name, bit_equal, error, error, 0.0, float(bit_equal))
    errors = [_errors(a, b) for a, b in numeric]
    return OutputDifference(
        name,
        bit_equal,
        max(float(error.max()) for error in errors),
        float(np.mean([error.mean() for error in errors])),
        max(float(np.nan_to_num(np.abs(a)).max()) for a, _ in numeric),
        agreement([a for a, _ in numeric], [b for _, b in numeric]),
    )


def _bits(array: NDArray[Any]) -> Any:
    return array.tolist() if array.dtype.hasobject else array.tobytes()


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _errors(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected - found)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
