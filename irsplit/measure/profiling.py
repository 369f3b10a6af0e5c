"""Measures a model on this machine part by part, each part as the session that it will be.

There are three kinds of parts beside the whole model: the stages between neighbouring legal cuts,
the prefixes (everything after a cut is left out, as Ushakov et al. measure their U8 loads), and
the suffixes.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
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
    inputs: Inputs | None = None,
    dims: Mapping[str, int] | None = None,
    max_tensors: int = 1,
    rematerialise: bool = True,
    effort: Effort = Effort(),
    progress: Progress = silent,
) -> ModelProfile:
    """Measure a model: its stages, what runs before and after every cut, and the codecs.

    Args:
        source: The model file, or a model that was read.
        inputs: The model's inputs by name. Those that are missing are made up.
        dims: Sizes of open dimensions of inputs that are made up; by default the first sizes that
            the engine takes.
        max_tensors: How many tensors may cross at a cut.
        rematerialise: Whether cheap values are computed on both sides of a cut instead of being
            sent.
        effort: How carefully to measure.
        progress: Called before each step.

    Raises:
        PlanError: The model has no legal cut.
        EngineError: The engine refuses the model or the inputs.
    """
    read = ModelFile.of(source)
    path, dialect, model = read.path, read.dialect, read.model
    nested = chains(prepared(model, dialect, rematerialise=rematerialise).cuts(model, max_tensors))
    stages = nested[0]
    plan = stages.plan
    cuts = _distinct(chain.cuts for chain in nested)

    # A schedule with a name is not the model's own order, and its stages mean nothing to a plan.
    stage_count = 0 if plan.name else len(stages.cuts) + 1
    step_count = 1 + (1 + stage_count + 2 * len(cuts)) * len(effort.shares())
    rounds = MeasuredRounds(dialect.name, effort, Steps(progress, step_count))
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        parts = _Parts(dialect, model, plan, Path(folder), rounds)
        (file,) = parts.write((), "whole")
        infos = [tensor_info(value) for value in plan.inputs]
        (inputs_taken,), whole = first_taken(
            lambda samples: parts.measure(file, samples[0]), infos, 1, dims=dims, given=inputs
        )

        # Stages and prefixes run first: their outputs are what later parts read.
        values = dict(inputs_taken)
        stage_files = parts.write(stages.cuts, "stretch") if stage_count else []
        measured_stages = [parts.measure_and_keep(stage, values) for stage in stage_files]
        halves = [parts.write((cut,), f"cut{cut.id}") for cut in cuts]
        prefixes = [parts.measure_and_keep(prefix, values) for prefix, _ in halves]
        suffixes = [parts.measure(suffix, values) for _, suffix in halves]

        # A message is measured at one cut only, the one in the middle.
        bundle = Path(folder) / "bundle"
        compile(
            read,
            bundle,
            cuts=[cuts[len(cuts) // 2].id],
            max_tensors=max_tensors,
            rematerialise=rematerialise,
            report=False,
            remember=False,
        )
        message = rounds.message(measure_message, bundle, inputs_taken)
        rounds.again()

    prefix_loads = [
        _sending(part.load, cut, values) for part, cut in zip(prefixes, cuts, strict=True)
    ]

    return ModelProfile(
        model=path.name,
        digest=file_digest(path),
        machine=machine(),
        engine=engine(dialect.name, effort.engine),
        threads=effort.engine.threads,
        runs=effort.runs,
        cuts=tuple(cut.id for cut in cuts),
        whole=whole.load,
        stretches=tuple(part.load for part in measured_stages),
        prefixes=tuple(prefix_loads),
        suffixes=tuple(part.load for part in suffixes),
        tensors=_transfers([*_crossing(cuts), *plan.inputs], values, effort.runs),
        previews=picture_sizes(inputs or {}),
        message=message,
    )


@dataclass
class _Parts:
    """Writes parts of one model as files of their own, and measures them.

    Attributes:
        dialect: The model's format.
        model: The model.
        plan: Its schedule.
        folder: Where the files go.
        rounds: Measures them.
    """

    dialect: Dialect
    model: Model
    plan: Schedule
    folder: Path
    rounds: MeasuredRounds

    def write(self, cuts: Sequence[Cut], name: str) -> list[SegmentFile]:
        """Write the segments between some cuts."""
        placements = ("device", *("server" for _ in cuts))
        graphs = split(self.plan, cuts, placements)
        return [self._write(graph, f"{name}-{index}") for index, graph in enumerate(graphs)]

    def _write(self, graph: Graph, name: str) -> SegmentFile:
        lowered = engine_graph(graph)
        path = self.folder / f"{name}{self.dialect.extensions[0]}"
        self.dialect.write(self.model, lowered, path)
        inputs = tuple(value.name for value in lowered.inputs if value.constant is None)
        outputs = tuple(value.name for value in lowered.outputs)
        return SegmentFile(path, self.dialect.engine, inputs, outputs)

    def measure(self, file: SegmentFile, values: Mapping[str, Any]) -> MeasuredPart:
        """Measure a part for the first time."""
        return self.rounds.first(file.path.stem, file, values)[0]

    def measure_and_keep(self, file: SegmentFile, values: dict[str, Any]) -> MeasuredPart:
        """Measure a part for the first time, and add its outputs to the values."""
        part, outputs = self.rounds.first(file.path.stem, file, values)
        values.update(outputs)
        return part


def _distinct(chains_of_cuts: Iterable[Sequence[Cut]]) -> list[Cut]:
    """The cuts of all chains, each id once."""
    cuts: dict[str, Cut] = {}
    for chain in chains_of_cuts:
        cuts.update((cut.id, cut) for cut in chain)
    return list(cuts.values())


def _crossing(cuts: Sequence[Cut]) -> list[Value]:
    """The values that cross at some cut, each once."""
    values: dict[Value, None] = {}
    for cut in cuts:
        values.update(dict.fromkeys(cut.boundary))
    return list(values)


def _sending(load: Load, cut: Cut, values: Mapping[str, Any]) -> Load:
    """A prefix's load whose output is what its boundary sends."""
    size = sum(np.asarray(values[value.name]).nbytes for value in cut.boundary)
    return Load(load.wall_ns, load.cpu_ns, load.peak_bytes, size, load.spread_ns)


def _transfers(
    crossing: Sequence[Value], values: Mapping[str, Any], runs: int
) -> dict[str, tuple[MeasuredTransfer, ...]]:
    """Sizes and times of values with every codec, for those that can be framed."""
    transfers: dict[str, tuple[MeasuredTransfer, ...]] = {}
    for value in crossing:
        if isinstance(value.type, TensorType) and value.type.dtype.framable:
            array = np.asarray(values[value.name])
            dtype = value.type.dtype.name
            transfers[value.name] = measure_codecs(value.name, dtype, [array], runs)

    return transfers
