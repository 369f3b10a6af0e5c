"""Segments that quantize by themselves: stock engines alone exchange integers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
from corpus import CorpusModel, cases, feeds, models
from irsplit.base.errors import IrsplitError
from irsplit.runtime.bundle.manifest import Manifest
from stock_engines import open_model, run_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
IMAGE = {"digits.onnx": (1, 1, 16, 16), "digits.tflite": (1, 16, 16, 1)}
REAL = {
    "ultraface_rfb320.onnx": "int8",
    "ppocr_cls_mobile.onnx": "int8,per-channel",
    "squeezenet_fp16.onnx": "int8",
    "resnet8_cifar_float.tflite": "int8",
    "face_detection_short_fp16.tflite": "int6,range=mse",
}


def exchange(bundle: Path, values: list[Any]) -> tuple[Any, list[Any]]:
    """What crosses, and the outputs, of the two segments' files in stock engines."""
    manifest = Manifest.load(bundle)
    device, server = (open_model(manifest.path(segment.file)) for segment in manifest.segments)
    crossing = dict(zip(device.outputs, device.run(values), strict=True))
    sent = [crossing[name] for name in server.inputs]
    assert [array.dtype for array in sent] == [np.int8] * len(sent)
    return sent[0], server.run(sent)


def check(model: Path, bundle: Path, values: list[Any]) -> None:
    manifest = Manifest.load(bundle)
    (described,) = json.loads((bundle / "manifest.json").read_text())["boundary_ops"]
    (spec,) = manifest.boundaries[0].tensors
    assert (spec.dtype, spec.quantization, [*described]) == ("i8", None, [spec.name])
    integers, found = exchange(bundle, values)
    assert len(np.unique(integers)) > 8
    expected = run_model(model, values)
    for before, after in zip(expected, found, strict=True):
        wide = np.asarray(before, np.float32)
        assert np.abs(after - wide).max() <= 0.15 * max(1e-6, float(np.abs(wide).max()))


@pytest.mark.parametrize("file", ["digits.onnx", "digits.tflite"])
def test_the_example_without_our_runtime(file: str, tmp_path: Path) -> None:
    pictures = np.load(EXAMPLE / "calibration_images.npz")["images"][:8].astype(np.float32) / 255
    calls = [{"image": picture.reshape(IMAGE[file])} for picture in pictures]
    irsplit.compile_model(
        EXAMPLE / file, tmp_path / "ops", boundary="int8", boundary_ops=True, calibration=calls
    )
    check(EXAMPLE / file, tmp_path / "ops", [calls[0]["image"]])
    irsplit.compile_model(
        EXAMPLE / file, tmp_path / "runtime", boundary="int8,clip", calibration=calls
    )
    outputs = [
        irsplit.LocalSession(tmp_path / name).run(calls[3])["logits"] for name in ("ops", "runtime")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.1


@pytest.mark.parametrize("model", cases(model for model in models("models") if model.name in REAL))
def test_real_models_without_our_runtime(model: CorpusModel, tmp_path: Path) -> None:
    calls = feeds(model, 2)
    names = [source.name for source in model.inputs]
    calibration = [dict(zip(names, values, strict=True)) for values in calls]
    cut = model.strict_cuts[len(model.strict_cuts) // 2]
    irsplit.compile_model(
        model.path,
        tmp_path / "b",
        [cut],
        boundary=REAL[model.name],
        boundary_ops=True,
        calibration=calibration,
    )
    check(model.path, tmp_path / "b", calls[0])
    assert irsplit.verify_bundle(tmp_path / "b", model.path, calls=calibration).holds


@pytest.mark.parametrize(
    ("file", "boundary", "said"),
    [
        ("digits.onnx", "lossless", "quantizes nothing"),
        ("digits.onnx", "int8,range=best", "unknown option 'range=best'"),
        (
            "digits.onnx",
            "int8,wide",
            "unknown option 'wide' of the boundary; known: range=METHOD, per-channel, clip",
        ),
        ("digits.tflite", "int8,per-channel", "leave per-channel out"),
    ],
)
def test_what_cannot_be(file: str, boundary: str, said: str, tmp_path: Path) -> None:
    calls = [{"image": np.zeros(IMAGE[file], np.float32)}]
    with pytest.raises(IrsplitError, match=said):
        irsplit.compile_model(
            EXAMPLE / file, tmp_path / "b", boundary=boundary, boundary_ops=True, calibration=calls
        )
