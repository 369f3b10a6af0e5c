"""Check that a bundle computes what its model computes.

The whole model and the chain of segments run on the same samples, the latter through real frames,
and their outputs are compared.
"""

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
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions
from irsplit.runtime.run.state import StateInfo

HALF_TOLERANCE = {"f16": 2**-8, "bf16": 2**-5}
"""What `exact` may differ by for boundaries of these types: 8 units in the last place.

Even with optimisations off, engines compute these types in f32 from operator to operator; only what
crosses is rounded.
"""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a user requires of a bundle beyond its promise; None requires nothing.

    Raises:
        EngineError: A requirement is no number of its kind.
    """

    min_agreement: float | None = None
    """Least agreement of the worst head that the boundary reaches, a share."""
    max_error: float | None = None
    """Largest error of any element of any output, absolute."""
    min_snr: float | None = None
    """Least signal to noise ratio of every output, in dB."""

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise EngineError(f"a least agreement of {self.min_agreement} is no share; give 0 to 1")
        if self.max_error is not None and not self.max_error >= 0:
            raise EngineError(f"a largest error of {self.max_error} is none; give 0 or more")
        if self.min_snr is not None and np.isnan(self.min_snr):
            raise EngineError("a least signal to noise ratio that is no number; give decibels")

    def unmet(self, outputs: Sequence[OutputDifference], agreement: Agreement) -> list[str]:
        """Check the requirements.

        Args:
            outputs: The differences of the outputs that are not random.
            agreement: The agreement of the outputs that the boundary reaches.

        Returns:
            One text for every requirement that is not met.
        """
        if not outputs and (self.min_agreement, self.max_error, self.min_snr) != (None, None, None):
            return ["every output is random, and no requirement can be measured"]

        reasons: list[str] = []
        if self.min_agreement is not None and agreement.worst is None:
            reasons.append("no output has anything of which an agreement could be measured")
        elif self.min_agreement is not None and agreement.share < self.min_agreement:
            least = f"{self.min_agreement:g}"
            reasons.append(f"agreement {agreement.worst}, and at least {least} is asked for")

        # Comparisons are negated, so that NaN meets no requirement.
        for output in outputs:
            if self.max_error is not None and not output.max_error <= self.max_error:
                reasons.append(
                    f"%{output.name} has an error of {output.max_error:.4g}, "
                    f"and at most {self.max_error:g} is asked for"
                )
            if self.min_snr is not None and not output.snr_db >= self.min_snr:
                reasons.append(
                    f"%{output.name} has {output.snr_db:.1f} dB, "
                    f"and at least {self.min_snr:g} dB are asked for"
                )
        return reasons


@dataclass(frozen=True, slots=True)
class RandomOutput:
    """An output in which two runs of the whole model differ."""

    name: str
    whole_difference: OutputDifference
    """How two runs of the whole model differ."""
    statistics: Statistics
    """How the bundle's values compare with those of the whole model."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of `verify`.

    A lossless bundle must be bit-equal with the engine's optimisations off, or close to it where
    the boundary has a half-precision type. A quantized bundle promises only that every output has
    the right shape and type. Random outputs are compared by their statistics. Requirements come on
    top, and something must have been compared.
    """

    holds: bool
    """Whether the bundle keeps its promise and the requirements; the exit code says the same."""
    failures: tuple[str, ...]
    """Why it does not hold, as text."""
    lossless: bool
    calls: int
    """How many samples ran."""
    shapes: dict[str, tuple[int, ...]]
    """Shapes of the inputs of the first sample, by name."""
    exact: tuple[OutputDifference, ...]
    """Outputs that are not random, with optimisations off and one thread, unless the engine cannot
    run the model so."""
    optimized: tuple[OutputDifference, ...]
    """The same outputs with the engine's defaults, as a user runs it."""
    random: tuple[RandomOutput, ...]
    agreement: Agreement
    """Agreement of the outputs that the boundary reaches, with optimisations off."""
    elements: int
    """How many elements of outputs were compared; 0 means that nothing was."""
    tolerance: float
    """What `exact` may differ by, relative to the largest value; infinite for a quantized
    boundary."""
    frame_bytes: tuple[int, ...]
    """Bytes of the frame at each boundary, mean over the samples."""

    @property
    def bit_equal(self) -> bool:
        """Whether every output has the bits of the whole model's, with optimisations off.

        A random output has no bits to equal.
        """
        return not self.random and all(output.bit_equal for output in self.exact)

    def to_json(self) -> dict[str, Any]:
        """Return what `irsplit verify --json` prints."""
        data = asdict(self) | {"bit_equal": self.bit_equal, "agreement": self.agreement.to_json()}
        return _without_infinities(data)


def _without_infinities(data: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(data, Mapping):
        return {key: _without_infinities(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_without_infinities(item) for item in data]
    return None if isinstance(data, float) and not np.isfinite(data) else data


@dataclass(frozen=True, slots=True)
class _Runs:
    """A run of the whole model and one of the bundle, on the same samples and engine options."""

    whole: Run
    bundle: Run
    frames: list[list[int]]
    """Bytes of every frame, by sample and boundary."""

    def differences(self, names: Sequence[str]) -> tuple[OutputDifference, ...]:
        """Compare the outputs of these names."""
        differences: list[OutputDifference] = []
        for name in names:
            expected = [outputs[name] for outputs in self.whole]
            computed = [outputs.get(name) for outputs in self.bundle]
            differences.append(compare(name, expected, computed))
        return tuple(differences)


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

    The whole model and the bundle run on the same samples, each in a process of its own. Without
    samples, three are made up from the seed, in sizes that the engine takes. A model with state
    sees the samples as a sequence.

    Args:
        bundle: The bundle's folder.
        model: The source model; needed only where it is no longer where it was.
        samples: Inputs of several calls: arrays by input name, or files and folders.
        inputs: Arrays of some inputs, the same in every sample; the others are made up.
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
    whole = _whole(source, path, manifest)

    # Run both, exactly and as users do.
    steps = Steps(progress, 4 if engine_defaults else 2)
    infos = _infos(source, whole)
    taken: Sequence[Inputs] = load_samples(samples, infos, complete=False)
    if taken:
        exact = _run(manifest, whole, taken, EXACT, steps)
    else:
        taken, exact = first_taken(
            lambda candidates: _run(manifest, whole, candidates, EXACT, steps),
            infos,
            3,
            seed=seed,
            dims=input_sizes(dims, manifest.inputs, manifest),
            given=inputs,
        )
    optimized = _run(manifest, whole, taken, DEFAULT_OPTIONS, steps) if engine_defaults else None

    # Compare the outputs, random ones apart.
    lossless = _is_lossless(manifest)
    tolerance = _tolerance(manifest) if lossless else np.inf
    names = [info.name for info in manifest.outputs]
    outputs = exact.differences(names)
    random: tuple[RandomOutput, ...] = ()
    if _may_be_random(source) or not all(output.close(tolerance) for output in outputs):
        random = _random(manifest, whole, taken, exact, max(tolerance, TOLERANCE))
    random_names = {output.name for output in random}
    outputs = tuple(output for output in outputs if output.name not in random_names)
    settled = [name for name in names if name not in random_names]

    # Judge what was found.
    role_of = head_roles(dialect) or _no_role
    measure = agreement_measure or _measure_of(manifest)
    agreement = _agreement(manifest, source, role_of, exact, settled, measure)
    elements = sum(output.elements for output in outputs)
    elements += sum(output.whole_difference.elements for output in random)
    failures = [*_broken(outputs, random, tolerance), *requirements.unmet(outputs, agreement)]
    if not elements and not allow_nothing:
        failures.append(
            "nothing could be compared: all outputs are empty; "
            "give inputs for which the model finds some"
        )

    return Verification(
        not failures,
        tuple(failures),
        lossless,
        len(taken),
        {name: np.shape(array) for name, array in taken[0].items()},
        outputs,
        () if optimized is None else optimized.differences(settled),
        random,
        agreement,
        elements,
        tolerance,
        tuple(round(sum(sizes) / len(sizes)) for sizes in zip(*exact.frames, strict=True)),
    )


def _infos(source: Model, whole: SegmentFile) -> list[TensorInfo]:
    """Describe the inputs of the model that are no state."""
    states = {info.input for info in whole.state}
    infos = [tensor_info(value) for value in required_inputs(source.entry)]
    return [info for info in infos if info.name not in states]


def _is_lossless(manifest: Manifest) -> bool:
    """Whether neither frames nor operators at the boundary quantize."""
    for boundary in manifest.boundaries:
        if any(spec.quantization is not None for spec in boundary.tensors):
            return False
    return "boundary_ops" not in manifest.raw


def _tolerance(manifest: Manifest) -> float:
    """Return what the outputs of a lossless bundle may differ by, from the types that cross."""
    tolerance = 0.0
    for boundary in manifest.boundaries:
        for spec in boundary.tensors:
            tolerance = max(tolerance, HALF_TOLERANCE.get(spec.dtype, 0.0))
    return tolerance


def _whole(source: Model, path: Path, manifest: Manifest) -> SegmentFile:
    """Describe the model file as one segment, with the state that the bundle's segments keep."""
    state: list[StateInfo] = []
    for segment in manifest.segments:
        state.extend(segment.state)
    inputs = tuple(value.name for value in required_inputs(source.entry))
    outputs = tuple(value.name for value in source.entry.outputs)
    return SegmentFile(path, source.dialect, inputs, outputs, tuple(state))


def _run(
    manifest: Manifest,
    whole: SegmentFile,
    samples: Sequence[Inputs],
    options: EngineOptions,
    steps: Steps,
) -> _Runs:
    """Run the whole model and the bundle."""
    setting = "engine defaults" if options.optimize else "optimisations off"
    steps.begin(f"whole model, {setting}")
    expected, optimized = isolated(run_whole, whole, samples, options)

    # Segments must not run more exactly than the whole model could.
    options = replace(options, optimize=optimized)
    steps.begin(f"bundle, {setting}")
    computed, frames = isolated(run_bundle, manifest.folder, samples, options)
    return _Runs(expected, computed, frames)


def _broken(
    outputs: Sequence[OutputDifference], random: Sequence[RandomOutput], tolerance: float
) -> list[str]:
    """Say which outputs break the promise of the bundle itself."""
    reasons: list[str] = []
    broken = [o.name for o in outputs if not o.close(tolerance) or not np.isfinite(o.max_error)]
    if broken:
        names = ", ".join(f"%{name}" for name in broken)
        reasons.append(f"the bundle does not compute what its model computes: {names}")

    # Quantization may change statistics too: it has no promise there.
    if not np.isfinite(tolerance):
        return reasons
    deviating = [output.name for output in random if not output.statistics.agree]
    if deviating:
        names = ", ".join(f"%{name}" for name in deviating)
        reasons.append(
            f"random outputs of the bundle have other statistics than the model's: {names}"
        )
    return reasons


# -- random outputs ------------------------------------------------------------------------------


def _may_be_random(source: Model) -> bool:
    """Whether nodes of the model are random, or may be."""
    return any(node.random for node in walk(source.entry))


def _random(
    manifest: Manifest,
    whole: SegmentFile,
    samples: Sequence[Inputs],
    exact: _Runs,
    tolerance: float,
) -> tuple[RandomOutput, ...]:
    """Compare by statistics the outputs in which a second run of the whole model differs."""
    second, optimized = isolated(run_whole, whole, samples, EXACT)
    names = random_outputs([info.name for info in manifest.outputs], exact.whole, second)
    if not names:
        return ()

    options = replace(EXACT, optimize=optimized)
    stateful = bool(whole.state) or any(segment.stateful for segment in manifest.segments)
    model_runs = runs_of_whole(whole, samples, options, stateful=stateful)
    bundle_runs = runs_of_bundle(manifest, samples, options, stateful=stateful)

    random: list[RandomOutput] = []
    for name in names:
        expected = [outputs[name] for outputs in exact.whole]
        again = [outputs[name] for outputs in second]
        compared = statistics(name, model_runs, bundle_runs, tolerance)
        random.append(RandomOutput(name, compare(name, expected, again), compared))
    return tuple(random)


# -- agreement -----------------------------------------------------------------------------------


def _agreement(
    manifest: Manifest,
    source: Model,
    role_of: RoleOf,
    exact: _Runs,
    names: Sequence[str],
    measure: str,
) -> Agreement:
    """Measure the agreement of the outputs in `names` that the boundary reaches."""
    if not names:
        return Agreement(())
    reached = _reached(manifest, source)
    view = View((source.entry,), tuple(names), role_of, channel_layout(source), exact.whole[0])
    heads: list[OutputHead] = [
        head for head in heads_of(measure, view) if not reached.isdisjoint(head.outputs)
    ]
    return measured(heads, exact.whole, exact.bundle)


def _reached(manifest: Manifest, source: Model) -> set[str]:
    """Name the outputs that a lossy boundary reaches; of a lossless bundle all."""
    outputs = {info.name for info in manifest.outputs}
    lossy = _lossy_tensors(manifest)
    first = next((index for index, names in enumerate(lossy) if names), None)
    if first is None:
        return outputs

    early: set[str] = set()
    for segment in manifest.segments[: first + 1]:
        early.update(segment.results)
    changed = set[str]().union(*lossy)
    if not changed <= {value.name for value in source.entry.values()}:
        # An operator at the boundary gave a tensor a name of its own.
        return outputs - early
    return reached_outputs([source.entry], [changed]) - early


def _lossy_tensors(manifest: Manifest) -> list[set[str]]:
    """Name the tensors of each boundary that quantization changes."""
    by_operators = "boundary_ops" in manifest.raw
    lossy: list[set[str]] = []
    for boundary in manifest.boundaries:
        specs = boundary.tensors
        lossy.append({s.name for s in specs if by_operators or s.quantization is not None})
    return lossy


def _measure_of(manifest: Manifest) -> str:
    """Return the agreement measure that the bundle was compiled with.

    It is empty where that is a function in a file, which runs only when its user names it.
    """
    asked = manifest.raw.get("agreement", {}).get("asked", "")
    return "" if measure_file(asked) is not None else asked


def _no_role(_: Node) -> HeadRole:
    return ""
