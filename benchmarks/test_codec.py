"""Coding a boundary tensor into a frame and back; `bench_codec.py` has all networks."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import irsplit
from benchmarks.bench_codec import FLOAT, INT8, Coder, available, tensors
from benchmarks.boundaries import CORPUS, Case
from benchmarks.suite import Kind, describe
from irsplit.runtime.frame.descriptor import TensorSpec

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
CODECS = {
    "int8": (
        "memcpy",
        "raw frame",
        "zstd-3",
        "zstd-19",
        "blosc2 bitshuffle+zstd",
        "static-rans L0",
        "static-rans L1",
    ),
    "f32": (
        "memcpy",
        "raw frame",
        "zstd-3",
        "blosc2 bitshuffle+zstd",
        "pcodec-8",
        "static-rans L0",
        "static-rans L1",
    ),
}
NETWORKS = {"int8": "mobilenet_v1_025_128_uint8.tflite", "f32": "ultraface_rfb320.onnx"}


@cache
def _digits(folder: Path) -> Case:
    """What crosses behind the example's first stage, for training and for test pictures."""
    irsplit.compile_model(DIGITS / "digits.onnx", folder / "bundle", ["stem/relu"], codec="raw")
    device = irsplit.DeviceSession(folder / "bundle")

    def dump(file: str, count: int) -> tuple[Any, ...]:
        images = (np.load(DIGITS / file)["images"][:count] / 255).astype(np.float32)
        return tuple(
            device.run_segment(0, {"image": image[None, None]})["stem/relu"] for image in images
        )

    return Case(
        "digits.onnx",
        "stem/relu",
        "NCHW",
        dump("calibration_images.npz", 32),
        dump("test_images.npz", 1),
        0.0,
    )


@cache
def _case(network: str, kind: str, folder: Path) -> Case:
    if network == "digits.onnx":
        return _digits(folder)
    if not CORPUS.is_dir():
        pytest.skip("NO CORPUS: codecs were measured on the example alone")
    return next(tensors(kind, [network], 1, 1 << 20))


@cache
def _coder(network: str, kind: str, codec: str, folder: Path) -> tuple[Coder, Any]:
    case = _case(network, kind, folder)
    sample = case.test[0]
    found = available({codec: {**INT8, **FLOAT}[codec]})
    if not found:
        pytest.skip(f"{codec.split()[0].upper()} IS NOT INSTALLED")
    dtype = {"uint8": "u8", "int8": "i8"}.get(sample.dtype.name, "f32")
    coder = found[codec](case, TensorSpec("boundary", dtype, sample.shape))
    assert coder.decode is not None
    back = coder.decode(coder.encode(sample))
    assert (back if isinstance(back, bytes) else np.asarray(back).tobytes()) == sample.tobytes()
    return coder, sample


@pytest.mark.parametrize("way", ["encode", "decode"])
@pytest.mark.parametrize(
    ("network", "kind", "codec"),
    [
        (network, kind, codec)
        for network, kind in [
            (NETWORKS["int8"], "int8"),
            (NETWORKS["f32"], "f32"),
            ("digits.onnx", "f32"),
        ]
        for codec in CODECS[kind]
    ],
)
def test_codec(
    network: str, kind: str, codec: str, way: str, folder: Path, benchmark: BenchmarkFixture
) -> None:
    coder, sample = _coder(network, kind, codec, folder)
    assert coder.decode is not None
    frame = coder.encode(sample)
    whose: Kind = (
        "yardstick"
        if codec == "memcpy"
        else "ours"
        if codec.startswith(("raw", "static"))
        else "peer"
    )
    describe(benchmark, f"{way}: {network}, {kind}, {sample.nbytes / 1000:.0f} kB", codec, whose)
    benchmark.extra_info.update(raw_bytes=sample.nbytes, frame_bytes=len(frame))
    if way == "encode":
        benchmark(coder.encode, sample)
    else:
        benchmark(coder.decode, frame)
