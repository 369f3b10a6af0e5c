"""Measures what each cut of a model costs on this machine (`irsplit bench`).

Every cut is compiled into a bundle as a user would ship it. One fresh process runs the whole
model and the bundle in turns, so that the overhead compares rounds that met the same machine. The
peak memory of each side comes from a process of its own.

The JSON form `irsplit-bench/1` has the dataclasses of this module, by field: times in nanoseconds,
sizes in bytes, shares of 1.
"""

import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base.dtypes import from_numpy
from irsplit.base.errors import VERSION, CutError, PlanError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.base.reading import read_text, reading, record
from irsplit.compilation.compiler import compile
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.options import CompileOptions
from irsplit.compilation.provenance import engine
from irsplit.compilation.samples import input_infos, whole_file
from irsplit.engines.execute import Inputs, SegmentFile
from irsplit.engines.isolate import isolated
from irsplit.engines.measure import (
    SplitRounds,
    measure_codecs,
    measure_device,
    measure_part,
    measure_server,
    measure_split,
    spread,
)
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.measure.measurement import Effort, machine
from irsplit.passes import Cut
from irsplit.passes.preparation import prepared
from irsplit.planner.cost import link_ns
from irsplit.profiles import Link
from irsplit.profiles.measured import Load, MeasuredTransfer
from irsplit.runtime.bundle.manifest import file_digest

FORMAT = "irsplit-bench/1"
PHASES = ("device", "encode", "decode", "server")


@dataclass(frozen=True, slots=True)
class Timing:
    """Median of some runs, and the distance between their quartiles."""

    median_ns: int
    spread_ns: int
    runs: int

    @classmethod
    def of(cls, values: Sequence[int]) -> "Timing":
        """The timing of some runs, each in nanoseconds."""
        return cls(round(statistics.median(values)), round(spread(values)), len(values))


@dataclass(frozen=True, slots=True)
class CutCost:
    """What one cut costs.

    Attributes:
        id: The cut.
        kind: Its kind: strict, open or frontier.
        boundary: The tensors that cross, joined by "+". This is what names a cut from one version
            of a model to the next.
        raw_bytes: Size of these tensors.
        frame_bytes: Size of their frame.
        times: Times of the "whole" model in the same rounds, of the four PHASES, and of their
            "total", which is summed round by round.
        overhead: Median of total / whole - 1 over the rounds.
        overhead_spread: Distance between its quartiles.
        device_peak_bytes: Memory above the bare process, with engine and libraries; 0 if it was not
            measured, which needs fresh processes.
        server_peak_bytes: The same on the server side.
        latency_ns: The total over the link, with device and encoding times the slowdown.
    """

    id: str
    kind: str
    boundary: str
    raw_bytes: int
    frame_bytes: int
    times: dict[str, Timing]
    overhead: float
    overhead_spread: float
    device_peak_bytes: int
    server_peak_bytes: int
    latency_ns: int

    def __post_init__(self) -> None:
        for name in ("whole", *PHASES, "total"):
            if name not in self.times:
                raise ValueError(f"cut '{self.id}' has no time of '{name}'")


@dataclass(frozen=True, slots=True)
class Unsplit:
    """The model without a cut: on the device, or on the server with its inputs sent.

    Attributes:
        name: Where it runs, and how its inputs are coded.
        sent_bytes: Size of the coded inputs.
        latency_ns: Time over the link.
    """

    name: str
    sent_bytes: int
    latency_ns: int


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that `irsplit bench` measured, and under which conditions.

    Attributes:
        irsplit: The version that measured.
        model: Name of the model file.
        digest: Its SHA-256.
        machine: The machine, in words.
        cpus: Its processors.
        engine: The inference engine, with its version.
        conditions: Options by name. Figures under other conditions do not compare.
        whole: Time of the whole model.
        whole_peak_bytes: Its memory; 0 if it was not measured.
        unsplit: The baselines.
        cuts: The cuts that were measured.
        rejected: Reasons by id of the positions that are no legal cuts, if all were asked for.
    """

    irsplit: str
    model: str
    digest: str
    machine: str
    cpus: int
    engine: str
    conditions: dict[str, Any]
    whole: Timing
    whole_peak_bytes: int
    unsplit: tuple[Unsplit, ...]
    cuts: tuple[CutCost, ...]
    rejected: dict[str, str] = field(default_factory=dict[str, str])


def bench_model(
    source: ModelFile | Path | str,
    inputs: Inputs,
    link: Link,
    cuts: str = "legal",
    options: CompileOptions = CompileOptions(),
    *,
    dims: Mapping[str, int] | None = None,
    effort: Effort = Effort(),
    slowdown: float = 1.0,
    calibration: Sequence[Inputs] = (),
    progress: Progress = silent,
) -> Bench:
    """Measure what cuts of a model cost.

    Args:
        source: The model file, or a model that was read.
        inputs: The model's inputs by name. Those that are missing are made up.
        link: The link between device and server.
        cuts: "legal", "all" (which lists the rejected positions too), or ids joined by commas.
        options: How every cut is compiled.
        dims: Sizes of open dimensions of inputs that are made up; by default the first sizes that
            the engine takes.
        effort: How carefully to measure.
        slowdown: How many times slower than this machine the device is.
        calibration: Samples for quantization and for codecs that learn.
        progress: Called before each step.

    Raises:
        CutError: An id is unknown or no legal cut, or there is none at all.
        IrsplitError: Compiling or running fails.
    """
    file = ModelFile.of(source)
    path, whole, infos = file.path, whole_file(file), input_infos(file.model.entry)
    positions = _positions(file, options)
    chosen = _chosen(positions, cuts)
    steps = Steps(progress, 1 + (2 if effort.fresh else 1) * len(chosen))

    # Inputs that are made up must be such that the engine takes them; every cut gets the same.
    steps.begin("whole model")
    timing = (effort.engine, effort.warmup, effort.runs)
    (inputs,), (load, outputs) = first_taken(
        lambda samples: effort.run(measure_part, whole, samples[0], *timing),
        infos,
        1,
        dims=dims,
        given=inputs,
    )
    returned = sum(np.asarray(output).nbytes for output in outputs.values())

    measurement = _CutMeasurement(file, whole, inputs, options, calibration, effort, steps)
    costs: list[CutCost] = []
    for cut in chosen:
        rounds, peaks = measurement.measure(cut)
        costs.append(_cost(cut, rounds, peaks, link, slowdown))

    rejected = [cut for cut in positions if not cut.legal] if cuts == "all" else []

    return Bench(
        irsplit=VERSION,
        model=path.name,
        digest=file_digest(path),
        machine=machine(),
        cpus=os.cpu_count() or 1,
        engine=engine(file.dialect.name, effort.engine),
        conditions={
            "link": link.name,
            "slowdown": slowdown,
            "threads": effort.engine.threads,
            "warmup": effort.warmup,
            "runs": effort.runs,
            "fresh": effort.fresh,
            **_conditions(options),
        },
        whole=Timing(load.wall_ns, load.spread_ns, effort.runs),
        whole_peak_bytes=load.peak_bytes if effort.fresh else 0,
        unsplit=_unsplit(inputs, load, returned, link, slowdown, effort.runs),
        cuts=tuple(costs),
        rejected={cut.id: str(cut.reason) for cut in rejected},
    )


@dataclass(frozen=True, slots=True)
class _CutMeasurement:
    """Compiles a model at one cut after the other, and measures each bundle."""

    file: ModelFile
    whole: SegmentFile
    inputs: Inputs
    options: CompileOptions
    calibration: Sequence[Inputs]
    effort: Effort
    steps: Steps

    def measure(self, cut: Cut) -> tuple[SplitRounds, tuple[int, int]]:
        """Times of a bundle with this cut, and the peak memory of its sides."""
        effort, engine = self.effort, self.effort.engine
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            bundle = Path(folder) / "bundle"
            self.steps.begin(f"cut {cut.id}, rounds")
            compile(
                _unbound(self.file, self.options),
                bundle,
                self.options,
                calibration=self.calibration,
                cuts=[cut.id],
                dims=(),
                report=False,
                remember=False,
            )
            rounds = effort.run(
                measure_split, self.whole, bundle, self.inputs, engine, effort.warmup, effort.runs
            )
            # A peak is that of one process, so each side needs one which did nothing else.
            if not effort.fresh:
                return rounds, (0, 0)

            self.steps.begin(f"cut {cut.id}, memory")
            device_peak = isolated(measure_device, bundle, self.inputs, engine)
            server_peak = isolated(measure_server, bundle, rounds.frame, engine)
            return rounds, (device_peak, server_peak)


def _conditions(options: CompileOptions) -> dict[str, Any]:
    """The options that change the figures, by the names that they have in the JSON form."""
    return {
        "boundary": options.quantize,
        "boundary_ops": options.boundary_ops,
        "agreement_measure": options.agreement_measure,
        "codec": options.codec,
        "max_tensors": options.max_tensors,
        "state": list(options.state),
        "rematerialise": options.rematerialise,
    }


def _unbound(file: ModelFile, options: CompileOptions) -> ModelFile:
    """The model as it was read: a state that is bound changes its graph."""
    return ModelFile.read(file.path) if options.state else file


def _positions(file: ModelFile, options: CompileOptions) -> list[Cut]:
    """Every position of the model, as `irsplit.compile` would see it with these options."""
    file = _unbound(file, options)
    context = prepared(file.model, file.dialect, options.state, rematerialise=options.rematerialise)
    return list(context.cuts(file.model, options.max_tensors))


def _chosen(positions: Sequence[Cut], cuts: str) -> list[Cut]:
    """The cuts to measure. Raises CutError for one that is no legal cut."""
    legal = {cut.id: cut for cut in positions if cut.legal}
    if cuts in ("all", "legal"):
        if not legal:
            raise CutError(
                "the model has no legal cut to measure",
                remedy="see `irsplit.find_cuts`, or allow more with `max_tensors`",
            )

        return list(legal.values())

    ids = cuts.split(",")
    for id in ids:
        if id not in legal:
            reasons = [f": {cut.reason}" for cut in positions if cut.id == id]
            reason = reasons[0] if reasons else ""
            raise CutError(
                f"'{id}' is no legal cut{reason}; give all, legal, or ids of {', '.join(legal)}"
            )

    return [legal[id] for id in ids]


def _cost(
    cut: Cut, rounds: SplitRounds, peaks: tuple[int, int], link: Link, slowdown: float
) -> CutCost:
    """What a cut costs, from the times of its rounds."""
    totals = rounds.totals
    overheads = [total / whole - 1 for total, whole in zip(totals, rounds.whole, strict=True)]
    times = {"whole": Timing.of(rounds.whole)}
    for phase in PHASES:
        times[phase] = Timing.of(getattr(rounds, phase))
    times["total"] = Timing.of(totals)

    device_ns = times["device"].median_ns + times["encode"].median_ns
    server_ns = times["decode"].median_ns + times["server"].median_ns
    link_time_ns = _round_trip_ns(link, len(rounds.frame), rounds.returned_bytes)

    return CutCost(
        id=cut.id,
        kind=cut.kind or "",
        boundary="+".join(value.name for value in cut.tensors),
        raw_bytes=rounds.raw_bytes,
        frame_bytes=len(rounds.frame),
        times=times,
        overhead=round(statistics.median(overheads), 4),
        overhead_spread=round(spread(overheads), 4),
        device_peak_bytes=peaks[0],
        server_peak_bytes=peaks[1],
        latency_ns=round(device_ns * slowdown) + link_time_ns + server_ns,
    )


def _unsplit(
    inputs: Inputs, whole: Load, returned: int, link: Link, slowdown: float, runs: int
) -> tuple[Unsplit, ...]:
    """The model without a cut.

    Args:
        inputs: The model's inputs. If one of them cannot be framed, only the device is a baseline.
        whole: Load of the whole model on this machine.
        returned: Bytes of its outputs.
        link: The link.
        slowdown: How many times slower the device is.
        runs: How often to measure the codecs.
    """
    cases = [Unsplit("device only", 0, round(whole.wall_ns * slowdown))]
    measured: list[tuple[MeasuredTransfer, ...]] = []
    for name, array in inputs.items():
        dtype = from_numpy(array)
        if dtype is None or not dtype.framable:
            return tuple(cases)

        measured.append(measure_codecs(name, str(dtype), [array], runs))

    names = {"raw": "server only, raw input", "zstandard": "server only, compressed input"}
    for codec, name in names.items():
        sent, encode_ns, decode_ns = 0, 0, 0
        for options in measured:
            for option in options:
                if option.codec == codec:
                    sent += option.size_bytes
                    encode_ns += option.encode_ns
                    decode_ns += option.decode_ns

        coding_ns = round(encode_ns * slowdown) + decode_ns
        latency_ns = coding_ns + _round_trip_ns(link, sent, returned) + whole.wall_ns
        cases.append(Unsplit(name, sent, latency_ns))

    return tuple(cases)


def _round_trip_ns(link: Link, sent: int, returned: int) -> int:
    """Time for so many bytes to the server and back."""
    up = link_ns(np.array([sent]), link.up_goodput_bit_s)
    down = link_ns(np.array([returned]), link.down_goodput_bit_s)
    return int(up[0]) + int(down[0]) + link.rtt_ns


def to_json(bench: Bench) -> str:
    """A run as a JSON document."""
    return json.dumps({"format": FORMAT, **asdict(bench)}, indent=1, ensure_ascii=False) + "\n"


def load_bench(path: Path) -> Bench:
    """Read what `to_json` wrote.

    Raises:
        PlanError: The file cannot be read, or is something else.
    """
    with reading(path, "damaged", "measure again with 'irsplit bench'", PlanError):
        data = json.loads(read_text(path))
        if data.pop("format", None) != FORMAT:
            raise PlanError(f"{path}: this is not {FORMAT}; make one with 'irsplit bench'")

        return record(Bench, data)
