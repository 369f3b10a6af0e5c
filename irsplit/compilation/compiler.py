"""One call, one artefact: a model file in, a bundle out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from irsplit.base.digests import Digests
from irsplit.base.errors import CutError, PassError, PlanError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.compilation import sources
from irsplit.compilation.bundle_writer import BundleSource, write_bundle
from irsplit.compilation.provenance import provenance, source_files
from irsplit.compilation.samples import CalibrationSamples
from irsplit.dialects.base import Dialect, WriteOptions
from irsplit.dialects.registry import dialect_of
from irsplit.engines.execute import Inputs, SegmentFile
from irsplit.engines.inputs import tensor_info
from irsplit.ir import Graph, Model, required_inputs
from irsplit.passes import Context, Cut, Pipeline, Remark
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.dims import unsized
from irsplit.passes.analysis.observed import shapes_at
from irsplit.passes.analysis.shape_grid import Grid, observed_grid
from irsplit.passes.analysis.working_memory import working_memory
from irsplit.passes.check_boundary import CheckBoundary
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.compress_boundary import CompressBoundary
from irsplit.passes.partition import Partition
from irsplit.passes.preparation import context_of, preparation, sizes_in
from irsplit.passes.prune_buffers import PruneBuffers
from irsplit.passes.remove_unused import RemoveUnused
from irsplit.passes.send_attributes import sends
from irsplit.passes.targets import bits_of, quantization_passes
from irsplit.reporting import coded_inputs, render, report_data
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.run.session import check_inputs


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle and what the passes had to say."""

    manifest: Manifest
    pipeline: str
    remarks: tuple[Remark, ...]
    source_files: tuple[Path, ...]
    """The model file and the data files beside it."""


def compile_model(
    model: Path | str,
    folder: Path | str,
    cuts: Sequence[str] = (),
    *,
    boundary: str = "lossless",
    boundary_ops: bool = False,
    agreement_measure: str = "",
    calibration: Inputs | Sequence[Inputs] = (),
    max_tensors: int = 1,
    places: Sequence[str] = (),
    codec: str = "zstandard",
    state: Sequence[str] = (),
    dim: Sequence[str] = (),
    rematerialise: bool = True,
    choose: ChooseCut | None = None,
    autonomous: bool = False,
    adaptive: bool = False,
    pipeline: str = "",
    options: WriteOptions = WriteOptions(),
    remember: bool = True,
    report: bool = False,
    warnings_are_errors: bool = False,
    progress: Progress = silent,
) -> Compiled:
    """Compile the model file into a bundle in `folder`.

    `cuts` are ids or tensor names of legal cuts; without any, those that `choose` finds best, or without it the one
    with the fewest boundary bytes below the input's. One word alone may stand for a sequence of words. With
    `rematerialise`, cheap side values are computed on both sides of a cut. `boundary` is one of the TARGETS of
    `irsplit.passes.targets`, with TARGET_OPTIONS behind it; all but "lossless" need `calibration`: inputs by name, one
    mapping a call, and so do the codecs that learn. With `boundary_ops` the segments quantize themselves, and a host
    without irsplit's runtime exchanges integers. `agreement_measure` says how an agreement reads outputs: top1, iou,
    f1, an entry point or FILE.py:function; without one, detections and label maps are recognised. `state` names inputs
    and outputs that are state, "in=out" or "auto" (see the bind-state pass). `dim` are sizes of open dimensions of
    inputs, "in.axis=2", with which estimates count (see assume-sizes) and states begin; without it estimates count
    with those of `calibration`.
    `autonomous` puts the server's segments beside the device's, which can then go on without a link; `adaptive` all of
    them but the last, so that the client chooses among several cuts. A `pipeline` text says which passes run, instead
    of all of that but these two and `calibration`. `remember` notes where the model lies, so that `verify_bundle`
    finds it again. `report` puts report.html and report.json beside the manifest.
    Raises an IrsplitError for whatever is wrong with model, cut or folder, and PassError for a warning of a pass when
    `warnings_are_errors`; nothing is left half written then.
    """
    source, target = Path(model), Path(folder)
    cuts, places, state, dim = map(_words, (cuts, places, state, dim))
    dialect = dialect_of(source)
    loaded = dialect.read(source)
    files = source_files(loaded, source)
    calls = _checked(calibration, loaded.entry, complete=not (state or pipeline))
    with Digests() as digests:
        digests.start(files)
        entry = loaded.entry
        context = context_of(dialect)
        grid = observed_grid(entry, lambda sizes: shapes_at(dialect, loaded, source, sizes))
        assumed = sizes_in(loaded, calls)
        before = (
            preparation(state, dim, assumed=assumed, rematerialise=rematerialise)
            if not pipeline
            else Pipeline(())
        )
        before.run(loaded, context)
        quantizing: Any = {"boundary_ops": boundary_ops, "agreement_measure": agreement_measure}
        if pipeline:
            after = Pipeline.parse(pipeline)
        elif cuts or choose is None:
            chosen = cuts or [_default_cut(loaded, context, max_tensors).id]
            after = default_pipeline(chosen, boundary, max_tensors, places, codec, **quantizing)
        else:
            rest = default_pipeline(
                (), boundary, max_tensors, places, codec, choose.link, **quantizing
            )
            after = Pipeline((choose, *rest.passes))
        passes = Pipeline((*before.passes, *after.passes))
        if calls:
            context.samples = CalibrationSamples(dialect, entry, calls)
        steps = Steps(progress, len(after.passes) + 1)
        after.run(loaded, context, steps.begin)
        count = len(loaded.segments)
        if not count:
            raise CutError(
                f"the pipeline '{passes}' leaves the model whole; put partition{{cut=ID}} into it"
            )
        if adaptive and count < 3:
            raise CutError(
                "one cut leaves nothing to choose from; give several with --cut, or let --pattern several"
            )
        if warnings_are_errors:
            _refuse_warnings(context.remarks)
        steps.begin("writing")
        page: dict[str, bytes] = {}
        if report:
            page = _report(
                loaded, dialect, context, conditions_of(after, choose), source.name, calls
            )

        def origin() -> BundleSource:
            made_of = dict(zip(files, digests.of(files), strict=True))
            details = (
                context.details
                | _working_memory(loaded, entry, grid)
                | {
                    "provenance": provenance(loaded, made_of, passes),
                    "remarks": [
                        {"pass": remark.pass_name, "text": remark.text}
                        for remark in context.remarks
                    ],
                }
            )
            return BundleSource(source.name, made_of[source], str(passes), details)

        carried = count if autonomous else count - 1 if adaptive else 0
        manifest = write_bundle(
            loaded, dialect, entry, target, origin, digests, options, carried, page
        )
    if remember:
        sources.remember(source, manifest.raw["source"]["sha256"])
    return Compiled(manifest, str(passes), tuple(context.remarks), tuple(files))


def _working_memory(model: Model, entry: Graph, grid: Grid | None) -> dict[str, Any]:
    """What the manifest says of the memory that runs of the partitioned model take; nothing where nothing is open."""
    if grid is None:
        return {}
    crossing = [[value for value in send.inputs if value is not None] for _, send in sends(model)]
    found = working_memory(model.segments, required_inputs(entry), crossing, grid)
    return (
        {"working_memory": [function and function.to_json() for function in found]}
        if any(found)
        else {}
    )


def _words(given: Sequence[str]) -> tuple[str, ...]:
    """A string is one word, not its letters."""
    return (given,) if isinstance(given, str) else tuple(map(str, given))


def _checked(
    calibration: Inputs | Sequence[Inputs], entry: Graph, *, complete: bool
) -> list[Inputs]:
    """Calibration calls, one alone as a mapping. Raises EngineError for one that does not fit the model's inputs, all
    of which it has to have when `complete`."""
    calls = [calibration] if isinstance(calibration, Mapping) else calibration
    infos = [tensor_info(value) for value in required_inputs(entry)]
    return [
        check_inputs([info for info in infos if complete or info.name in call], call)
        for call in calls
    ]


def _report(
    model: Model,
    dialect: Dialect,
    context: Context,
    conditions: ChooseCut,
    title: str,
    calibration: Sequence[Inputs],
) -> dict[str, bytes]:
    """The report of the partitioned `model` as files; none, with a remark, where none can be made."""
    crossing = [
        [value.name for value in send.inputs if value is not None] for _, send in sends(model)
    ]
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


def preparation_of(pipeline: Pipeline) -> Pipeline:
    """The passes of a compilation that came before cuts were looked for."""
    return Pipeline(
        (*takewhile(lambda pass_: not isinstance(pass_, ChooseCut | Partition), pipeline.passes),)
    )


def conditions_of(passes: Pipeline, choose: ChooseCut | None = None) -> ChooseCut:
    """What a report begins with: the machines and link that were asked for, cuts and boundary as they were made."""
    chosen = choose or next(
        (pass_ for pass_ in passes.passes if isinstance(pass_, ChooseCut)), ChooseCut()
    )
    cut = next((pass_.max_tensors for pass_ in passes.passes if isinstance(pass_, Partition)), 1)
    codec = next(
        (pass_.codec for pass_ in passes.passes if isinstance(pass_, CompressBoundary)), "raw"
    )
    bits = chosen.bits or bits_of(passes.passes)
    return replace(
        chosen, codec=chosen.codec or codec, bits=bits, max_tensors=max(cut, chosen.max_tensors)
    )


def _refuse_warnings(remarks: Sequence[Remark]) -> None:
    warnings = [f"{remark.pass_name}: {remark.text}" for remark in remarks if remark.warning]
    if warnings:
        raise PassError(f"warnings are errors here: {'; '.join(warnings)}")


def default_pipeline(
    cuts: Sequence[str],
    boundary: str,
    max_tensors: int,
    places: Sequence[str],
    codec: str,
    link: str = "",
    *,
    boundary_ops: bool = False,
    agreement_measure: str = "",
) -> Pipeline:
    """The passes that `compile` runs for these options; with a `link` the codec auto is the fastest over it."""
    partition = Partition(tuple(cuts), max_tensors, tuple(places))
    compress = CompressBoundary(codec, link=link if codec == "auto" else "")
    coding = (
        *quantization_passes(boundary, in_graph=boundary_ops, measure=agreement_measure),
        compress,
        CheckBoundary(),
    )
    return Pipeline((partition, RemoveUnused(), PruneBuffers(), *coding))


def _default_cut(model: Model, context: Context, max_tensors: int) -> Cut:
    """The smallest boundary, with a remark where that leaves the far side next to nothing to do, or means little."""
    cut = smallest_boundary(model.entry, context.cuts(model, max_tensors))
    if left := unsized(model.entry):
        text = f"cut {cut.id} sends the fewest bytes if {', '.join(left)} are 1; say how large they are with --dim"
        context.remarks.append(Remark("compile", text))
    if cut.macs_share is not None and cut.macs_share > 0.99:
        text = f"cut {cut.id} sends the fewest bytes, and {100 * cut.macs_share:.1f} % of the multiply-accumulates"
        text += " come before it; choose another with --cut, or by time with --device (see 'irsplit plan')"
        context.remarks.append(Remark("compile", text))
    return cut


def smallest_boundary(graph: Graph, cuts: Sequence[Cut]) -> Cut:
    """The legal cut with the fewest raw bytes, the latest of several, if it sends less than the model's inputs are.

    Where dimensions of inputs beside the batch are open, there is no telling whether it does, and it is taken. Raises
    CutError when no cut sends less.
    """
    legal = [cut for cut in cuts if cut.legal]
    if not legal:
        reasons = (
            f"; the first position: {cuts[0].reason}" if cuts else ": it has fewer than two nodes"
        )
        raise CutError(
            f"the model has no legal cut{reasons} (see 'irsplit cuts', or allow more with --max-tensors)"
        )
    best = min(reversed(legal), key=lambda cut: cut.estimated_bytes)
    inputs = estimated_bytes(required_inputs(graph))
    if best.estimated_bytes >= inputs and not unsized(graph):
        raise CutError(
            f"no legal cut sends less than the inputs ({inputs} bytes): the smallest is {best.id} with "
            f"{best.estimated_bytes} bytes; choose one with --cut, or send the inputs and run everything on the server"
        )
    return best


def whole_model(path: Path) -> tuple[SegmentFile, list[TensorInfo]]:
    """A model file as one segment, and its inputs."""
    model = dialect_of(path).read(path)
    entry = model.entry
    infos = [tensor_info(value) for value in required_inputs(entry)]
    outputs = tuple(value.name for value in entry.outputs)
    return SegmentFile(path, model.dialect, tuple(info.name for info in infos), outputs), infos
