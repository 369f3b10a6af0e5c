"""Measure what each cut of a model costs on this machine (`irsplit bench`).

Every cut is compiled into a bundle as a user would ship it. One fresh process runs whole model and bundle in turns, so
that the overhead is of rounds which met the same machine; the peak memory of each side comes from another one.

The JSON form `irsplit-bench/1` is the dataclasses here, by field: times in nanoseconds, sizes in bytes, shares of 1.
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
from irsplit.engines.execute import Inputs
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
        return cls(round(statistics.median(values)), round(spread(values)), len(values))


@dataclass(frozen=True, slots=True)
class CutCost:
    """What one cut costs.

    `times` are those of the whole model in the same rounds, of the four PHASES, and of their sum, round by round:
    `whole`, `device`, `encode`, `decode`, `server`, `total`. `overhead` is the median over the rounds of
    total / whole - 1. `latency_ns` is the total over the link, with device and encoding times the slowdown.
    """

    id: str
    kind: str
    boundary: str
    """The tensors that cross, joined by +: what names a cut from one version of a model to the next."""
    raw_bytes: int
    frame_bytes: int
    times: dict[str, Timing]
    overhead: float
    overhead_spread: float
    device_peak_bytes: int
    """Above the bare process, engine and libraries included; 0: not measured, which needs fresh processes."""
    server_peak_bytes: int
    latency_ns: int

    def __post_init__(self) -> None:
        missing = next(
            (name for name in ("whole", *PHASES, "total") if name not in self.times), None
        )
        if missing is not None:
            raise ValueError(f"cut '{self.id}' has no time of '{missing}'")


@dataclass(frozen=True, slots=True)
class Unsplit:
    """The model without a cut: on the device, or on the server with its inputs raw or coded without loss."""

    name: str
    sent_bytes: int
    latency_ns: int


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that `irsplit bench` found, and under which conditions."""

    irsplit: str
    model: str
    digest: str
    machine: str
    cpus: int
    engine: str
    conditions: dict[str, Any]
    """Options by name; figures of other conditions do not compare."""
    whole: Timing
    whole_peak_bytes: int
    unsplit: tuple[Unsplit, ...]
    cuts: tuple[CutCost, ...]
    rejected: dict[str, str] = field(default_factory=dict[str, str])
    """Reasons by id of the positions that are no cuts, when all were asked for."""


def bench_model(
    source: ModelFile | Path | str,
    call: Inputs,
    link: Link,
    wanted: str = "legal",
    options: CompileOptions = CompileOptions(),
    *,
    dims: Mapping[str, int] | None = None,
    effort: Effort = Effort(),
    slowdown: float = 1.0,
    calibration: Sequence[Inputs] = (),
    progress: Progress = silent,
) -> Bench:
    """Measure the `wanted` cuts ("legal", "all", or ids joined by commas) of a model file on the inputs `call`.

    Inputs that it lacks are made up, in sizes that the engine takes unless `dims` says which.
    `options` are those of `irsplit.compile`, for every cut. Raises CutError for an unknown or rejected id, and what
    compiling and running raise.
    """
    file = ModelFile.of(source)
    path, whole, infos = file.path, whole_file(file), input_infos(file.model.entry)
    found = _positions(file, options)
    chosen = _chosen(found, wanted)
    steps = Steps(progress, 1 + (2 if effort.fresh else 1) * len(chosen))
    steps.begin("whole model")
    timing = (effort.engine, effort.warmup, effort.runs)
    (call,), (load, outputs) = first_taken(
        lambda calls: effort.run(measure_part, whole, calls[0], *timing),
        infos,
        1,
        dims=dims,
        given=call,
    )

    def cost(cut: Cut) -> CutCost:
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            bundle = Path(folder) / "bundle"
            steps.begin(f"cut {cut.id}, rounds")
            compile(
                _unbound(file, options),
                bundle,
                options,
                calibration=calibration,
                cuts=[cut.id],
                dims=(),
                report=False,
                remember=False,
            )
            rounds = effort.run(measure_split, whole, bundle, call, *timing)
            peaks = (0, 0)
            if effort.fresh:
                steps.begin(f"cut {cut.id}, memory")
                device_peak = isolated(measure_device, bundle, call, effort.engine)
                peaks = device_peak, isolated(measure_server, bundle, rounds.frame, effort.engine)
        return _cost(cut, rounds, peaks, link, slowdown)

    returned = sum(np.asarray(output).nbytes for output in outputs.values())
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
        unsplit=_unsplit(call, load.wall_ns, returned, link, slowdown, effort.runs),
        cuts=tuple(map(cost, chosen)),
        rejected={cut.id: str(cut.reason) for cut in found if not cut.legal}
        if wanted == "all"
        else {},
    )


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


def _chosen(found: Sequence[Cut], wanted: str) -> list[Cut]:
    legal = {cut.id: cut for cut in found if cut.legal}
    if wanted in ("all", "legal"):
        if not legal:
            raise CutError(
                "the model has no legal cut to measure",
                remedy="see `irsplit.find_cuts`, or allow more with `max_tensors`",
            )
        return list(legal.values())
    ids = wanted.split(",")
    unknown = next((id for id in ids if id not in legal), None)
    if unknown is not None:
        reason = next((f": {cut.reason}" for cut in found if cut.id == unknown), "")
        raise CutError(
            f"'{unknown}' is no legal cut{reason}; give all, legal, or ids of {', '.join(legal)}"
        )
    return [legal[id] for id in ids]


def _cost(
    cut: Cut, rounds: SplitRounds, peaks: tuple[int, int], link: Link, slowdown: float
) -> CutCost:
    totals = rounds.totals
    overheads = [total / whole - 1 for total, whole in zip(totals, rounds.whole, strict=True)]
    walls = {
        "whole": rounds.whole,
        **{phase: getattr(rounds, phase) for phase in PHASES},
        "total": totals,
    }
    times = {name: Timing.of(values) for name, values in walls.items()}
    near = times["device"].median_ns + times["encode"].median_ns
    far = times["decode"].median_ns + times["server"].median_ns
    on_wire = _round_trip(link, len(rounds.frame), rounds.returned_bytes)
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
        latency_ns=round(near * slowdown) + on_wire + far,
    )


def _unsplit(
    call: Inputs, whole_ns: int, returned: int, link: Link, slowdown: float, runs: int
) -> tuple[Unsplit, ...]:
    """Without coded inputs when one of them cannot be framed."""
    found = [Unsplit("device only", 0, round(whole_ns * slowdown))]
    dtypes = {name: from_numpy(array) for name, array in call.items()}
    if not all(dtype is not None and dtype.framable for dtype in dtypes.values()):
        return tuple(found)
    codings = [
        measure_codecs(name, str(dtypes[name]), [array], runs) for name, array in call.items()
    ]
    for name, codec in (
        ("server only, raw input", "raw"),
        ("server only, compressed input", "zstandard"),
    ):
        ways = [way for coding in codings for way in coding if way.codec == codec]
        sent = sum(way.size_bytes for way in ways)
        coding_ns = round(sum(way.encode_ns for way in ways) * slowdown) + sum(
            way.decode_ns for way in ways
        )
        found.append(Unsplit(name, sent, coding_ns + _round_trip(link, sent, returned) + whole_ns))
    return tuple(found)


def _round_trip(link: Link, sent: int, returned: int) -> int:
    up = link_ns(np.array([sent]), link.up_goodput_bit_s)
    down = link_ns(np.array([returned]), link.down_goodput_bit_s)
    return int(up[0]) + int(down[0]) + link.rtt_ns


def to_json(bench: Bench) -> str:
    return json.dumps({"format": FORMAT, **asdict(bench)}, indent=1, ensure_ascii=False) + "\n"


def load_bench(path: Path) -> Bench:
    """Read what `to_json` wrote. Raises PlanError naming the file and what is wrong with it."""
    with reading(path, "damaged", "measure again with 'irsplit bench'", PlanError):
        data = json.loads(read_text(path))
        if data.pop("format", None) != FORMAT:
            raise PlanError(
                f"{path}: this is not {FORMAT}; make one with 'irsplit bench MODEL --json {path}'"
            )
        return record(Bench, data)
