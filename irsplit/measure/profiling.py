"""Measure a model on this machine, part by part, each as the session that it will be (`irsplit profile`).

Three kinds of parts: the stretches between neighbouring legal cuts, the prefixes (everything after a cut switched off,
as Ushakov et al. measure their U8 loads) and the suffixes.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base.progress import Progress, Steps, silent
from irsplit.compilation.compiler import compile
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.provenance import engine
from irsplit.dialects.base import Dialect
from irsplit.engines.execute import Inputs, SegmentFile
from irsplit.engines.inputs import tensor_info
from irsplit.engines.measure import measure_codecs
from irsplit.engines.picture_baseline import picture_sizes
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.ir import Graph, Model, TensorType, Value, engine_graph
from irsplit.measure.measurement import Effort, MeasuredPart, MeasuredRounds, machine
from irsplit.measure.message_overhead import measure_message
from irsplit.passes.analysis.cuts import Cut, Schedule
from irsplit.passes.partition import split
from irsplit.passes.planning.stages import chains
from irsplit.passes.preparation import prepared
from irsplit.profiles.measured import Load, MeasuredTransfer, ModelProfile
from irsplit.runtime.bundle.manifest import file_digest


def profile_model(
    source: ModelFile | Path | str,
    *,
    call: Inputs | None = None,
    dims: Mapping[str, int] | None = None,
    max_tensors: int = 1,
    rematerialise: bool = True,
    effort: Effort = Effort(),
    progress: Progress = silent,
) -> ModelProfile:
    """Measure a model file: the stretches between the cuts of its own order, before and after every cut, and codecs.

    `call` are inputs by name; those that it lacks are made up, in sizes that the engine takes unless `dims` says which.
    Raises PlanError when there is no legal cut.
    """
    read = ModelFile.of(source)
    path, dialect, model = read.path, read.dialect, read.model
    found = chains(prepared(model, dialect, rematerialise=rematerialise).cuts(model, max_tensors))
    parts = found[0]
    plan, cuts = parts.plan, list({cut.id: cut for chain in found for cut in chain.cuts}.values())
    infos = [tensor_info(value) for value in plan.inputs]
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        stretches = 0 if plan.name else len(parts.cuts) + 1
        total = 1 + (1 + stretches + 2 * len(cuts)) * len(effort.shares())
        bench = _Bench(
            dialect,
            model,
            plan,
            Path(folder),
            MeasuredRounds(dialect.name, effort, Steps(progress, total)),
        )
        (file,) = bench.parts((), "whole")
        (inputs,), whole = first_taken(
            lambda calls: bench.first(file, calls[0]), infos, 1, dims=dims, given=call
        )
        values = dict(inputs)
        between = bench.parts(parts.cuts, "stretch") if stretches else ()
        own = [bench.kept(part, values) for part in between]
        halves = [bench.parts((cut,), f"cut{cut.id}") for cut in cuts]
        prefixes = [bench.kept(near, values) for near, _ in halves]
        suffixes = [bench.first(far, values) for _, far in halves]
        bundle, middle = bench.folder / "bundle", cuts[len(cuts) // 2]
        compile(
            read,
            bundle,
            cuts=[middle.id],
            max_tensors=max_tensors,
            rematerialise=rematerialise,
            report=False,
            remember=False,
        )
        message = bench.sweeps.message(measure_message, bundle, inputs)
        bench.sweeps.again()
    crossing = dict.fromkeys(value for cut in cuts for value in cut.boundary)
    return ModelProfile(
        model=path.name,
        digest=file_digest(path),
        machine=machine(),
        engine=engine(dialect.name, effort.engine),
        threads=effort.engine.threads,
        runs=effort.runs,
        cuts=tuple(cut.id for cut in cuts),
        whole=whole.load,
        stretches=tuple(part.load for part in own),
        prefixes=tuple(
            _sending(part.load, cut, values) for part, cut in zip(prefixes, cuts, strict=True)
        ),
        suffixes=tuple(part.load for part in suffixes),
        tensors={**_codings(crossing, values, effort), **_codings(plan.inputs, values, effort)},
        previews=picture_sizes(call or {}),
        message=message,
    )


@dataclass
class _Bench:
    """Writes parts of one model as files of their own, and measures them."""

    dialect: Dialect
    model: Model
    plan: Schedule
    folder: Path
    sweeps: MeasuredRounds

    def parts(self, cuts: Sequence[Cut], name: str) -> list[SegmentFile]:
        """Files of the segments between some cuts."""
        places = ("device",) + ("server",) * len(cuts)
        return [
            self._write(graph, f"{name}-{index}")
            for index, graph in enumerate(split(self.plan, cuts, places))
        ]

    def _write(self, graph: Graph, name: str) -> SegmentFile:
        lowered = engine_graph(graph)
        path = self.folder / f"{name}{self.dialect.extensions[0]}"
        self.dialect.write(self.model, lowered, path)
        inputs = tuple(value.name for value in lowered.inputs if value.constant is None)
        return SegmentFile(
            path, self.model.dialect, inputs, tuple(value.name for value in lowered.outputs)
        )

    def first(self, file: SegmentFile, values: Mapping[str, Any]) -> MeasuredPart:
        return self.sweeps.first(file.path.stem, file, values)[0]

    def kept(self, file: SegmentFile, values: dict[str, Any]) -> MeasuredPart:
        """The same; its outputs join the values that later parts read."""
        part, outputs = self.sweeps.first(file.path.stem, file, values)
        values.update(outputs)
        return part


def _sending(load: Load, cut: Cut, values: Mapping[str, Any]) -> Load:
    """A prefix's load, with what its boundary sends as its output."""
    size = sum(np.asarray(values[value.name]).nbytes for value in cut.boundary)
    return Load(load.wall_ns, load.cpu_ns, load.peak_bytes, size, load.spread_ns)


def _codings(
    crossing: Sequence[Value] | Mapping[Value, None], values: Mapping[str, Any], effort: Effort
) -> dict[str, tuple[MeasuredTransfer, ...]]:
    return {
        value.name: measure_codecs(
            value.name, value.type.dtype.name, [np.asarray(values[value.name])], effort.runs
        )
        for value in crossing
        if isinstance(value.type, TensorType) and value.type.dtype.framable
    }
