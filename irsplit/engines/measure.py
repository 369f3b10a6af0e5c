"""Measure parts of models, codecs on a tensor, and a bundle against the whole; meant for `isolated`, so that memory is
that of one process which did nothing else.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.engines.execute import Inputs, MeasurablePart, SegmentFile
from irsplit.profiles.measured import Load, MeasuredTransfer
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec, zstandard_parameters
from irsplit.runtime.run.engines import EngineOptions, open_engine
from irsplit.runtime.run.session import DeviceSession, LocalSession, ServerSession
from irsplit.runtime.run.state import StateValues

_LONGEST_NS = 1_000_000_000  # a part is measured for about this long at most
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

PARAMETERS: dict[str, bytes] = {"raw": b"", "zstandard": zstandard_parameters(3)}


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one part in one process: wall and CPU times in nanoseconds, peak memory above the bare process, and the
    bytes of what came out."""

    walls: list[int]
    cpus: list[int]
    peak_bytes: int
    output_bytes: int


def load_of(sweeps: Sequence[Runs]) -> Load:
    """Medians and spread over all runs; memory is that of the first process, which had loaded nothing before."""
    walls = [wall for runs in sweeps for wall in runs.walls]
    cpus = [cpu for runs in sweeps for cpu in runs.cpus]
    return Load(
        wall_ns=round(statistics.median(walls)),
        cpu_ns=round(statistics.median(cpus)),
        peak_bytes=sweeps[0].peak_bytes,
        output_bytes=sweeps[0].output_bytes,
        spread_ns=round(spread(walls)),
    )


def measure_part(
    part: MeasurablePart, call: Inputs, options: EngineOptions, warmup: int, runs: int
) -> tuple[Load, dict[str, Any]]:
    """Load of one part, and its outputs by name."""
    measured, outputs = run_part(part, call, options, warmup, runs)
    return load_of([measured]), outputs


def rerun_part(
    part: MeasurablePart, call: Inputs, options: EngineOptions, warmup: int, runs: int, sweeps: int
) -> Runs:
    """What `run_part` measures, without the outputs."""
    return run_part(part, call, options, warmup, runs, sweeps)[0]


def run_part(
    part: MeasurablePart,
    call: Inputs,
    options: EngineOptions,
    warmup: int,
    runs: int,
    sweeps: int = 1,
) -> tuple[Runs, dict[str, Any]]:
    """Open a part and run it, and its outputs by name; of several `sweeps`, each has its share of the time."""
    _reset_peak()
    before = _resident("VmRSS")
    engine = part.open(options)
    inputs = [call[name] for name in part.inputs]
    outputs = engine.run(inputs)
    begun = time.perf_counter_ns()
    for _ in range(warmup - 1):
        if sweeps * (time.perf_counter_ns() - begun) < _LONGEST_NS:
            engine.run(inputs)
    walls: list[int] = []
    cpus: list[int] = []
    while _go_on(walls, runs, sweeps):
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        engine.run(inputs)
        walls.append(time.perf_counter_ns() - wall)
        cpus.append(time.process_time_ns() - cpu)
    peak = max(0, _resident("VmHWM") - before)
    size = sum(np.asarray(output).nbytes for output in outputs)
    return Runs(walls, cpus, peak, size), dict(zip(part.outputs, outputs, strict=True))


@dataclass(frozen=True, slots=True)
class SplitRounds:
    """Wall times of a bundle's phases and of the whole model, in nanoseconds, a round each; what crossed and came out.

    `totals` are the sums of the phases by round.
    """

    whole: list[int]
    device: list[int]
    encode: list[int]
    decode: list[int]
    server: list[int]
    frame: bytes
    raw_bytes: int
    returned_bytes: int
    """Of the results that the server gives."""

    @property
    def totals(self) -> list[int]:
        return [
            sum(phases)
            for phases in zip(self.device, self.encode, self.decode, self.server, strict=True)
        ]


def measure_split(
    whole: SegmentFile, bundle: Path, call: Inputs, options: EngineOptions, warmup: int, runs: int
) -> SplitRounds:
    """A bundle with one cut against the whole model, in turns: whoever goes first in one round is last in the next."""
    engine = open_engine(whole.path, whole.format, options)
    session = LocalSession(bundle, options)
    boundary = session.boundaries[0]
    state = StateValues([info for segment in session.manifest.segments for info in segment.state])
    fed = [{**call, **state.values}[name] for name in whole.inputs]
    walls: list[int] = []
    found: list[tuple[int, ...]] = []
    frame, sent, results = b"", dict[str, Any](), dict[str, Any]()

    def run_whole() -> int:
        start = time.perf_counter_ns()
        engine.run(fed)
        return time.perf_counter_ns() - start

    for turn in range(-warmup, runs):
        if turn > 0 and not _go_on(walls, runs):
            break
        first = run_whole() if turn % 2 else 0
        marks = [time.perf_counter_ns()]
        sent = {**call, **session.run_segment(0, call)}
        marks.append(time.perf_counter_ns())
        frame = framing.encode(boundary, [sent[spec.name] for spec in boundary.tensors])
        marks.append(time.perf_counter_ns())
        arrays = framing.decode(boundary, frame)
        marks.append(time.perf_counter_ns())
        received = {spec.name: array for spec, array in zip(boundary.tensors, arrays, strict=True)}
        results = {**received, **session.run_segment(1, received)}
        marks.append(time.perf_counter_ns())
        round_ = (first or run_whole(), *(after - before for before, after in pairwise(marks)))
        if turn >= 0:
            found.append(round_)
            walls.append(sum(round_))
    returned = session.manifest.segments[1].results
    return SplitRounds(
        *map(list, zip(*found, strict=True)),
        frame=frame,
        raw_bytes=sum(np.asarray(sent[spec.name]).nbytes for spec in boundary.tensors),
        returned_bytes=sum(np.asarray(results[name]).nbytes for name in returned),
    )


def measure_device(bundle: Path, call: Inputs, options: EngineOptions) -> int:
    """Peak memory of the device's side: its engine, and the codec on what it sends."""
    _reset_peak()
    before = _resident("VmRSS")
    session = DeviceSession(bundle, options)
    for _ in range(2):
        session.start(call)
    return max(0, _resident("VmHWM") - before)


def measure_server(bundle: Path, frame: bytes, options: EngineOptions) -> int:
    """Peak memory of the server's side, resuming from a frame."""
    _reset_peak()
    before = _resident("VmRSS")
    session = ServerSession(bundle, options)
    for _ in range(2):
        session.resume(frame)
    return max(0, _resident("VmHWM") - before)


def measure_codecs(
    name: str, dtype: str, arrays: Sequence[NDArray[Any]], runs: int
) -> tuple[MeasuredTransfer, ...]:
    """Every codec on samples of one tensor: mean size of a frame, median times."""
    shape = (None,) * arrays[0].ndim
    specs = (
        TensorSpec(name, dtype, shape, None, codec, parameters)
        for codec, parameters in PARAMETERS.items()
    )
    return tuple(measure_coding(spec, arrays, runs) for spec in specs)


def measure_coding(spec: TensorSpec, arrays: Sequence[NDArray[Any]], runs: int) -> MeasuredTransfer:
    """Samples of a tensor as its boundary describes it, quantization included."""
    boundary = FrameSchema(0, spec.name, (spec,), bytes(32))
    frames = [framing.encode(boundary, [array]) for array in arrays]
    encode = _median_ns(lambda: framing.encode(boundary, [arrays[0]]), runs)
    decode = _median_ns(lambda: framing.decode(boundary, frames[0]), runs)
    bits = spec.quantization.bits if spec.quantization is not None else 0
    return MeasuredTransfer(spec.codec, sum(map(len, frames)) // len(frames), encode, decode, bits)


def spread(values: Sequence[float]) -> float:
    """Distance between the quartiles."""
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [0, 0, 0]
    return quartiles[2] - quartiles[0]


def _go_on(walls: Sequence[int], runs: int, sweeps: int = 1) -> bool:
    """Whether another run is wanted: three at least in all sweeps, then until there are enough or they took long."""
    return len(walls) < runs and (sweeps * len(walls) < 3 or sweeps * sum(walls) < _LONGEST_NS)


def _median_ns(call: Callable[[], object], runs: int) -> int:
    call()
    times: list[int] = []
    while len(times) < runs and (len(times) < 3 or sum(times) < _LONGEST_NS // 4):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return round(statistics.median(times))


def _reset_peak() -> None:
    """Let the kernel's high-water mark of this process begin anew, where it offers that."""
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")


def _resident(field: str) -> int:
    """A size from the kernel's account of this process, in bytes; 0 where there is none."""
    if not _STATUS.exists():
        return 0
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
