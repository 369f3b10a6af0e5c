"""Measure one part of a model in a process of its own: time, CPU, peak memory, output bytes; and codecs on a tensor."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.engines.execute import Call, SegmentFile
from irsplit.profiles.measured import Coding, Load
from irsplit.runtime import frame as framing
from irsplit.runtime.boundary import Boundary, TensorSpec, zstandard_parameters
from irsplit.runtime.engines import EngineOptions, open_engine

_LONGEST_NS = 1_000_000_000  # a part is measured for about this long at most
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

PARAMETERS: dict[str, bytes] = {"raw": b"", "zstandard": zstandard_parameters(3)}


def measure_part(
    file: SegmentFile, call: Call, options: EngineOptions, warmup: int, runs: int
) -> tuple[Load, dict[str, Any]]:
    """Load of one part, and its outputs by name; meant for `isolated`, so that memory is the part's alone."""
    _reset_peak()
    before = _resident("VmRSS")
    engine = open_engine(file.path, file.format, options)
    inputs = [call[name] for name in file.inputs]
    outputs = engine.run(inputs)
    for _ in range(warmup - 1):
        engine.run(inputs)
    walls: list[int] = []
    cpus: list[int] = []
    while len(walls) < runs and (len(walls) < 3 or sum(walls) < _LONGEST_NS):
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        engine.run(inputs)
        walls.append(time.perf_counter_ns() - wall)
        cpus.append(time.process_time_ns() - cpu)
    size = sum(np.asarray(output).nbytes for output in outputs)
    quartiles = statistics.quantiles(walls, n=4) if len(walls) > 1 else [0, 0, 0]
    load = Load(
        wall_ns=round(statistics.median(walls)),
        cpu_ns=round(statistics.median(cpus)),
        peak_bytes=max(0, _resident("VmHWM") - before),
        output_bytes=size,
        spread_ns=round(quartiles[2] - quartiles[0]),
    )
    return load, dict(zip(file.outputs, outputs, strict=True))


def measure_codecs(name: str, dtype: str, arrays: Sequence[NDArray[Any]], runs: int) -> tuple[Coding, ...]:
    """Every codec on samples of one tensor: mean size of a frame, median times."""
    found: list[Coding] = []
    for codec, parameters in PARAMETERS.items():
        spec = TensorSpec(name, dtype, (None,) * arrays[0].ndim, None, codec, parameters)
        boundary = Boundary(0, name, (spec,), bytes(32))
        frames = [framing.encode(boundary, [array]) for array in arrays]
        encode = _median_ns(lambda b=boundary: framing.encode(b, [arrays[0]]), runs)
        decode = _median_ns(lambda b=boundary, f=frames[0]: framing.decode(b, f), runs)
        found.append(Coding(codec, sum(map(len, frames)) // len(frames), encode, decode))
    return tuple(found)


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
