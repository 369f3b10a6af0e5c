"""A split inference in one process, against the whole model and halves made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import irsplit
from benchmarks import onnx_peers
from benchmarks.boundaries import CORPUS
from benchmarks.suite import Kind, describe
from irsplit.compilation.compiler import whole_model
from irsplit.engines.inputs import seeded_calls
from irsplit.runtime.run.engines import EngineOptions, open_engine

ONE_THREAD = EngineOptions(threads=1)
MODELS = {
    "digits": (
        Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx",
        "bottleneck/relu",
    ),
    "yolox_nano": (CORPUS / "models" / "yolox_nano.onnx", "725"),
    "fastestdet": (CORPUS / "models" / "fastestdet.onnx", "input.136"),
}
WAYS: dict[str, Kind] = {
    "whole model": "yardstick",
    "halves by hand, no frame": "peer",
    "irsplit raw": "ours",
    "irsplit zstandard": "ours",
}


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _by_hand(path: Path, cut: str, call: dict[str, Any], folder: Path) -> Callable[[], Any]:
    """onnx's extract_model and two sessions; the tensor is passed as it is."""
    onnx_peers.with_onnx(path, folder, cut)
    near, far = _session(folder / "device.onnx"), _session(folder / "server.onnx")

    def run() -> Any:
        return far.run(None, {cut: near.run(None, call)[0]})[0]

    return run


def _split(
    path: Path, cut: str, call: dict[str, Any], folder: Path, codec: str
) -> Callable[[], Any]:
    irsplit.compile_model(path, folder / "bundle", [cut], codec=codec)
    device = irsplit.DeviceSession(folder / "bundle", ONE_THREAD)
    server = irsplit.ServerSession(folder / "bundle", ONE_THREAD)
    return lambda: next(iter(server.resume(device.start(call)).values()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_resume(way: str, name: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    describe(benchmark, f"resume: {name}", way, WAYS[way])
    path, cut = MODELS[name]
    if not path.is_file():
        pytest.skip("NO CORPUS: measured on the example alone")
    file, infos = whole_model(path)
    call = seeded_calls(infos, 1)[0]
    engine = open_engine(path, file.format, ONE_THREAD)
    inputs = [call[name] for name in file.inputs]

    def whole() -> Any:
        return engine.run(inputs)[0]

    run = {
        "whole model": lambda: whole,
        "halves by hand, no frame": lambda: _by_hand(path, cut, call, tmp_path),
        "irsplit raw": lambda: _split(path, cut, call, tmp_path, "raw"),
        "irsplit zstandard": lambda: _split(path, cut, call, tmp_path, "zstandard"),
    }[way]()
    np.testing.assert_allclose(run(), whole(), rtol=1e-2, atol=1e-2)
    benchmark(run)
