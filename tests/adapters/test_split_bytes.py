"""Bytes in, bytes out: the same bundle as from files, and halves that stock engines run."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

import irsplit
from irsplit.base.errors import BundleError, ModelError
from irsplit.runtime.frame.descriptor import FrameSchema

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "digits"


def images(axis: int) -> np.ndarray:
    pixels = np.load(EXAMPLE / "test_images.npz")["images"][:3].astype(np.float32) / 255
    return np.expand_dims(pixels, (1, axis + 1) if axis > 0 else (1, axis))


def litert(model: bytes, array: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def ort(model: bytes, array: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: array})[0])


@pytest.mark.parametrize(
    ("file", "axis", "run"), [("digits.tflite", -1, litert), ("digits.onnx", 1, ort)]
)
def test_halves_compute_the_whole(file: str, axis: int, run: object) -> None:
    assert callable(run)
    whole = (EXAMPLE / file).read_bytes()
    split = irsplit.split_bytes(whole, ["bottleneck/relu"])
    assert [segment.placement for segment in split.segments] == ["device", "server"]
    assert split.segments[0].outputs == split.segments[1].inputs == ("bottleneck/relu",)
    assert [tensor.name for tensor in FrameSchema.from_bytes(split.boundaries[0]).tensors] == [
        "bottleneck/relu"
    ]
    for image in images(axis):
        np.testing.assert_allclose(
            run(split.server, run(split.device, image)), run(whole, image), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("file", ["digits.onnx", "digits.tflite"])
def test_the_bundle_is_that_of_the_file(file: str, tmp_path: Path) -> None:
    split = irsplit.split_bytes((EXAMPLE / file).read_bytes(), name=file)
    compiled = irsplit.compile_model(EXAMPLE / file, tmp_path / "compiled")
    assert split.save(tmp_path / "saved").digest == compiled.manifest.digest
    for path in (tmp_path / "compiled").rglob("*"):
        if path.is_file():
            assert (
                split.files[path.relative_to(tmp_path / "compiled").as_posix()] == path.read_bytes()
            )
    frame = irsplit.DeviceSession(tmp_path / "saved").start(
        {"image": images(1 if "onnx" in file else -1)[0]}
    )
    assert irsplit.ServerSession(tmp_path / "compiled").resume(frame)["logits"].shape == (1, 10)


def test_options_are_those_of_compile(tmp_path: Path) -> None:
    model = (EXAMPLE / "digits.tflite").read_bytes()
    calls = [{"image": image} for image in images(-1)]
    split = irsplit.split_bytes(
        model, ["down/relu", "expand/relu"], quantize="int8", calibration=calls
    )
    assert [segment.name for segment in split.segments] == ["segment0", "segment1", "segment2"]
    assert all(
        FrameSchema.from_bytes(b).tensors[0].quantization is not None for b in split.boundaries
    )
    with pytest.raises(
        BundleError, match="2 segments run on the server; take them from `segments`"
    ):
        _ = split.server


def test_what_is_refused() -> None:
    with pytest.raises(ModelError, match="the model has no bytes"):
        irsplit.split_bytes(b"")
    with pytest.raises(ModelError, match=r"^model\.onnx: damaged"):
        irsplit.split_bytes(b"this is a text")
    with pytest.raises(ModelError, match=r"^model\.tflite: "):
        irsplit.split_bytes((EXAMPLE / "digits.tflite").read_bytes()[:5000])


def test_nothing_of_the_callers_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    split = irsplit.split_bytes((EXAMPLE / "digits.onnx").read_bytes())
    assert split.warnings == ()
    assert list(tmp_path.iterdir()) == []
