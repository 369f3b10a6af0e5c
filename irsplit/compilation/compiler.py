"""Compile a model file into a bundle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from irsplit.base.digests import Digests
from irsplit.base.errors import CutError, PassError, PlanError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.compilation import sources
from irsplit.compilation.bundle_writer import BundleSource, write_bundle
from irsplit.compilation.calibration_samples import CalibrationSamples
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.options import CompileKeywords, CompileOptions
from irsplit.compilation.provenance import provenance, source_files
from irsplit.compilation.samples import SampleSource, input_infos, load_samples, whole_file
from irsplit.compilation.selection import conditions_of, passes_after, passes_before
from irsplit.dialects.base import Dialect
from irsplit.engines.execute import Inputs, SegmentFile
from irsplit.ir import Graph, Model, Value, required_inputs
from irsplit.passes import Context, Pipeline, Remark
from irsplit.passes.analysis.observed import shapes_at
from irsplit.passes.analysis.shape_grid import Grid, observed_grid
from irsplit.passes.analysis.working_memory import working_memory
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.preparation import context_of, sizes_in
from irsplit.passes.send_attributes import sends
from irsplit.reporting import coded_inputs, render, report_data
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle, and what the passes said while it was made."""

    manifest: Manifest
    pipeline: str
    """The passes that ran, as text."""
    remarks: tuple[Remark, ...]
    source_files: tuple[Path, ...]
    """The model file and the data files beside it."""

    def __repr__(self) -> str:
        """Return the folder and the start of the digest, on one line."""
        return f"Compiled({str(self.manifest.folder)!r}, {self.manifest.digest[:16]})"


def compile(
    model: ModelFile | Path | str,
    folder: Path | str,
    options: CompileOptions = CompileOptions(),
    *,
    calibration: SampleSource = (),
    progress: Progress = silent,
    **changes: Unpack[CompileKeywords],
) -> Compiled:
    """Compile a model file into a bundle, as `irsplit compile` does.

    Args:
        model: The model file.
        folder: Where the bundle goes. It appears whole, in place of an older bundle there; on
            failure nothing is left half written and the older bundle stays.
        options: How to cut, code and write.
        calibration: Inputs of several calls, from which quantization and codecs learn and plans
            measure: arrays by input name, or files and folders.
        progress: Called before every pass.
        **changes: Fields of `options` by name, which replace those of `options`.

    Returns:
        The manifest of the bundle, and what the passes said.

    Raises:
        IrsplitError: The model, a cut, an option or the folder is at fault.
        PassError: A pass warned, and `warnings_are_errors` is set.

    Example:
        >>> bundle = compile("examples/digits/digits.onnx", "build/lte", device="pixel-2",
        ...                  link="lte", limits=("memory=64MB",))
        >>> [segment.placement for segment in bundle.manifest.segments]
        ['device', 'server']
    """
    options = options.replaced(**changes)
    file = ModelFile.of(model).fork()
    source, dialect, loaded = file.path, file.dialect, file.model
    files = source_files(loaded, source)

    # A state is no input of the bundle, and a pipeline may bind one.
    complete = not (options.state or options.pipeline)
    calls = load_samples(calibration, input_infos(file.model.entry), complete=complete)

    with Digests() as digests:
        digests.start(files)
        entry = loaded.entry
        context = context_of(dialect)
        grid = observed_grid(entry, lambda sizes: shapes_at(dialect, loaded, source, sizes))
        before = passes_before(options, sizes_in(loaded, calls))
        before.run(loaded, context)

        after = passes_after(options, loaded, context)
        passes = Pipeline((*before.passes, *after.passes))
        if calls:
            context.samples = CalibrationSamples(dialect, entry, calls)
        steps = Steps(progress, len(after.passes) + 1)
        after.run(loaded, context, steps.begin)
        _check_segments(loaded, passes, options, context)

        steps.begin("writing")
        page: dict[str, bytes] = {}
        if options.report:
            conditions = conditions_of(after, options.chooser())
            page = _report(loaded, dialect, context, conditions, source.name, calls)

        def origin() -> BundleSource:
            made_of = dict(zip(files, digests.of(files), strict=True))
            remarks = [{"pass": said.pass_name, "text": said.text} for said in context.remarks]
            details = {
                **context.details,
                **_working_memory(loaded, entry, grid),
                "provenance": provenance(loaded, made_of, passes),
                "remarks": remarks,
            }
            return BundleSource(source.name, made_of[source], str(passes), details)

        manifest = write_bundle(
            loaded,
            dialect,
            entry,
            Path(folder),
            origin,
            digests,
            options.write_options(),
            _carried(loaded, options),
            page,
        )

    if options.remember:
        sources.remember(source, manifest.raw["source"]["sha256"])
    return Compiled(manifest, str(passes), tuple(context.remarks), tuple(files))


def _check_segments(
    model: Model, passes: Pipeline, options: CompileOptions, context: Context
) -> None:
    """Check that the passes made the segments that the options need.

    Raises:
        CutError: The model is whole, or has too few segments.
        PassError: A pass warned, and warnings are errors.
    """
    count = len(model.segments)
    if not count:
        raise CutError(
            f"the pipeline '{passes}' leaves the model whole",
            remedy="put partition{cut=ID} into it",
        )

    if options.adaptive and count < 3:
        raise CutError(
            "one cut leaves nothing to choose from",
            remedy='give several `cuts`, or let a plan find them with `pattern` "several"',
        )

    warnings = [f"{said.pass_name}: {said.text}" for said in context.remarks if said.warning]
    if options.warnings_are_errors and warnings:
        raise PassError(f"warnings are errors here: {'; '.join(warnings)}")


def _carried(model: Model, options: CompileOptions) -> int:
    """Return how many segments the device side has, from the first on."""
    count = len(model.segments)
    if options.autonomous:
        return count
    return count - 1 if options.adaptive else 0


def _working_memory(model: Model, entry: Graph, grid: Grid | None) -> dict[str, Any]:
    """Return the manifest's entry on the memory that runs of the segments take.

    It is empty where no dimension is open: the sizes in the manifest then say it all.
    """
    if grid is None:
        return {}

    crossing = _crossing(model)
    functions = working_memory(model.segments, required_inputs(entry), crossing, grid)
    if not any(functions):
        return {}
    return {"working_memory": [function and function.to_json() for function in functions]}


def _crossing(model: Model) -> list[list[Value]]:
    """Return the values that cross at every boundary."""
    return [list(filter(None, send.inputs)) for _, send in sends(model)]


def _report(
    model: Model,
    dialect: Dialect,
    context: Context,
    conditions: ChooseCut,
    title: str,
    calibration: Sequence[Inputs],
) -> dict[str, bytes]:
    """Render the report of a partitioned model.

    Returns the contents of its files by name. Where nothing can be planned there is no file, and
    a remark says why.
    """
    crossing: list[list[str]] = []
    for values in _crossing(model):
        crossing.append([value.name for value in values])
    inputs = coded_inputs(calibration[0]) if calibration else {}
    try:
        data = report_data(
            context.chosen.listed,
            dialect,
            conditions,
            title,
            inputs=inputs,
            compiled=crossing,
            ratios=context.chosen.ratios,
        )
    except PlanError as error:
        context.remarks.append(Remark("report", f"no report: {error}"))
        return {}

    if "agreement" in context.details:
        data["agreement"] = context.details["agreement"]
    return {
        "report.html": render(data).encode(),
        "report.json": (json.dumps(data, ensure_ascii=False) + "\n").encode(),
    }


def whole_model(path: Path | str) -> tuple[SegmentFile, list[TensorInfo]]:
    """Read a model file to run it whole.

    Args:
        path: The model file.

    Returns:
        The model as one segment, and its inputs.

    Raises:
        IrsplitError: The file cannot be read.
    """
    file = ModelFile.read(path)
    return whole_file(file), input_infos(file.model.entry)
