"""What `irsplit export --to onnxruntime` writes gives the bundle's bits on stock onnxruntime."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import irsplit
from irsplit.base.errors import BundleError, UnsupportedError
from irsplit.cli import main
from irsplit.dialects.base import WriteOptions
from irsplit.export import export_bundle
from irsplit.ir import engine_graph, is_of_the_runtime
from irsplit.runtime.run import ort_operators as operators
from irsplit.runtime.run.engines import Accelerator, EngineOptions
from operators_host import Host
from stock_engines import same_bits
from tools import needs
from transformers import decoder

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
Call = dict[str, Any]


class Exported:
    """The models of an exported bundle, chained by their description, states fed back."""

    def __init__(self, folder: Path) -> None:
        self.models = json.loads((folder / "models.json").read_text())["models"]
        host = Host(folder / "libirsplit_operators.so")
        self.sessions = [host.session(str(folder / model["file"])) for model in self.models]
        self.frames: list[bytes] = []
        self._states = {
            state["input"]: np.zeros(state["shape"], state["dtype"])
            for model in self.models
            for state in model["state"]
        }

    def run(self, call: Call) -> Call:
        self.frames, results, frame = [], {}, None
        for model, session in zip(self.models, self.sessions, strict=True):
            values = call | self._states | {model["frame_input"]: frame}
            names = [info.name for info in session.get_outputs()]
            fed = {info.name: values[info.name] for info in session.get_inputs()}
            outputs = dict(zip(names, session.run(names, fed), strict=True))
            self._states.update(
                (state["input"], outputs[state["output"]]) for state in model["state"]
            )
            if model["frame_output"] is not None:
                frame = outputs.pop(model["frame_output"])
                self.frames.append(frame.tobytes())
            results |= outputs
        return results


def exported(bundle: Path, folder: Path) -> Exported:
    try:
        return Exported(export_bundle(bundle, "onnxruntime", folder))
    except UnsupportedError as error:
        pytest.skip(f"EXPORTING TO ONNX RUNTIME IS NOT CHECKED HERE: {error}")


def check(bundle: Path, folder: Path, calls: Sequence[Call]) -> Exported:
    """Frames and outputs are what a session makes of the bundle."""
    chain, local = exported(bundle, folder), irsplit.LocalSession(bundle)
    for call in calls:
        expected, found = local.run(call), chain.run(call)
        assert same_bits([*expected.values()], [found[name] for name in expected])
        assert [len(frame) for frame in chain.frames] == local.frame_bytes
    return chain


def images(*batches: int) -> list[Call]:
    pixels = np.load(DIGITS / "test_images.npz")["images"][:, None].astype(np.float32) / 255
    return [{"image": pixels[:batch]} for batch in batches]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "bundle"
    coded = {"boundary": "int8", "codec": "static-rans", "calibration": images(20)}
    irsplit.compile_model(DIGITS / "digits.onnx", folder, ["bottleneck/relu"], **coded)
    return folder


def test_quantized_and_coded_in_any_batch(digits: Path, tmp_path: Path) -> None:
    chain = check(digits, tmp_path / "out", calls := images(1, 3, 2))
    assert [(model["file"], model["place"]) for model in chain.models] == [
        ("device.onnx", "device"), ("server.onnx", "server"),
    ]  # fmt: skip
    assert chain.frames == [bytes(irsplit.DeviceSession(digits).start(calls[-1]))]


def test_the_command_and_the_script_it_writes(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(digits, folder := tmp_path / "out")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["export", str(digits), "--to", "onnxruntime", "-o", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == set(first)
    (call,) = images(2)
    np.savez(tmp_path / "in.npz", **call)
    words = [sys.executable, folder / "run.py", tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(words, check=True, timeout=300)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npz")["logits"], irsplit.LocalSession(digits).run(call)["logits"]
    )


def test_a_host_without_python(digits: Path, tmp_path: Path) -> None:
    needs("gcc")
    runtime = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"), None)
    if runtime is None:
        pytest.skip("THIS ONNXRUNTIME HAS NO LIBRARY OF ITS OWN: no host in C was tried")
    exported(digits, folder := tmp_path / "out")
    host = tmp_path / "host"
    source = Path(__file__).parent / "c" / "ort_host.c"
    subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", source, "-ldl", "-o", host], check=True
    )
    words = [
        host,
        runtime,
        *(folder / name for name in ("libirsplit_operators.so", "device.onnx", "server.onnx")),
    ]
    (call,) = images(1)
    done = subprocess.run(
        [*words, "image", "logits"], input=call["image"].tobytes(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == irsplit.LocalSession(digits).run(call)["logits"].tobytes()


def awkward(path: Path) -> Path:
    """An input called `frame` that only the end reads, one that is an output too, an output that is
    ready early, a value that skips a segment."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Abs", ["a"], ["early"]),
        helper.make_node("Cast", ["a"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Neg", ["whole"], ["b"]),
        helper.make_node("Abs", ["b"], ["c"]),
        helper.make_node("Cast", ["c"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["real", "frame"], ["moved"]),
        helper.make_node("Mul", ["moved", "a"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["y"]),
    ]
    weights = onnx.numpy_helper.from_array(np.ones((4, 256), np.float32), "weights")
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "frame", "same")]
    outputs = [
        value(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("early", 4), ("y", 256), ("same", 4))
    ]
    graph = helper.make_graph(nodes, "awkward", inputs, outputs, [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def test_several_cuts_and_what_goes_past_a_segment(tmp_path: Path) -> None:
    source, bundle = awkward(tmp_path / "awkward.onnx"), tmp_path / "bundle"
    compiled = irsplit.compile_model(
        source,
        bundle,
        ["3", "5"],
        max_tensors=4,
        codec="raw",
        rematerialise=False,
        options=WriteOptions(0),
    )
    crossing = [
        [spec.name for spec in boundary.tensors] for boundary in compiled.manifest.boundaries
    ]
    assert crossing == [["a", "whole", "frame"], ["a", "c", "frame"]]
    rng = np.random.default_rng(1)
    calls = [
        {name: rng.normal(size=(n, 4)).astype(np.float32) * 9 for name in ("x", "frame", "same")}
        for n in (2, 1, 0)
    ]
    chain = check(bundle, tmp_path / "out", calls)
    assert [(model["frame_input"], model["frame_output"]) for model in chain.models] == [
        (None, "frame_"), ("frame_", "next_frame"), ("frame_", None),
    ]  # fmt: skip
    last = chain.models[-1]["file"]
    weights = onnx.load(tmp_path / "out" / last, load_external_data=False).graph.initializer
    assert [weight.data_location for weight in weights] == [TensorProto.EXTERNAL]
    assert (tmp_path / "out" / f"{last}.data").is_file()


def test_states_are_the_hosts(tmp_path: Path) -> None:
    """Keys and values of a decoder: inputs and outputs of the models, which the host feeds back."""
    source, bundle = decoder(tmp_path / "decoder.onnx"), tmp_path / "bundle"
    irsplit.compile_model(source, bundle, ["layer0", "layer1"], state=["auto"], codec="raw")
    chain = check(
        bundle, tmp_path / "out", [{"input_ids": np.array([[token]])} for token in (3, 1, 4)]
    )
    assert chain.models[1]["state"] == [
        {
            "input": f"past_key_values.1.{kind}",
            "output": f"present.1.{kind}",
            "dtype": "float32",
            "shape": [1, 2, 0, 8],
        }
        for kind in ("key", "value")
    ]


def test_a_side_that_is_here_alone(digits: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    (lone / "server").mkdir(parents=True)
    for path in (digits / "manifest.json", *(digits / "server").iterdir()):
        (lone / path.relative_to(digits)).write_bytes(path.read_bytes())
    chain = exported(lone, tmp_path / "out")
    assert [model["file"] for model in chain.models] == ["server.onnx"]


def test_no_pass_drops_the_operators(digits: Path, tmp_path: Path) -> None:
    """They are in the domain whose name the IR's own nodes bear."""
    exported(digits, tmp_path / "out")
    entry = irsplit.read_model(tmp_path / "out" / "server.onnx").entry
    assert entry.nodes[0].op == "irsplit.DecodeFrame"
    assert engine_graph(entry).nodes == entry.nodes
    assert not any(is_of_the_runtime(node) for node in entry.nodes)


def test_what_cannot_be_exported(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported(digits, tmp_path / "out")
    packed = irsplit.pack_bundle(digits, tmp_path / "packed")
    for source, words, reason in (
        (
            "digits.onnx",
            [],
            (
                "'bottleneck/relu' is coded by zstandard, which the operators have not built in; "
                "compile "
            ),
        ),
        (
            "digits.tflite",
            ["--codec", "raw"],
            "its segments are tflite files, and ONNX Runtime runs ONNX alone; ",
        ),
    ):
        bundle = str(tmp_path / source)
        assert (
            main(
                ["compile", str(DIGITS / source), "-o", bundle, "--cut", "bottleneck/relu", *words]
            )
            == 0
        )
        assert main(["export", bundle, "--to", "onnxruntime", "-o", str(tmp_path / "new")]) == 2
        assert reason in capsys.readouterr().err
    with pytest.raises(BundleError, match="is one packed side of a bundle; give the folder"):
        export_bundle(packed[1], "onnxruntime", tmp_path / "new")
    options = EngineOptions(providers=(Accelerator.parse("cuda"),))
    with pytest.raises(BundleError, match="export without providers and delegates"):
        export_bundle(digits, "onnxruntime", tmp_path / "new", options=options)
    monkeypatch.setattr(operators, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="are not built"):
        export_bundle(digits, "onnxruntime", tmp_path / "new")
    assert not (tmp_path / "new").exists()
