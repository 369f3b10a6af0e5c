"""Measure a model on this machine, part by part, each as the session that it will be (`irsplit profile`).

Three kinds of parts: the stretches between neighbouring legal cuts, the prefixes (everything after a cut switched off,
as Ushakov et al. measure their U8 loads) and the suffixes. Every part runs in a fresh process, so that its memory is
its own, and optimised by the engine as it will be in a bundle.

A machine has slow seconds. If all runs of a part were neighbours, they would fall on some parts alone; so the parts,
the whole model among them, are measured in turns, again and again, and the medians are over all turns.
"""

import contextlib
import platform
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from irsplit.compiler import compile_model
from irsplit.dialects.base import Dialect
from irsplit.dialects.registry import dialect_of
from irsplit.engines.execute import Call, SegmentFile
from irsplit.engines.inputs import tensor_info
from irsplit.engines.isolate import Isolation, copies, isolated
from irsplit.engines.made_up import first_taken
from irsplit.engines.measure import Runs, load_of, measure_codecs, rerun_part, run_part
from irsplit.engines.pictures import measure_picture
from irsplit.ir import Graph, Model, TensorType, Value, engine_graph
from irsplit.messages import measure_message
from irsplit.passes.cuts import Cut, Schedule
from irsplit.passes.partition import split
from irsplit.passes.preparation import prepared
from irsplit.passes.stretches import chains
from irsplit.profiles import Message
from irsplit.profiles.measured import Coding, Load, ModelProfile
from irsplit.progress import Progress, Steps, silent
from irsplit.provenance import engine
from irsplit.runtime.engines import MODULES, EngineOptions
from irsplit.runtime.manifest import file_digest

_P = ParamSpec("_P")
_T = TypeVar("_T")

SWEEPS = 3
"""Times that all parts are measured in turn, each time with a share of the runs: one that is disturbed is outvoted."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How carefully to measure. Medians are over `runs`, or as many of them as fit into a second, three at least.

    Without `fresh` processes the parts run in this one: ten times faster, but memory is then a guess, and an engine
    that aborts takes this process along.
    """

    threads: int = 1
    warmup: int = 3
    runs: int = 15
    fresh: bool = True

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the function in a fresh process, or in this one."""
        return isolated(function, *args, **kwargs) if self.fresh else function(*args, **kwargs)

    @contextlib.contextmanager
    def again(self, format: str) -> Generator[Isolation]:
        """Calls like `run`, of functions that use the engine of a format, once its memory is known."""
        if not self.fresh:
            yield self.run
            return
        with copies((run_part.__module__, MODULES[format])) as call:
            yield call

    def shares(self) -> list[int]:
        """The runs of each sweep."""
        return [len(range(sweep, self.runs, SWEEPS)) for sweep in range(min(SWEEPS, self.runs))]


def profile_model(
    path: Path,
    *,
    call: Call | None = None,
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
    dialect = dialect_of(path)
    model = dialect.read(path)
    found = chains(prepared(model, dialect, rematerialise=rematerialise).cuts(model, max_tensors))
    parts = found[0]
    plan, cuts = parts.plan, list({cut.id: cut for chain in found for cut in chain.cuts}.values())
    infos = [tensor_info(value) for value in plan.inputs]
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        stretches = 0 if plan.name else len(parts.cuts) + 1
        total = 1 + (1 + stretches + 2 * len(cuts)) * len(effort.shares())
        bench = _Bench(dialect, model, plan, Path(folder), effort, Steps(progress, total))
        (file,) = bench.parts((), "whole")
        (inputs,), whole = first_taken(lambda calls: bench.first(file, calls[0]), infos, 1, dims=dims, given=call)
        values = dict(inputs)
        between = bench.parts(parts.cuts, "stretch") if stretches else ()
        own = [bench.first(part, values, keep=True) for part in between]
        halves = [bench.parts((cut,), f"cut{cut.id}") for cut in cuts]
        prefixes = [bench.first(near, values, keep=True) for near, _ in halves]
        suffixes = [bench.first(far, values) for _, far in halves]
        bundle, middle = bench.folder / "bundle", cuts[len(cuts) // 2]
        compile_model(path, bundle, [middle.id], max_tensors=max_tensors, rematerialise=rematerialise, remember=False)
        message = bench.message(bundle, inputs)
        bench.sweep_again()
    crossing = dict.fromkeys(value for cut in cuts for value in cut.boundary)
    real = call or {}
    pictures = {name: measure_picture(np.asarray(array)) for name, array in real.items()}
    return ModelProfile(
        model=path.name,
        digest=file_digest(path),
        machine=machine(),
        engine=engine(dialect.name),
        threads=effort.threads,
        runs=effort.runs,
        cuts=tuple(cut.id for cut in cuts),
        whole=whole.load,
        stretches=tuple(part.load for part in own),
        prefixes=tuple(_sending(part.load, cut, values) for part, cut in zip(prefixes, cuts, strict=True)),
        suffixes=tuple(part.load for part in suffixes),
        tensors={**_codings(crossing, values, effort), **_codings(plan.inputs, values, effort)},
        previews={name: found for name, found in pictures.items() if found},
        message=message,
    )


def machine() -> str:
    """This machine in words: system, architecture, processor."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return f"{platform.system()} {platform.machine()}, {models[0] if models else platform.processor() or 'unknown'}"


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the model, what it reads, and its runs, a sweep each."""

    file: SegmentFile
    inputs: Call
    sweeps: list[Runs]

    @property
    def load(self) -> Load:
        return load_of(self.sweeps)


@dataclass
class _Bench:
    """Writes parts of one model as files of their own and measures them one by one, then all of them again."""

    dialect: Dialect
    model: Model
    plan: Schedule
    folder: Path
    effort: Effort
    steps: Steps
    measured: list[_Part] = field(default_factory=list[_Part])

    def parts(self, cuts: Sequence[Cut], name: str) -> list[SegmentFile]:
        """Files of the segments between some cuts."""
        places = ("device",) + ("server",) * len(cuts)
        return [self._write(graph, f"{name}-{index}") for index, graph in enumerate(split(self.plan, cuts, places))]

    def _write(self, graph: Graph, name: str) -> SegmentFile:
        lowered = engine_graph(graph)
        path = self.folder / f"{name}{self.dialect.extensions[0]}"
        self.dialect.write(self.model, lowered, path)
        inputs = tuple(value.name for value in lowered.inputs if value.constant is None)
        return SegmentFile(path, self.model.dialect, inputs, tuple(value.name for value in lowered.outputs))

    def first(self, file: SegmentFile, values: dict[str, Any] | Call, *, keep: bool = False) -> _Part:
        """The first sweep's runs of a part; with `keep` its outputs join the values that later parts read."""
        self.steps.begin(file.path.stem)
        needed = {name: values[name] for name in file.inputs}
        runs, outputs = self.effort.run(run_part, file, needed, *self._timing(0))
        if keep and isinstance(values, dict):
            values.update(outputs)
        self.measured.append(_Part(file, needed, [runs]))
        return self.measured[-1]

    def sweep_again(self) -> None:
        """The other sweeps over all parts, in the order of the first: the turns of every part are as far apart."""
        with self.effort.again(self.model.dialect) as call:
            for sweep in range(1, len(self.effort.shares())):
                for part in self.measured:
                    self.steps.begin(part.file.path.stem)
                    part.sweeps.append(call(rerun_part, part.file, part.inputs, *self._timing(sweep)))

    def _timing(self, sweep: int) -> tuple[EngineOptions, int, int, int]:
        """Options of the engine, warm-up, runs of one sweep, and how many sweeps there are."""
        shares = self.effort.shares()
        return EngineOptions(threads=self.effort.threads), self.effort.warmup, shares[sweep], len(shares)

    def message(self, bundle: Path, inputs: Call) -> Message:
        """Measure what a message of a bundle costs."""
        self.steps.begin("message")
        options = EngineOptions(threads=self.effort.threads)
        return self.effort.run(measure_message, bundle, inputs, options, self.effort.runs)


def _sending(load: Load, cut: Cut, values: Mapping[str, Any]) -> Load:
    """A prefix's load, with what its boundary sends as its output."""
    size = sum(np.asarray(values[value.name]).nbytes for value in cut.boundary)
    return Load(load.wall_ns, load.cpu_ns, load.peak_bytes, size, load.spread_ns)


def _codings(
    crossing: Sequence[Value] | Mapping[Value, None], values: Mapping[str, Any], effort: Effort
) -> dict[str, tuple[Coding, ...]]:
    return {
        value.name: measure_codecs(value.name, value.type.dtype.name, [np.asarray(values[value.name])], effort.runs)
        for value in crossing
        if isinstance(value.type, TensorType) and value.type.dtype.framable
    }
