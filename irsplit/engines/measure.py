"""Measure parts of a model, codecs on a tensor, and a bundle against the whole model.

These functions are meant for `isolated`: peak memory is then that of a process that did nothing
else before.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.engines.execute import Inputs, MeasurablePart, SegmentFile
from irsplit.profiles.measured import Load, MeasuredTransfer
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec, zstandard_parameters
from irsplit.runtime.run.engines import Engine, EngineOptions, open_engine
from irsplit.runtime.run.session import DeviceSession, LocalSession, ServerSession
from irsplit.runtime.run.state import StateValues

_LONGEST_NS = 1_000_000_000
"""A part is measured for about this long at most."""

_FEWEST_RUNS = 3
"""So many runs are made however long they take."""

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

PARAMETERS: dict[str, bytes] = {"raw": b"", "zstandard": zstandard_parameters(3)}
"""Codecs that need no training, with the parameters to measure them with."""


# -- one part -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one part in one process.

    Args:
        walls: Wall time of each run in nanoseconds.
        cpus: CPU time of each run in nanoseconds.
        peak_bytes: Peak memory beyond that of the bare process.
        output_bytes: Size of all outputs of one run.
    """

    walls: list[int]
    cpus: list[int]
    peak_bytes: int
    output_bytes: int


def load_of(sweeps: Sequence[Runs]) -> Load:
    """Summarise the runs of one part in several processes.

    Times are medians over all runs, with the distance between the quartiles as spread. Memory is
    that of the first process, which had loaded nothing before.
    """
    walls: list[int] = []
    cpus: list[int] = []
    for runs in sweeps:
        walls += runs.walls
        cpus += runs.cpus

    return Load(
        wall_ns=round(statistics.median(walls)),
        cpu_ns=round(statistics.median(cpus)),
        peak_bytes=sweeps[0].peak_bytes,
        output_bytes=sweeps[0].output_bytes,
        spread_ns=round(spread(walls)),
    )


def measure_part(
    part: MeasurablePart, inputs: Inputs, options: EngineOptions, warmup: int, runs: int
) -> tuple[Load, dict[str, Any]]:
    """Measure one part in this process.

    Returns:
        Its load, and its outputs by name.
    """
    measured, outputs = run_part(part, inputs, options, warmup, runs)
    return load_of([measured]), outputs


def rerun_part(
    part: MeasurablePart,
    inputs: Inputs,
    options: EngineOptions,
    warmup: int,
    runs: int,
    sweeps: int,
) -> Runs:
    """Measure one part as `run_part` does, without returning the outputs."""
    return run_part(part, inputs, options, warmup, runs, sweeps)[0]


def run_part(
    part: MeasurablePart,
    inputs: Inputs,
    options: EngineOptions,
    warmup: int,
    runs: int,
    sweeps: int = 1,
) -> tuple[Runs, dict[str, Any]]:
    """Open a part and run it several times.

    Args:
        part: What to run.
        inputs: Its inputs by name; others are ignored.
        options: Options of the engine.
        warmup: Runs before the first that counts.
        runs: Most runs that count. There are fewer when they take long, but at least three.
        sweeps: Number of processes that share the time of this part.

    Returns:
        The runs, and the outputs of the part by name.
    """
    _reset_peak()
    before = _resident("VmRSS")
    engine = part.open(options)
    arrays = [inputs[name] for name in part.inputs]

    # The first run allocates memory and may compile kernels: it is not limited in time.
    outputs = engine.run(arrays)
    begin = time.perf_counter_ns()
    for _ in range(warmup - 1):
        if sweeps * (time.perf_counter_ns() - begin) < _LONGEST_NS:
            engine.run(arrays)

    walls: list[int] = []
    cpus: list[int] = []
    while _needs_run(walls, runs, sweeps):
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        engine.run(arrays)
        walls.append(time.perf_counter_ns() - wall)
        cpus.append(time.process_time_ns() - cpu)

    peak = max(0, _resident("VmHWM") - before)
    size = sum(np.asarray(output).nbytes for output in outputs)
    return Runs(walls, cpus, peak, size), dict(zip(part.outputs, outputs, strict=True))


# -- a bundle against the whole model -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SplitRounds:
    """Rounds in which a bundle and the whole model ran in turns.

    The lists hold one wall time per round, in nanoseconds: of the whole model, and of the phases
    of the bundle.

    Args:
        whole: The whole model.
        device: The device's segment.
        encode: Making the frame.
        decode: Reading the frame.
        server: The server's segment.
        frame: The frame of the last round.
        raw_bytes: Size of the sent tensors in memory.
        returned_bytes: Size of the results that the server returns.
    """

    whole: list[int]
    device: list[int]
    encode: list[int]
    decode: list[int]
    server: list[int]
    frame: bytes
    raw_bytes: int
    returned_bytes: int

    @property
    def totals(self) -> list[int]:
        """Sum of the bundle's phases in each round."""
        phases = zip(self.device, self.encode, self.decode, self.server, strict=True)
        return [sum(times) for times in phases]


@dataclass(slots=True)
class _SplitRun:
    """A bundle with one cut that is run phase by phase, and what the last run left."""

    session: LocalSession
    frame: bytes = b""
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    results: dict[str, Any] = field(default_factory=dict[str, Any])

    def run(self, inputs: Inputs) -> tuple[int, int, int, int]:
        """Run once. Returns the nanoseconds of device, encode, decode and server."""
        schema = self.session.boundaries[0]
        start = time.perf_counter_ns()
        self.sent = {**inputs, **self.session.run_segment(0, inputs)}
        computed = time.perf_counter_ns()

        self.frame = framing.encode(schema, [self.sent[spec.name] for spec in schema.tensors])
        encoded = time.perf_counter_ns()

        arrays = framing.decode(schema, self.frame)
        decoded = time.perf_counter_ns()

        received = {spec.name: array for spec, array in zip(schema.tensors, arrays, strict=True)}
        self.results = {**received, **self.session.run_segment(1, received)}
        resumed = time.perf_counter_ns()
        return computed - start, encoded - computed, decoded - encoded, resumed - decoded

    def raw_bytes(self) -> int:
        """Size of the sent tensors in memory."""
        tensors = self.session.boundaries[0].tensors
        return sum(np.asarray(self.sent[spec.name]).nbytes for spec in tensors)

    def returned_bytes(self) -> int:
        """Size of the results that the server returns."""
        names = self.session.manifest.segments[1].results
        return sum(np.asarray(self.results[name]).nbytes for name in names)


def measure_split(
    whole: SegmentFile, bundle: Path, inputs: Inputs, options: EngineOptions, warmup: int, runs: int
) -> SplitRounds:
    """Measure a bundle with one cut against the whole model, both in this process.

    The two take turns, so that both see the same load of the machine. The one that goes first in
    one round goes last in the next, so that neither always finds the other's data in the caches.

    Args:
        whole: The whole model.
        bundle: Folder of the bundle.
        inputs: Inputs of one inference by name, without state.
        options: Options of the engines.
        warmup: Rounds before the first that counts.
        runs: Most rounds that count.
    """
    engine = open_engine(whole.path, whole.format, options)
    split = _SplitRun(LocalSession(bundle, options))
    state = StateValues(
        [info for segment in split.session.manifest.segments for info in segment.state]
    )
    values = {**inputs, **state.values}
    arrays = [values[name] for name in whole.inputs]

    walls: list[int] = []
    wholes: list[int] = []
    phases: list[tuple[int, int, int, int]] = []
    for turn in range(-warmup, runs):
        if turn > 0 and not _needs_run(walls, runs):
            break
        # Whoever goes first in this round goes last in the next.
        if turn % 2:
            whole_ns = _run_ns(engine, arrays)
            phases_ns = split.run(inputs)
        else:
            phases_ns = split.run(inputs)
            whole_ns = _run_ns(engine, arrays)
        if turn >= 0:
            wholes.append(whole_ns)
            phases.append(phases_ns)
            walls.append(whole_ns + sum(phases_ns))

    device, encode, decode, server = map(list, zip(*phases, strict=True))
    return SplitRounds(
        wholes,
        device,
        encode,
        decode,
        server,
        frame=split.frame,
        raw_bytes=split.raw_bytes(),
        returned_bytes=split.returned_bytes(),
    )


def _run_ns(engine: Engine, arrays: Sequence[NDArray[Any]]) -> int:
    """Wall time of one run of an engine, in nanoseconds."""
    start = time.perf_counter_ns()
    engine.run(arrays)
    return time.perf_counter_ns() - start


def measure_device(bundle: Path, inputs: Inputs, options: EngineOptions) -> int:
    """Peak memory of the device side in bytes: its engine, and the codec on what it sends."""
    _reset_peak()
    before = _resident("VmRSS")
    session = DeviceSession(bundle, options)
    # The second run takes what an engine allocates only once it has seen the first.
    for _ in range(2):
        session.start(inputs)
    return max(0, _resident("VmHWM") - before)


def measure_server(bundle: Path, frame: bytes, options: EngineOptions) -> int:
    """Peak memory of the server side in bytes, resuming from a frame."""
    _reset_peak()
    before = _resident("VmRSS")
    session = ServerSession(bundle, options)
    # The second run takes what an engine allocates only once it has seen the first.
    for _ in range(2):
        session.resume(frame)
    return max(0, _resident("VmHWM") - before)


# -- codecs ---------------------------------------------------------------------------------------


def measure_codecs(
    name: str, dtype: str, arrays: Sequence[NDArray[Any]], runs: int
) -> tuple[MeasuredTransfer, ...]:
    """Measure all codecs in `PARAMETERS` on samples of one tensor.

    Args:
        name: Name of the tensor.
        dtype: The IR's name of its element type.
        arrays: Samples of the tensor.
        runs: Most timed runs of each codec.

    Returns:
        For each codec the mean size of a frame, and median times to encode and decode it.
    """
    shape = (None,) * arrays[0].ndim
    transfers: list[MeasuredTransfer] = []
    for codec, parameters in PARAMETERS.items():
        spec = TensorSpec(name, dtype, shape, None, codec, parameters)
        transfers.append(measure_coding(spec, arrays, runs))
    return tuple(transfers)


def measure_coding(spec: TensorSpec, arrays: Sequence[NDArray[Any]], runs: int) -> MeasuredTransfer:
    """Measure one codec on samples of a tensor, with the quantization that its schema has."""
    schema = FrameSchema(0, spec.name, (spec,), bytes(32))
    frames = [framing.encode(schema, [array]) for array in arrays]
    encode_ns = _median_ns(lambda: framing.encode(schema, [arrays[0]]), runs)
    decode_ns = _median_ns(lambda: framing.decode(schema, frames[0]), runs)

    mean_bytes = sum(map(len, frames)) // len(frames)
    bits = spec.quantization.bits if spec.quantization is not None else 0
    return MeasuredTransfer(spec.codec, mean_bytes, encode_ns, decode_ns, bits)


# -- times and memory -----------------------------------------------------------------------------


def spread(values: Sequence[float]) -> float:
    """Distance between the quartiles; 0 for fewer than two values."""
    if len(values) < 2:
        return 0
    quartiles = statistics.quantiles(values, n=4)
    return quartiles[2] - quartiles[0]


def _needs_run(walls: Sequence[int], runs: int, sweeps: int = 1) -> bool:
    """Whether to run again: there are too few runs in all sweeps, or there is time for more."""
    if len(walls) >= runs:
        return False
    return sweeps * len(walls) < _FEWEST_RUNS or sweeps * sum(walls) < _LONGEST_NS


def _median_ns(function: Callable[[], object], runs: int) -> int:
    """Median wall time of a function in nanoseconds, after one call that does not count."""
    function()
    times: list[int] = []
    while len(times) < runs and (len(times) < _FEWEST_RUNS or sum(times) < _LONGEST_NS // 4):
        start = time.perf_counter_ns()
        function()
        times.append(time.perf_counter_ns() - start)
    return round(statistics.median(times))


def _reset_peak() -> None:
    """Restart the kernel's high-water mark of this process's memory, where the kernel allows it."""
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")


def _resident(entry: str) -> int:
    """A size from the kernel's account of this process, in bytes; 0 where there is none."""
    if not _STATUS.exists():
        return 0
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024
