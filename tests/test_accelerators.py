"""Execution providers and delegates: engines use those asked for, or say why they cannot."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from irsplit.base.errors import EngineError
from irsplit.cli import main
from irsplit.compilation import provenance
from irsplit.compilation.old_names import compile_model
from irsplit.runtime.run.engines import Accelerator, EngineOptions, open_engine
from irsplit.runtime.run.session import LocalSession
from irsplit.runtime.serving.server.server import ServerOptions, load_bundles
from tools import needs

HERE = Path(__file__).parent
DIGITS = HERE.parent / "examples" / "digits"
ONNX, TFLITE = DIGITS / "digits.onnx", DIGITS / "digits.tflite"
IMAGE = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
OPENVINO = "OpenVINOExecutionProvider"


def asked_provider(name: str, *options: tuple[str, str]) -> EngineOptions:
    return EngineOptions(threads=1, providers=(Accelerator(name, options),))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("accelerators") / "digits"
    compile_model(ONNX, folder, ("4",))
    return folder


@pytest.mark.parametrize("name", ["azure", "AzureExecutionProvider"])
def test_a_provider_is_started_by_its_long_and_short_name(name):
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("THIS ONNXRUNTIME HAS NO PROVIDER BESIDE THE CPU: none was started")
    engine = open_engine(ONNX, "onnx", asked_provider(name))
    assert engine._session.get_providers() == ["AzureExecutionProvider", "CPUExecutionProvider"]
    (logits,), (expected,) = engine.run([IMAGE]), open_engine(ONNX, "onnx").run([IMAGE])
    assert np.array_equal(logits, expected)


def test_the_halves_run_on_openvino(bundle):
    if OPENVINO not in onnxruntime.get_available_providers():
        pytest.skip(
            "THIS ONNXRUNTIME IS BUILT WITHOUT OPENVINO (pip install onnxruntime-openvino): not "
            "run on it"
        )
    outputs = LocalSession(bundle, asked_provider("openvino", ("device_type", "CPU"))).run(
        {"image": IMAGE}
    )
    expected = LocalSession(bundle).run({"image": IMAGE})
    assert np.allclose(outputs["logits"], expected["logits"], atol=1e-4)


def test_a_provider_that_is_not_there_is_an_error_and_no_silent_cpu(bundle, capfd):
    with pytest.raises(
        EngineError, match=r"no provider 'quantum', only .*CPUExecutionProvider; install the build"
    ):
        load_bundles([str(bundle)], ServerOptions(engine=asked_provider("quantum")))
    np.save(bundle.parent / "image.npy", IMAGE)
    words = ["run", str(bundle), "--input", f"image={bundle.parent / 'image.npy'}"]
    assert main([*words, "--provider", "cpu,=1"]) == 2
    assert "accelerator 'cpu,=1': give NAME, or NAME,KEY=VALUE" in capfd.readouterr().err
    assert main([*words, "--provider", "quantum"]) == 2
    assert "no provider 'quantum'" in capfd.readouterr().err


def test_a_provider_whose_libraries_are_missing_is_an_error(monkeypatch):
    """onnxruntime-gpu without CUDA lists the provider, and opens a session without it."""

    class WithoutCuda(onnxruntime.InferenceSession):
        def __init__(self, *arguments, providers, **rest):
            super().__init__(*arguments, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", WithoutCuda)
    with pytest.raises(
        EngineError, match=r"digits.onnx: onnxruntime cannot start CUDAExecutionProvider"
    ):
        open_engine(ONNX, "onnx", asked_provider("cuda"))


@pytest.fixture
def library(tmp_path) -> Path:
    needs("gcc")
    path = tmp_path / "delegate.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, HERE / "c" / "delegate.c"],
        check=True,
    )
    return path


def test_a_delegate_is_asked_with_its_options(library):
    options = EngineOptions(delegates=(Accelerator(str(library), (("level", "7"),)),))
    engine = open_engine(TFLITE, "tflite", options)
    counts = ctypes.CDLL(str(library))
    assert ctypes.c_int.in_dll(counts, "prepared").value == 1
    assert (ctypes.c_char * 16).in_dll(counts, "level").value == b"7"
    image = IMAGE.reshape(1, 16, 16, 1)
    assert np.array_equal(engine.run([image])[0], open_engine(TFLITE, "tflite").run([image])[0])
    engine.reset()
    engine.run([image])
    assert ctypes.c_int.in_dll(counts, "prepared").value == 2


def test_a_delegate_that_cannot_be_loaded_is_an_error(library):
    for accelerator, why in (
        (Accelerator(str(library), (("speed", "1"),)), "it has one option, level"),
        (Accelerator("libnone.so"), "cannot open shared object"),
        (Accelerator("libc.so.6"), "undefined symbol: tflite_plugin_create_delegate"),
    ):
        with pytest.raises(EngineError, match=f"LiteRT cannot load the delegate .*{why}"):
            open_engine(TFLITE, "tflite", EngineOptions(delegates=(accelerator,)))


def test_measurements_say_which_accelerator_they_used(tmp_path, capsys):
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("THIS ONNXRUNTIME HAS NO PROVIDER BESIDE THE CPU: nothing was measured on one")
    quick = ["--quick", "--runs", "1", "--warmup", "1", "--provider", "azure,key=value"]
    assert main(["profile", str(ONNX), "-o", str(tmp_path / "profile.json"), *quick]) == 0
    assert (
        f"; onnxruntime {onnxruntime.__version__}, azure,key=value, 1 thread"
        in capsys.readouterr().out
    )
    assert main(["bench", str(ONNX), "--cuts", "4", *quick]) == 0
    assert (
        f"; onnxruntime {onnxruntime.__version__}, azure,key=value, 1 thread"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["bench", TFLITE, "--provider", "cuda"],
            "--provider cuda is for onnxruntime, and this runs on LiteRT",
        ),
        (
            ["profile", ONNX, "-o", "p", "--delegate", "a.so"],
            "--delegate a.so is for LiteRT, and this runs on onnxru",
        ),
    ],
)
def test_an_accelerator_of_the_other_engine_is_an_error(words, said, capsys):
    assert main([str(word) for word in words]) == 2
    assert said in capsys.readouterr().err


def test_a_build_of_the_engine_is_told_by_its_own_name(monkeypatch):
    installed = {"onnxruntime-gpu": "1.99"}
    monkeypatch.setattr(provenance, "_version", lambda name: installed.get(name, ""))
    monkeypatch.setattr(
        provenance, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]}
    )
    assert provenance.engine("onnx", asked_provider("cuda")) == "onnxruntime-gpu 1.99, cuda"
