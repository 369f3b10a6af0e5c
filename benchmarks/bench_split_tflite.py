"""What it costs to split a TFLite model, against copying its bytes and rewriting it as objects.

    python -m benchmarks.bench_split_tflite [--json] [--rounds 7] [--layers 24]

Two models are made: a large one of few tensors (24 layers of 4 MB: the cost is that of bytes) and a
small one of many (90 layers, 180 buffers, 4 MB: the cost is that of tables). Each is cut in the
middle into two saved files.

* `irsplit`: read, schedule, partition, write both halves.
* `cp`: copy the file, as `shutil.copyfile` does: the bytes that any splitter has to move.
* `objects`: LiteRT's object API: unpack the file, keep half of the operators twice, renumber, pack.

Before anything is timed, the halves of `irsplit` are run in sequence and must give the bits of the
whole model. Times are of this process after imports, interleaved; peak memory is of a fresh process
that does this one thing, its imports included.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from benchmarks.tflite_split import PLACES, peak_bytes, split_with_irsplit
from irsplit.dialects.tflite.builder import Builder, Edit, Payload, new
from irsplit.dialects.tflite.file import write_file
from irsplit.dialects.tflite.operators import NUMBERS
from irsplit.ir import Constant

ROOT = Path(__file__).parent.parent
SEED = 7


@dataclass(frozen=True)
class Case:
    """A chain of fully connected layers of `width` x `width` float weights and a bias each."""

    name: str
    layers: int
    width: int


def make_model(case: Case, path: Path) -> None:
    """Write the model of a case; its weights are seeded noise that keeps activations in range."""
    generator = np.random.default_rng(SEED)
    tensors = [_tensor("x", [1, case.width], 0)]
    buffers = [new("Buffer")]
    operators: list[Edit] = []
    for layer in range(case.layers):
        weights = generator.standard_normal((case.width, case.width), np.float32) / np.float32(
            case.width**0.5
        )
        bias = generator.standard_normal(case.width, np.float32)
        for name, values in (("weights", weights), ("bias", bias)):
            buffers.append(new("Buffer", data=Payload(Constant.of(values.tobytes()))))
            tensors.append(_tensor(f"layer{layer}/{name}", list(values.shape), len(buffers) - 1))
        tensors.append(_tensor(f"layer{layer}", [1, case.width], 0))
        result = len(tensors) - 1
        options = new("FullyConnectedOptions", keep_num_dims=True)
        operators.append(
            new(
                "Operator",
                inputs=[result - 3, result - 2, result - 1],
                outputs=[result],
                builtin_options_type=schema.BuiltinOptions.FullyConnectedOptions,
                builtin_options=options,
            )
        )
    number = NUMBERS["FULLY_CONNECTED"]
    model = new(
        "Model",
        version=3,
        operator_codes=[
            new("OperatorCode", deprecated_builtin_code=number, builtin_code=number, version=5)
        ],
        subgraphs=[
            new(
                "SubGraph",
                tensors=tensors,
                inputs=[0],
                outputs=[len(tensors) - 1],
                operators=operators,
            )
        ],
        buffers=buffers,
    )
    builder = Builder(model, b"TFL3")
    write_file(path, builder.out, builder.placed)


def _tensor(name: str, shape: list[int], buffer: int) -> Edit:
    return new("Tensor", name=name, shape=shape, buffer=buffer, has_rank=True)


def split_with_objects(source: Path, folder: Path) -> list[Path]:
    """The same cut through LiteRT's objects, for a chain: both halves of the operators."""
    written: list[Path] = []
    model: Any
    for half, name in enumerate(PLACES):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes(), 0))
        graph = model.subgraphs[0]
        middle = len(graph.operators) // 2
        graph.operators = graph.operators[middle:] if half else graph.operators[:middle]
        used = sorted(
            {int(index) for item in graph.operators for index in (*item.inputs, *item.outputs)}
        )
        numbers = {old: number for number, old in enumerate(used)}
        graph.tensors = [graph.tensors[index] for index in used]
        kept = sorted({0, *(tensor.buffer for tensor in graph.tensors)})
        model.buffers = [model.buffers[index] for index in kept]
        for tensor in graph.tensors:
            tensor.buffer = kept.index(tensor.buffer)
        for item in graph.operators:
            item.inputs = np.array([numbers[int(index)] for index in item.inputs], np.int32)
            item.outputs = np.array([numbers[int(index)] for index in item.outputs], np.int32)
        graph.inputs = graph.operators[0].inputs[:1]
        graph.outputs = graph.operators[-1].outputs
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        written.append(folder / f"{name}.tflite")
        written[-1].write_bytes(builder.Output())
    return written


def copy(source: Path, folder: Path) -> list[Path]:
    return [Path(shutil.copyfile(source, folder / "copy.tflite"))]


METHODS: dict[str, Callable[[Path, Path], list[Path]]] = {
    "irsplit": split_with_irsplit,
    "cp": copy,
    "objects": split_with_objects,
}


def run(paths: list[Path], width: int) -> bytes:
    """The bits that a chain of model files makes of a seeded input: one thread, no delegates."""
    value = np.random.default_rng(SEED).standard_normal((1, width), np.float32)
    for path in paths:
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        engine = Interpreter(str(path), experimental_op_resolver_type=plain, num_threads=1)
        engine.allocate_tensors()
        engine.set_tensor(engine.get_input_details()[0]["index"], value)
        engine.invoke()
        value = engine.get_tensor(engine.get_output_details()[0]["index"])
    return value.tobytes()


def seconds(method: str, source: Path, folder: Path) -> float:
    """Time of one split into a new folder: some file systems wait when a file is replaced."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        start = time.perf_counter()
        METHODS[method](source, Path(fresh))
        return time.perf_counter() - start


def peak_of(method: str, source: Path, folder: Path) -> int:
    """Peak resident memory, in bytes, of a fresh process that imports what it needs and does it."""
    words = ["tflite_split"] if method == "irsplit" else ["bench_split_tflite", "--only", method]
    command = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
    command += [str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout)


def measure(case: Case, rounds: int, folder: Path) -> dict[str, Any]:
    source = folder / f"{case.name}.tflite"
    make_model(case, source)
    whole = run([source], case.width)
    for method in ("irsplit", "objects"):
        if run(METHODS[method](source, folder), case.width) != whole:
            sys.exit(f"error: the halves of {method} are not the whole model")
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method in METHODS:
            times[method].append(seconds(method, source, folder))
    rows: dict[str, Any] = {}
    for method, taken in times.items():
        ordered = sorted(taken)
        rows[method] = {
            "median_s": statistics.median(ordered),
            "spread_s": [ordered[0], ordered[-1]],
            "times_cp": statistics.median(a / b for a, b in zip(taken, times["cp"], strict=True)),
            "peak_mb": None if method == "cp" else peak_of(method, source, folder) / 1e6,
        }
    size = source.stat().st_size
    return {"case": case.name, "size_mb": size / 1e6, "layers": case.layers, "methods": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=24, help="layers of 4 MB in the large model")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        method, source, folder = options.only
        METHODS[method](Path(source), Path(folder))
        print(peak_bytes())
        return
    cases = [Case("large", options.layers, 1024), Case("small", 90, 104)]
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(case, options.rounds, Path(folder)) for case in cases]
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "rounds": options.rounds,
        **{name: version(name) for name in ("flatbuffers", "ai-edge-litert", "numpy")},
    }
    if options.json:
        print(json.dumps({"machine": machine, "results": results}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for result in results:
        print(f"\n{result['case']}: {result['size_mb']:.1f} MB, {result['layers']} layers")
        print(f"{'':10}{'median ms':>11}{'min':>9}{'max':>9}{'x cp':>8}{'peak MB':>10}")
        for method, row in result["methods"].items():
            low, high = row["spread_s"]
            print(f"{method:10}{1e3 * row['median_s']:11.1f}{1e3 * low:9.1f}{1e3 * high:9.1f}"
                  f"{row['times_cp']:8.2f}{row['peak_mb'] or 0:10.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
