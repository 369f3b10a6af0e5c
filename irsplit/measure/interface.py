"""Measure models and bundles on this device: `irsplit.profile` and `irsplit.bench`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from irsplit.base.progress import Progress, silent
from irsplit.compilation.input_words import Sizes, input_sizes
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.options import CompileKeywords, CompileOptions
from irsplit.compilation.samples import SampleSource, input_infos, load_samples
from irsplit.engines.execute import Inputs
from irsplit.measure.bench import Bench, bench_model
from irsplit.measure.bundle_profiling import profile_bundle, tensors_to_feed
from irsplit.measure.measurement import Effort
from irsplit.measure.profiling import profile_model
from irsplit.passes.analysis.dims import given_sizes
from irsplit.profiles import link
from irsplit.profiles.measured import BundleProfile, ModelProfile
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import is_bundle

BENCH_EFFORT = Effort(runs=30)
"""How carefully `bench` measures by default."""


def profile(
    source: ModelFile | Path | str,
    *,
    inputs: Inputs | None = None,
    dims: Sizes = (),
    max_tensors: int = 1,
    rematerialise: bool = True,
    effort: Effort = Effort(),
    progress: Progress = silent,
) -> ModelProfile | BundleProfile:
    """Measure a model, or a bundle, on this device, as `irsplit profile` does.

    Args:
        source: A model file; or a bundle (its folder or a packed side), whose segments are
            measured as far as they are there.
        inputs: Real inputs by name; the others are made up.
        dims: Sizes of open dimensions of inputs that are made up: words as NAME=N, or numbers by
            "<input>.<axis>".
        max_tensors: How many tensors may cross at a cut; for a model only.
        rematerialise: Whether cheap values are computed on both sides instead of sent; for a model
            only.
        effort: How carefully to measure, and on which engine.
        progress: Called before every step.

    Returns:
        The measured profile, which `irsplit.profiles.measured.to_json` prints.

    Raises:
        PlanError: The model has no legal cut.
        BundleError: No segment of the bundle is there.
        EngineError: Inputs do not fit, or the engine refuses the model.

    Example:
        >>> profile("examples/digits/digits.onnx", effort=Effort(fresh=False)).model
        'digits.onnx'
    """
    if not isinstance(source, ModelFile) and is_bundle(Path(source)):
        manifest = Manifest.load(source)
        sizes = input_sizes(dims, tensors_to_feed(manifest), manifest)
        return profile_bundle(
            Path(source), inputs=inputs, dims=sizes, effort=effort, progress=progress
        )

    file = ModelFile.of(source)
    return profile_model(
        file,
        inputs=inputs,
        dims=_model_sizes(dims, file),
        max_tensors=max_tensors,
        rematerialise=rematerialise,
        effort=effort,
        progress=progress,
    )


def bench(
    model: ModelFile | Path | str,
    which: str = "legal",
    options: CompileOptions = CompileOptions(),
    *,
    inputs: Inputs | None = None,
    calibration: SampleSource = (),
    slowdown: float = 1.0,
    effort: Effort = BENCH_EFFORT,
    progress: Progress = silent,
    **changes: Unpack[CompileKeywords],
) -> Bench:
    """Measure what each cut of a model costs on this device, as `irsplit bench` does.

    Args:
        model: A model file.
        which: The cuts to measure: "legal", "all" (which lists the rejected positions too), or
            ids joined by commas.
        options: How to compile every cut, and the link. The sizes in `dims` are those of inputs
            that are made up.
        inputs: Real inputs by name. The others come from the first calibration sample, and
            without samples they are made up.
        calibration: Inputs of several calls, from which quantization and codecs learn.
        slowdown: How many times slower the device is than this one.
        effort: How carefully to measure, and on which engine.
        progress: Called before every step.
        **changes: Fields of `options` by name, which replace those of `options`.

    Returns:
        The times and sizes of every cut.

    Raises:
        CutError: A cut is unknown or not legal.
        IrsplitError: The model or an option is at fault.

    Example:
        >>> effort = Effort(runs=3, fresh=False)
        >>> len(bench("examples/digits/digits.onnx", "4,11", effort=effort, link="lte").cuts)
        2
    """
    options = options.replaced(**changes)
    chosen_link = link(options.link)
    file = ModelFile.of(model)
    samples = load_samples(calibration, input_infos(file.model.entry))

    # Inputs by name take precedence over those of the sample.
    real_inputs = {**(samples[0] if samples else {}), **(inputs or {})}
    return bench_model(
        file,
        real_inputs,
        chosen_link,
        which,
        options,
        dims=_model_sizes(options.dims, file),
        effort=effort,
        slowdown=slowdown,
        calibration=samples,
        progress=progress,
    )


def _model_sizes(sizes: Sizes, file: ModelFile) -> dict[str, int]:
    """Return the sizes of open dimensions of the model's inputs, by "<input>.<axis>"."""
    if isinstance(sizes, Mapping):
        return dict(sizes)
    return given_sizes(sizes, file.model.entry) if sizes else {}
