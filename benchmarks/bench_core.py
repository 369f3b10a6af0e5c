"""Rates of the C core by path, without Python around it.

    python -m benchmarks.bench_core [--levels 0,1] [--cuts 2] [--repeats 20] [--beside FOLDER]
                                    [--each] [--vectors FILE]

Every path is a build of its own that leaves out the faster ones, `zstd-3` the anchor of the
portable path. `--beside` adds another checkout's core, `--each` a line for every tensor. Training
takes a minute; `--vectors` keeps its result in a file for later runs. Rates are by CPU time of one
thread, the best of many runs, builds interleaved: they hold on a busy machine, too, where they rise
and fall together.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.bench_codec import tensors
from benchmarks.boundaries import network_names
from benchmarks.tables import markdown
from irsplit.codec_training.codec import train
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec

ROOT = Path(__file__).resolve().parents[1]
PATHS = {"AVX2": (), "128-bit": ("-DIRS_NO_AVX2",), "portable": ("-DIRS_PORTABLE",)}
ENOUGH_S = 0.002
"""A call shorter than this is repeated within one measurement."""
REPEATED = """
#include "irs.h"
#ifndef IRS_VERSION
#define irs_schema irs_boundary
#endif
irs_status encode_often(int count, const irs_schema *b, const irs_tensor *source, void *workspace,
                        size_t workspace_size, void *frame, size_t capacity, size_t *size) {
    irs_status status = IRS_OK;
    while (count-- > 0 && status == IRS_OK)
        status = irs_encode(b, NULL, source, workspace, workspace_size, frame, capacity, size);
    return status;
}
irs_status decode_often(int count, const irs_schema *b, const void *frame, size_t size,
                        const irs_tensor *target, void *workspace, size_t workspace_size) {
    irs_status status = IRS_OK;
    while (count-- > 0 && status == IRS_OK)
        status = irs_decode(b, NULL, frame, size, target, workspace, workspace_size);
    return status;
}
"""
"""Calls are repeated in C: one through ctypes costs as much as a frame of 1 KB. Older cores have a
boundary where newer ones have a schema."""


@dataclass(frozen=True)
class Vector:
    """One tensor and the descriptor that was trained for it on other data."""

    name: str
    descriptor: bytes
    tensor: NDArray[np.uint8]


class _Tensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_uint64), ("dims", ctypes.c_uint32 * 8))


@dataclass
class Core:
    """An opened boundary of one build, with the buffers of one frame; `decode` sets `decoded`."""

    library: ctypes.CDLL
    vector: Vector
    decoded: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        size, descriptor = ctypes.c_size_t(), self.vector.descriptor
        opened = "schema" if hasattr(self.library, "irs_schema_open") else "boundary"
        self._call(f"irs_{opened}_size", descriptor, len(descriptor), ctypes.byref(size))
        memory, self._schema = _aligned(size.value), ctypes.c_void_p()
        place = ctypes.byref(self._schema), _place(memory), size
        self._call(f"irs_{opened}_open", *place, descriptor, len(descriptor))
        self.decoded = np.empty_like(self.vector.tensor)
        self._source, self._target = _described(self.vector.tensor), _described(self.decoded)
        bound, scratch = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("irs_frame_bound", self._schema, ctypes.byref(self._source), ctypes.byref(bound))
        self._call(
            "irs_workspace_size", self._schema, ctypes.byref(self._source), ctypes.byref(scratch)
        )
        workspace, self._frame = _aligned(scratch.value), _aligned(bound.value)
        self._workspace, self._size = (_place(workspace), scratch), ctypes.c_size_t()
        self._kept = memory, workspace

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self.library, name)(*arguments)
        assert status == 0, f"{name} answers {status} for {self.vector.name}"

    def encode(self, count: int) -> None:
        frame = _place(self._frame), ctypes.c_size_t(len(self._frame))
        source = ctypes.byref(self._source)
        self._call(
            "encode_often",
            count,
            self._schema,
            source,
            *self._workspace,
            *frame,
            ctypes.byref(self._size),
        )

    def decode(self, count: int) -> None:
        frame = _place(self._frame), self._size
        self._call(
            "decode_often",
            count,
            self._schema,
            *frame,
            ctypes.byref(self._target),
            *self._workspace,
        )

    def frame(self) -> bytes:
        return self._frame[: self._size.value].tobytes()


def _aligned(size: int) -> NDArray[np.uint8]:
    block = np.empty(size + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size]


def _place(array: NDArray[np.uint8]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _described(array: NDArray[np.uint8]) -> _Tensor:
    return _Tensor(array.ctypes.data, array.nbytes, (ctypes.c_uint32 * 8)(*array.shape))


def build(runtime: Path, flags: Sequence[str], target: Path) -> ctypes.CDLL:
    """The core as a shared library, optimised as the extension module is."""
    core = runtime / "c" if (runtime / "c").is_dir() else runtime  # an older checkout
    whole = core / "irs.c"
    sources = [str(whole)] if whole.exists() else map(str, sorted((core / "src").rglob("*.c")))
    options = ("-std=c99", "-O3", "-shared", "-fPIC", f"-I{core / 'include'}")
    command = ["gcc", *options, *flags, *sources, "-x", "c", "-", "-o", str(target)]
    subprocess.run(command, input=REPEATED, text=True, check=True)
    return ctypes.CDLL(str(target))


def trained_vectors(level: int, cuts: int) -> list[Vector]:
    """A test tensor for each boundary of bench_codec.py's 8-bit table, `cuts` of them a network."""
    vectors: list[Vector] = []
    for case in tensors("int8", network_names(), cuts, 1 << 20):
        array = np.ascontiguousarray(case.test[0])
        spec = TensorSpec(case.tensor[:60], "i8" if array.dtype == np.int8 else "u8", array.shape)
        layout = "NCHW" if case.layout == "NCHW" else "NHWC"
        boundary = FrameSchema(
            0, spec.name, (train(case.calibration, spec, layout=layout, level=level),)
        )
        vectors.append(Vector(case.name, boundary.to_bytes(), array.view(np.uint8)))
    return vectors


def kept_vectors(path: Path, levels: Sequence[int], cuts: int) -> dict[int, list[Vector]]:
    """Read from a file, which is made first where it does not exist."""
    if not path.exists():
        made = {level: trained_vectors(level, cuts) for level in levels}
        index = [(level, vector.name) for level, vectors in made.items() for vector in vectors]
        arrays: dict[str, NDArray[np.uint8]] = {}
        for number, vector in enumerate(vector for vectors in made.values() for vector in vectors):
            arrays[f"d{number}"] = np.frombuffer(vector.descriptor, np.uint8)
            arrays[f"t{number}"] = vector.tensor
        header = np.array(json.dumps(index))
        np.savez(path, index=header, **arrays)  # pyright: ignore[reportArgumentType]
    with np.load(path) as file:
        found: dict[int, list[Vector]] = {level: [] for level in levels}
        for number, (level, name) in enumerate(json.loads(str(file["index"]))):
            if level in found:
                found[level].append(Vector(name, file[f"d{number}"].tobytes(), file[f"t{number}"]))
        return found


def often(call: Callable[[], object]) -> Callable[[int], None]:
    def repeated(count: int) -> None:
        for _ in range(count):
            call()

    return repeated


def cpu_s(repeated: Callable[[int], object], count: int) -> float:
    """CPU seconds of one of `count` calls."""
    start = time.thread_time_ns()
    repeated(count)
    return (time.thread_time_ns() - start) / 1e9 / count


def measured(
    vector: Vector, libraries: dict[str, ctypes.CDLL], repeats: int
) -> dict[str, tuple[float, float]]:
    """MB/s of encoding and decoding by build, all frames equal and restored first."""
    cores = {name: Core(library, vector) for name, library in libraries.items()}
    calls: dict[tuple[str, str], Callable[[int], object]] = {}
    frames: set[bytes] = set()
    for name, core in cores.items():
        core.encode(1)
        core.decode(1)
        assert np.array_equal(core.decoded, vector.tensor), f"{name} does not restore {vector.name}"
        frames.add(core.frame())
        calls[name, "encode"], calls[name, "decode"] = core.encode, core.decode
    assert len(frames) == 1, f"frames of {vector.name} differ"
    compressor, decompressor, data = (
        zstandard.ZstdCompressor(3),
        zstandard.ZstdDecompressor(),
        vector.tensor.tobytes(),
    )
    packed = compressor.compress(data)
    calls["zstd-3", "encode"] = often(lambda: compressor.compress(data))
    calls["zstd-3", "decode"] = often(lambda: decompressor.decompress(packed))
    counts = {key: max(1, round(ENOUGH_S / cpu_s(call, 1))) for key, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for key, call in calls.items():
            best[key] = min(best[key], cpu_s(call, counts[key]))
    rate = {key: vector.tensor.nbytes / max(seconds, 1e-9) / 1e6 for key, seconds in best.items()}
    return {name: (rate[name, "encode"], rate[name, "decode"]) for name, _ in calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--levels", default="0,1")
    parser.add_argument("--cuts", type=int, default=2, help="cuts of a network, first to last")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--beside", type=Path, help="another checkout, whose core is measured too")
    parser.add_argument("--each", action="store_true", help="a line for every tensor")
    parser.add_argument(
        "--vectors", type=Path, help="where trained descriptors and tensors are kept (.npz)"
    )
    options = parser.parse_args()
    levels = [int(level) for level in options.levels.split(",")]
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        checkouts = {"": ROOT} | ({"other ": options.beside} if options.beside else {})
        libraries = {
            prefix + name: build(
                root / "runtime", flags, Path(folder) / f"{prefix.strip()}{name}.so"
            )
            for name, flags in PATHS.items()
            for prefix, root in checkouts.items()
        }
        found = kept_vectors(options.vectors or Path(folder) / "vectors.npz", levels, options.cuts)
        for level, vectors in found.items():
            rates = [measured(vector, libraries, options.repeats) for vector in vectors]
            print(f"\nL{level}, {len(vectors)} tensors, geometric means, MB/s of CPU time\n")
            rows = [
                [
                    name,
                    *(
                        f"{statistics.geometric_mean(rate[name][way] for rate in rates):.0f}"
                        for way in (0, 1)
                    ),
                ]
                for name in rates[0]
            ]
            print(markdown(["path", "encode", "decode"], rows), flush=True)
            if options.each:
                cells = [
                    [vector.name, "x".join(map(str, vector.tensor.shape)),
                     *(f"{encode:.0f} {decode:.0f}" for encode, decode in rate.values())]
                    for vector, rate in zip(vectors, rates, strict=True)
                ]  # fmt: skip
                print("\n" + markdown(["tensor", "shape", *rates[0]], cells), flush=True)


if __name__ == "__main__":
    main()
