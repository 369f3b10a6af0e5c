"""Splitting a model file in two: against other tools, and against copying its bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import bench_split_tflite, onnx_peers
from benchmarks.onnx_models import Transformer, write_chain, write_transformer
from benchmarks.onnx_split import split_with_irsplit
from benchmarks.suite import Kind, describe, time_writing
from irsplit import compile_model
from irsplit.compilation.old_names import verify_bundle

Split = Callable[[Path, Path, str], Any]

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
TRANSFORMER = Transformer(8, 768)
TFLITE = bench_split_tflite.Case("chain of fully connected layers", 12, 1024)


def _copy(source: Path, folder: Path, cut: str) -> None:
    shutil.copyfile(source, folder / source.name)


ONNX_TOOLS: dict[str, tuple[Kind, Split]] = {
    "copy of the file": ("yardstick", _copy),
    "irsplit": ("ours", split_with_irsplit),
    "onnx-ir extract": ("peer", onnx_peers.with_onnx_ir),
    "onnx extract_model": ("peer", onnx_peers.with_onnx),
}
TFLITE_TOOLS: dict[str, tuple[Kind, str]] = {
    "copy of the file": ("yardstick", "cp"),
    "irsplit": ("ours", "irsplit"),
    "LiteRT's objects": ("peer", "objects"),
}


@pytest.fixture(scope="module")
def transformer(folder: Path) -> Path:
    path = folder / "transformer.onnx"
    write_transformer(TRANSFORMER, path, inline=True)
    return path


@pytest.fixture(scope="module")
def chain(folder: Path) -> Path:
    path = folder / "chain.onnx"
    write_chain(10_000, path)
    return path


@pytest.fixture(scope="module")
def tflite(folder: Path) -> Path:
    path = folder / "chain.tflite"
    bench_split_tflite.make_model(TFLITE, path)
    return path


def _run(paths: list[Path], value: Any) -> bytes:
    for path in paths:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        value = session.run(None, {session.get_inputs()[0].name: value})[0]
    return value.tobytes()


def _needs(tool: str) -> None:
    if tool.startswith("onnx-ir"):
        pytest.importorskip("onnx_ir")


@pytest.mark.parametrize("tool", ONNX_TOOLS)
def test_transformer(
    tool: str, transformer: Path, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    _needs(tool)
    kind, split = ONNX_TOOLS[tool]
    describe(benchmark, "split: transformer of 227 MB, ONNX", tool, kind)
    time_writing(benchmark, lambda out: split(transformer, out, TRANSFORMER.middle), tmp_path)


@pytest.mark.parametrize("tool", ONNX_TOOLS)
def test_chain(tool: str, chain: Path, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    _needs(tool)
    kind, split = ONNX_TOOLS[tool]
    describe(benchmark, "split: graph of 10 000 nodes, ONNX", tool, kind)
    cut = "/layers.1000/Sum_output_0"
    if tool == "irsplit":
        halves = split_with_irsplit(chain, tmp_path, cut)
        value = np.random.default_rng(0).standard_normal((1, 8), np.float32)
        assert _run(halves, value) == _run([chain], value)
    time_writing(benchmark, lambda out: split(chain, out, cut), tmp_path)


@pytest.mark.parametrize("tool", TFLITE_TOOLS)
def test_tflite(tool: str, tflite: Path, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    kind, name = TFLITE_TOOLS[tool]
    split = bench_split_tflite.METHODS[name]
    describe(benchmark, "split: 12 dense layers of 50 MB, TFLite", tool, kind)
    expected = bench_split_tflite.run([tflite], TFLITE.width)
    assert bench_split_tflite.run(split(tflite, tmp_path), TFLITE.width) == expected
    time_writing(benchmark, lambda out: split(tflite, out), tmp_path)


@pytest.mark.parametrize("model", ["digits.onnx", "digits.tflite"])
@pytest.mark.parametrize("codec", ["zstandard", "static-rans"])
def test_bundle(model: str, codec: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    describe(benchmark, "compile: the example into a bundle", f"{model}, {codec}")
    axes = (0, 1) if model.endswith(".onnx") else (0, 3)
    images = (np.load(DIGITS / "calibration_images.npz")["images"][:32] / 255).astype(np.float32)
    calls = (
        [{"image": np.expand_dims(image, axes)} for image in images]
        if codec == "static-rans"
        else []
    )

    def compile_(out: Path) -> None:
        compile_model(
            DIGITS / model, out / "bundle", ["bottleneck/relu"], codec=codec, calibration=calls
        )

    compile_(tmp_path)
    assert verify_bundle(tmp_path / "bundle").holds
    time_writing(benchmark, compile_, tmp_path)
