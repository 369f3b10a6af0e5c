"""Does a bundle compute what its model computes: the whole against the chain of segments, through real frames."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base.errors import EngineError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.codec_training.agreement.base import Agreement, OutputHead, measured
from irsplit.codec_training.agreement.measures import heads_of, measure_file
from irsplit.codec_training.agreement.reach import reached_outputs
from irsplit.codec_training.agreement.recognise import RoleOf, View
from irsplit.compilation import sources
from irsplit.compilation.differences import TOLERANCE, OutputDifference, compare
from irsplit.compilation.input_words import Sizes, input_sizes
from irsplit.compilation.randomness import (
    Run,
    Statistics,
    random_outputs,
    runs_of_bundle,
    runs_of_whole,
    statistics,
)
from irsplit.compilation.samples import SampleSource, load_samples
from irsplit.dialects.registry import dialect_of
from irsplit.dialects.tflite.check import check_files
from irsplit.engines.execute import EXACT, Inputs, SegmentFile, run_bundle, run_whole
from irsplit.engines.inputs import tensor_info
from irsplit.engines.isolate import isolated
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.ir import HeadRole, Model, Node, required_inputs, walk
from irsplit.passes.base import channel_layout
from irsplit.passes.preparation import head_roles
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions

HALF_TOLERANCE = {"f16": 2**-8, "bf16": 2**-5}
"""What `exact` may differ by for boundaries of these types, 8 units in the last place: engines compute them in f32 from
operator to operator, even with optimisations off, and round only what crosses."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a bundle must keep beside its promise; None asks for nothing."""

    min_agreement: float | None = None
    """Of the worst head that the boundary reaches, a share."""
    max_error: float | None = None
    """Of any element of any output, absolute."""
    min_snr: float | None = None
    """Of every output, in dB."""

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise EngineError(f"a least agreement of {self.min_agreement} is no share; give 0 to 1")
        if self.max_error is not None and not self.max_error >= 0:
            raise EngineError(f"a largest error of {self.max_error} is none; give 0 or more")
        if self.min_snr is not None and np.isnan(self.min_snr):
            raise EngineError("a least signal to noise ratio that is no number; give decibels")

    def unmet(self, outputs: Sequence[OutputDifference], agreement: Agreement) -> list[str]:
        """What is not kept, as text."""
        reasons: list[str] = []
        asked = (
            self.min_agreement is not None or self.max_error is not None or self.min_snr is not None
        )
        if asked and not outputs:
            return ["every output is random, and no requirement can be measured"]
        if self.min_agreement is not None and agreement.worst is None:
            reasons.append("no output has anything of which an agreement could be measured")
        elif self.min_agreement is not None and agreement.share < self.min_agreement:
            reasons.append(
                f"agreement {agreement.worst}, and at least {self.min_agreement:g} is asked for"
            )
        for output in outputs:
            if self.max_error is not None and not output.max_error <= self.max_error:
                text = f"an error of {output.max_error:.4g}, and at most {self.max_error:g} is asked for"
                reasons.append(f"%{output.name} has {text}")
            if self.min_snr is not None and not output.snr_db >= self.min_snr:
                text = f"{output.snr_db:.1f} dB, and at least {self.min_snr:g} dB are asked for"
                reasons.append(f"%{output.name} has {text}")
        return reasons


@dataclass(frozen=True, slots=True)
class RandomOutput:
    """An output in which two runs of the whole model differ."""

    name: str
    whole_difference: OutputDifference
    """Between two runs of the whole model."""
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of `verify`; `holds` is what its exit code says.

    A lossless bundle must be bit-equal with the engine's optimisations off, or close to it where the boundary has a
    half-precision type. A quantized one has no promise but the numbers here: it holds when every output has the right
    shape and type. Outputs that are random are compared by statistics instead. Requirements come on top, and something
    must have been compared.
    """

    holds: bool
    failures: tuple[str, ...]
    """Why it does not hold, as text."""
    lossless: bool
    calls: int
    shapes: dict[str, tuple[int, ...]]
    """Of the inputs of the first call, by name."""
    exact: tuple[OutputDifference, ...]
    """Optimisations off, one thread, unless the engine has no such way to run the model; without random outputs."""
    optimized: tuple[OutputDifference, ...]
    """The engine's defaults, as a user runs it."""
    random: tuple[RandomOutput, ...]
    agreement: Agreement
    """Of the outputs that the boundary reaches, with optimisations off."""
    elements: int
    """How many elements of outputs were compared; 0 means that nothing was."""
    tolerance: float
    """What `exact` may differ by, relative to the largest value; infinite for a quantized boundary."""
    frame_bytes: tuple[int, ...]
    """Bytes of the frame at each boundary, mean over the calls."""

    @property
    def bit_equal(self) -> bool:
        """Whether every output has the bits of the whole model's, with the engine's optimisations off; an output that
        is random has none to equal."""
        return not self.random and all(output.bit_equal for output in self.exact)

    def to_json(self) -> dict[str, Any]:
        """What `irsplit verify --json` prints."""
        data = asdict(self) | {"bit_equal": self.bit_equal, "agreement": self.agreement.to_json()}
        return _without_infinities(data)


def _without_infinities(data: Any) -> Any:
    """Null for numbers that JSON does not have."""
    if isinstance(data, Mapping):
        return {key: _without_infinities(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_without_infinities(item) for item in data]
    return None if isinstance(data, float) and not np.isfinite(data) else data


@dataclass(frozen=True, slots=True)
class _Compared:
    """Both runs of some calls in one setting of the engine."""

    expected: Run
    found: Run
    frames: list[list[int]]

    def differences(self, names: Sequence[str]) -> tuple[OutputDifference, ...]:
        return tuple(
            compare(
                name,
                [call[name] for call in self.expected],
                [call.get(name) for call in self.found],
            )
            for name in names
        )


def verify(
    bundle: Path | str,
    model: Path | str | None = None,
    *,
    samples: SampleSource = (),
    inputs: Inputs | None = None,
    seed: int = 0,
    dims: Sizes = (),
    engine_defaults: bool = True,
    agreement_measure: str = "",
    requirements: Requirements = Requirements(),
    allow_nothing: bool = False,
    progress: Progress = silent,
) -> Verification:
    """Compare a bundle with the model that it was compiled from, as `irsplit verify` does.

    Whole model and bundle run on the same inputs, both in processes of their own. Without
    samples, three calls of seeded inputs are made up, in sizes that the engine takes. A model
    with state sees the calls as a sequence.

    Args:
        bundle: The bundle's folder.
        model: The source model; needed only where it is no longer where it was.
        samples: Inputs of several calls: arrays by input name, or files and folders.
        inputs: Arrays of some inputs, the same in every call; the others are made up.
        seed: For inputs that are made up.
        dims: Sizes of open dimensions of inputs that are made up: words as NAME=N, or numbers by
            "<input>.<axis>".
        engine_defaults: Whether to compare with the engine's defaults too, and not only with its
            optimisations off.
        agreement_measure: How outputs are read, as in `irsplit.CompileOptions`; by default as
            the bundle was compiled.
        requirements: What a quantized bundle must keep.
        allow_nothing: Whether the bundle holds when all outputs are empty.
        progress: Called before every run.

    Returns:
        What was compared, and whether the bundle holds.

    Raises:
        BundleError: The bundle is damaged, or its model is not found.
        EngineError: Inputs do not fit.

    Example:
        >>> verify("build/digits").holds
        True
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    check_files(manifest.path(info.file) for info in manifest.segments if info.format == "tflite")
    path = sources.find(manifest, None if model is None else Path(model))
    dialect = dialect_of(path)
    source = dialect.read(path)
    kept = tuple(info for segment in manifest.segments for info in segment.state)
    whole = _whole(source, path, manifest)
    states = {info.input for info in kept}
    infos = [
        info for info in map(tensor_info, required_inputs(source.entry)) if info.name not in states
    ]
    steps = Steps(progress, 4 if engine_defaults else 2)
    calls: Sequence[Inputs] = load_samples(samples, infos, complete=False)
    if calls:
        exact = _run(manifest, whole, calls, EXACT, steps)
    else:
        calls, exact = first_taken(
            lambda calls: _run(manifest, whole, calls, EXACT, steps),
            infos,
            3,
            seed=seed,
            dims=input_sizes(dims, manifest.inputs, manifest),
            given=inputs,
        )
    optimized = _run(manifest, whole, calls, DEFAULT_OPTIONS, steps) if engine_defaults else None

    specs = [spec for boundary in manifest.boundaries for spec in boundary.tensors]
    lossless = (
        all(spec.quantization is None for spec in specs) and "boundary_ops" not in manifest.raw
    )
    tolerance = (
        max((HALF_TOLERANCE.get(spec.dtype, 0.0) for spec in specs), default=0.0)
        if lossless
        else np.inf
    )
    names = [info.name for info in manifest.outputs]
    outputs = exact.differences(names)
    random: tuple[RandomOutput, ...] = ()
    if _may_be_random(source) or not all(output.close(tolerance) for output in outputs):
        random = _random(manifest, whole, calls, exact, max(tolerance, TOLERANCE))
    drawn = {output.name for output in random}
    outputs = tuple(output for output in outputs if output.name not in drawn)
    settled = [name for name in names if name not in drawn]

    role_of = head_roles(dialect) or _no_role
    agreement = _agreement(
        manifest, source, role_of, exact, settled, agreement_measure or _measure_of(manifest)
    )
    elements = sum(output.elements for output in outputs) + sum(
        output.whole_difference.elements for output in random
    )
    failures = [*_broken(outputs, random, tolerance), *requirements.unmet(outputs, agreement)]
    if not elements and not allow_nothing:
        failures.append(
            "nothing could be compared: all outputs are empty; give inputs for which the model finds some"
        )
    means = tuple(round(sum(sizes) / len(sizes)) for sizes in zip(*exact.frames, strict=True))
    shapes = {name: np.shape(array) for name, array in calls[0].items()}
    return Verification(
        not failures,
        tuple(failures),
        lossless,
        len(calls),
        shapes,
        outputs,
        () if optimized is None else optimized.differences(settled),
        random,
        agreement,
        elements,
        tolerance,
        means,
    )


def _whole(source: Model, path: Path, manifest: Manifest) -> SegmentFile:
    """The model file as one segment, with the state that the bundle's segments keep."""
    kept = tuple(info for segment in manifest.segments for info in segment.state)
    inputs = tuple(value.name for value in required_inputs(source.entry))
    outputs = tuple(value.name for value in source.entry.outputs)
    return SegmentFile(path, source.dialect, inputs, outputs, kept)


def _run(
    manifest: Manifest,
    whole: SegmentFile,
    calls: Sequence[Inputs],
    options: EngineOptions,
    steps: Steps,
) -> _Compared:
    setting = "engine defaults" if options.optimize else "optimisations off"
    steps.begin(f"whole model, {setting}")
    expected, optimized = isolated(run_whole, whole, calls, options)
    options = replace(
        options, optimize=optimized
    )  # halves must not be run more exactly than the whole could be
    steps.begin(f"bundle, {setting}")
    return _Compared(expected, *isolated(run_bundle, manifest.folder, calls, options))


def _broken(
    outputs: Sequence[OutputDifference], random: Sequence[RandomOutput], tolerance: float
) -> list[str]:
    """What of a bundle's own promise is not kept, as text."""
    broken = [o for o in outputs if not o.close(tolerance) or not np.isfinite(o.max_error)]
    strange = [o for o in random if not o.statistics.agree and np.isfinite(tolerance)]
    reasons: list[str] = []
    if broken:
        names = ", ".join(f"%{output.name}" for output in broken)
        reasons.append(f"the bundle does not compute what its model computes: {names}")
    if strange:
        names = ", ".join(f"%{output.name}" for output in strange)
        reasons.append(
            f"random outputs of the bundle have other statistics than the model's: {names}"
        )
    return reasons


# -- random outputs ------------------------------------------------------------------------------------------------


def _may_be_random(source: Model) -> bool:
    """Whether nodes of the model are random, or may be."""
    return any(node.random for node in walk(source.entry))


def _random(
    manifest: Manifest,
    whole: SegmentFile,
    calls: Sequence[Inputs],
    exact: _Compared,
    tolerance: float,
) -> tuple[RandomOutput, ...]:
    """The outputs in which a second run of the whole model differs from the first."""
    second, optimized = isolated(run_whole, whole, calls, EXACT)
    names = random_outputs([info.name for info in manifest.outputs], exact.expected, second)
    if not names:
        return ()
    options = replace(EXACT, optimize=optimized)
    stateful = bool(whole.state) or any(segment.stateful for segment in manifest.segments)
    model_runs = runs_of_whole(whole, calls, options, stateful=stateful)
    bundle_runs = runs_of_bundle(manifest, calls, options, stateful=stateful)
    found: list[RandomOutput] = []
    for name in names:
        twice = compare(
            name, [call[name] for call in exact.expected], [call[name] for call in second]
        )
        found.append(
            RandomOutput(name, twice, statistics(name, model_runs, bundle_runs, tolerance))
        )
    return tuple(found)


# -- agreement -----------------------------------------------------------------------------------------------------


def _agreement(
    manifest: Manifest,
    source: Model,
    role_of: RoleOf,
    exact: _Compared,
    names: Sequence[str],
    measure: str,
) -> Agreement:
    """Of the outputs that the boundary reaches, random ones apart."""
    if not names:
        return Agreement(())
    reached = _reached(manifest, source)
    view = View((source.entry,), tuple(names), role_of, channel_layout(source), exact.expected[0])
    heads: list[OutputHead] = [
        head for head in heads_of(measure, view) if not reached.isdisjoint(head.outputs)
    ]
    return measured(heads, exact.expected, exact.found)


def _reached(manifest: Manifest, source: Model) -> set[str]:
    """Names of the outputs that a lossy boundary reaches; of a lossless bundle all."""
    outputs = {info.name for info in manifest.outputs}
    lossy = [
        {spec.name for spec in boundary.tensors if spec.quantization is not None}
        for boundary in manifest.boundaries
    ]
    if "boundary_ops" in manifest.raw:
        lossy = [{spec.name for spec in boundary.tensors} for boundary in manifest.boundaries]
    first = next((index for index, names in enumerate(lossy) if names), None)
    if first is None:
        return outputs
    early = {name for segment in manifest.segments[: first + 1] for name in segment.results}
    changing = set[str]().union(*lossy)
    known = {value.name for value in source.entry.values()}
    if not changing <= known:  # an operator at the boundary gave it a name of its own
        return outputs - early
    return reached_outputs([source.entry], [changing]) - early


def _measure_of(manifest: Manifest) -> str:
    """The measure that the bundle was compiled with; a function in a file runs only when its user names it."""
    asked = manifest.raw.get("agreement", {}).get("asked", "")
    return "" if measure_file(asked) is not None else asked


def _no_role(_: Node) -> HeadRole:
    return ""
