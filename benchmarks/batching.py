"""CPU time of a frame, run alone and together with frames of other requests.

    python -m benchmarks.batching [--json]

One engine thread, no network; alone and together are interleaved.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import irsplit
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.serving.protocol.messages import (
    InferRequest,
    ServiceError,
    frame_tensor,
    to_array,
)
from irsplit.runtime.serving.server.served import Limits, ServedBundle

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
TOGETHER = (4, 16)
ROUNDS = 15
LAYERS, WIDTH = 4, 1024


def dense(folder: Path) -> Path:
    """A model whose server half is four dense layers: 16.8 MB of weights, all read in every run."""
    random = np.random.default_rng(0)
    names = ["cut", *(f"h{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("Relu", ["x"], ["cut"])]
    weights: list[Any] = []
    for layer in range(LAYERS):
        values = random.standard_normal((WIDTH, WIDTH), np.float32) / np.sqrt(WIDTH)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "dense.onnx")
    return folder / "dense.onnx"


def requests_of(bundle: Path, name: str, shape: tuple[int, ...], count: int) -> list[InferRequest]:
    device, random = irsplit.DeviceSession(bundle), np.random.default_rng(1)
    frames = [device.start({name: random.random(shape, np.float32)}) for _ in range(count)]
    return [
        InferRequest("model", "", [frame_tensor(frame)], str(index))
        for index, frame in enumerate(frames)
    ]


def cpu_s(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(bundle: Path, name: str, shape: tuple[int, ...]) -> dict[str, float]:
    """Milliseconds of CPU a frame, ratios to alone, and the largest difference of both ways."""
    served = ServedBundle(Manifest.load(bundle), "model", Limits(), EngineOptions(threads=1))
    reasons = served.allow_batches()
    assert not reasons, reasons
    requests = requests_of(bundle, name, shape, max(TOGETHER))
    expected = [to_array(served.infer(request).outputs[0]) for request in requests]
    found: dict[str, float] = {}
    for count in TOGETHER:
        some = requests[:count]
        different = 0.0
        for answer, wanted in zip(served.infer_together(some), expected, strict=False):
            assert not isinstance(answer, ServiceError)
            different = max(different, float(np.max(np.abs(to_array(answer.outputs[0]) - wanted))))
        alone: list[float] = []
        together: list[float] = []
        for _ in range(ROUNDS):
            alone.append(cpu_s(lambda some=some: [served.infer(request) for request in some]))
            together.append(cpu_s(lambda some=some: served.infer_together(some)))
        found["alone, ms"] = 1000 * statistics.median(alone) / count
        found[f"{count} together, ms"] = 1000 * statistics.median(together) / count
        found[f"{count} together, times faster"] = statistics.median(alone) / statistics.median(
            together
        )
        found[f"{count} together, largest difference"] = different
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="irsplit-") as name:
        folder = Path(name)
        irsplit.compile_model(DIGITS, folder / "digits", ["bottleneck/relu"])
        irsplit.compile_model(dense(folder), folder / "dense", ["cut"])
        found = {
            "digits": measure(folder / "digits", "image", (1, 1, 16, 16)),
            "dense": measure(folder / "dense", "x", (1, WIDTH)),
        }
    if arguments.json:
        print(json.dumps({"machine": platform.machine(), "rounds": ROUNDS, **found}, indent=1))
        return
    for title, figures in found.items():
        print(title, *(f"  {key:36} {value:.4g}" for key, value in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
