"""Real converters before a split: what they return is split. Skipped, loudly, without them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"


def host(module: str, extra: str) -> Any:
    return pytest.importorskip(
        module, reason=f"{module.upper()} IS NOT INSTALLED: pip install 'irsplit[{extra}]'"
    )


def pictures(count: int) -> np.ndarray:
    """[count, 1, 16, 16, 1], each a batch of one."""
    return (
        np.load(DIGITS / "test_images.npz")["images"][:count, None, :, :, None].astype(np.float32)
        / 255
    )


@pytest.mark.parametrize("recipe", ["dynamic_wi8_afp32", "weight_only_wi8_afp32", "static_wi8_ai8"])
def test_ai_edge_quantizer(recipe: str, tmp_path: Path) -> None:
    host("ai_edge_quantizer", "test-tflite")
    # In a process of its own: its interpreter warns, and warnings are errors here.
    program = f"""
from ai_edge_quantizer import quantizer, recipe
import numpy as np
import irsplit
host = quantizer.Quantizer(open({str(DIGITS / "digits.tflite")!r}, "rb").read(), recipe.{recipe}())
images = np.load({str(DIGITS / "calibration_images.npz")!r})["images"]
pictures = images[:16, None, :, :, None].astype(np.float32) / 255
calls = {{"serving_default": [{{"image": picture}} for picture in pictures]}}
quantized = host.quantize(host.calibrate(calls) if host.need_calibration else None).quantized_model
open({str(tmp_path / "whole.tflite")!r}, "wb").write(quantized)
irsplit.split_bytes(quantized, ["bottleneck/relu"]).save({str(tmp_path / "bundle")!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "whole.tflite").stat().st_size < (
        DIGITS / "digits.tflite"
    ).stat().st_size / 2
    assert irsplit.verify_bundle(tmp_path / "bundle", tmp_path / "whole.tflite").bit_equal


def test_tensorflow(tmp_path: Path) -> None:
    host("tensorflow", "test-tensorflow")
    program = f"""
import tensorflow as tf
import irsplit
tf.keras.utils.set_random_seed(7)
layers, inputs = tf.keras.layers, tf.keras.Input((16, 16, 1), batch_size=1, name="image")
x = stem = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
x = layers.Conv2D(8, 3, padding="same")(x) + stem
x = layers.Conv2D(2, 3, strides=2, activation="relu")(x)
network = tf.keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
whole = tf.lite.TFLiteConverter.from_keras_model(network).convert()
open({str(tmp_path / "whole.tflite")!r}, "wb").write(whole)
irsplit.split_bytes(whole).save({str(tmp_path / "bundle")!r})
picture = tf.constant({pictures(1)[0, 0].tolist()!r})[None]
network(picture).numpy().tofile({str(tmp_path / "expected")!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    name = irsplit.LocalSession(tmp_path / "bundle").manifest.inputs[0].name
    assert irsplit.verify_bundle(
        tmp_path / "bundle", tmp_path / "whole.tflite", fixed={name: pictures(1)[0]}
    ).bit_equal
    (found,) = irsplit.LocalSession(tmp_path / "bundle").run({name: pictures(1)[0]}).values()
    expected = np.fromfile(tmp_path / "expected", np.float32)
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-4, atol=1e-5)


def test_litert_torch(tmp_path: Path) -> None:
    host("litert_torch", "test-litert-torch")
    program = f"""
import litert_torch, torch
import irsplit
torch.manual_seed(7)
class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(1, 8, 3, stride=2)
        self.body = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.neck = torch.nn.Conv2d(8, 2, 3, stride=2)
        self.head = torch.nn.Linear(18, 10)
    def forward(self, image):
        x = torch.relu(self.stem(image))
        x = torch.relu(self.neck(self.body(x) + x))
        return self.head(torch.flatten(x, 1))
network, picture = Network().eval(), torch.tensor({pictures(1)[0, ..., 0].tolist()!r})[None]
whole = litert_torch.convert(network, (picture,)).model_content()
open({str(tmp_path / "whole.tflite")!r}, "wb").write(whole)
irsplit.split_bytes(whole).save({str(tmp_path / "bundle")!r})
network(picture).detach().numpy().tofile({str(tmp_path / "expected")!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    call = {
        irsplit.LocalSession(tmp_path / "bundle").manifest.inputs[0].name: pictures(1)[0].reshape(
            1, 1, 16, 16
        )
    }
    assert irsplit.verify_bundle(
        tmp_path / "bundle", tmp_path / "whole.tflite", fixed=call
    ).bit_equal
    (found,) = irsplit.LocalSession(tmp_path / "bundle").run(call).values()
    np.testing.assert_allclose(
        np.ravel(found), np.fromfile(tmp_path / "expected", np.float32), rtol=1e-4, atol=1e-5
    )


def test_tf2onnx(tmp_path: Path) -> None:
    host("tf2onnx", "test-tensorflow")
    host("tensorflow", "test-tensorflow")
    words = ["--tflite", DIGITS / "digits.tflite", "--output", tmp_path / "digits.onnx"]
    subprocess.run(
        [sys.executable, "-m", "tf2onnx.convert", *words],
        capture_output=True,
        timeout=300,
        check=True,
    )
    irsplit.compile_model(tmp_path / "digits.onnx", tmp_path / "bundle")
    calls = [{"image": picture} for picture in pictures(4)]
    assert irsplit.verify_bundle(tmp_path / "bundle", calls=calls).bit_equal


def test_onnxscript(tmp_path: Path) -> None:
    host("onnxscript", "test-torch")
    # A script is read from its file, and its annotations are looked up among the file's names.
    (tmp_path / "network.py").write_text("""
import numpy as np
import onnx
from onnxscript import FLOAT, opset18 as op, script

weights = np.random.default_rng(3).normal(size=(8, 64)).astype(np.float32)
NARROW, WIDE = (onnx.numpy_helper.from_array(array, "w") for array in (weights.T, weights))

@script()
def network(x: FLOAT[1, 64]) -> FLOAT[1, 64]:
    hidden = op.Relu(op.MatMul(x, op.Constant(value=NARROW)))
    return op.MatMul(hidden, op.Constant(value=WIDE))

onnx.save(network.to_model_proto(), "whole.onnx")
""")
    subprocess.run([sys.executable, "network.py"], cwd=tmp_path, timeout=100, check=True)
    split = irsplit.split_bytes((tmp_path / "whole.onnx").read_bytes())
    assert split.segments[0].outputs == ("hidden",)
    split.save(tmp_path / "bundle")
    assert irsplit.verify_bundle(tmp_path / "bundle", tmp_path / "whole.onnx").bit_equal
