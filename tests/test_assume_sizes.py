"""Estimates count with sizes given for open dimensions; types and cuts stay."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from irsplit.cli import main
from irsplit.compilation.old_names import compile_model
from irsplit.dialects.registry import dialect_of
from irsplit.ir import TensorType
from irsplit.passes.preparation import prepared
from tflite_models import Sketch

SIZED = ("--dim", "height=64", "--dim", "image.3=32")


def convolutional(path: Path, shape: list[Any], limit: int = 0) -> Path:
    """image -> wide (more bytes) -> narrow (a quarter) -> flat, whose rank the shapes decide."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, None)
    weights = [
        helper.make_tensor("a", TensorProto.FLOAT, [16, 3, 1, 1], [0.5] * 48),
        helper.make_tensor("b", TensorProto.FLOAT, [12, 16, 4, 4], [0.5] * 3072),
        helper.make_tensor("least", TensorProto.INT64, [4], [1, 1, limit, 1]),
    ]
    nodes = [
        helper.make_node(
            "Expand" if limit else "Identity", ["image", *["least"] * bool(limit)], ["whole"]
        ),
        helper.make_node("Conv", ["whole", "a"], ["wide"]),
        helper.make_node("Conv", ["wide", "b"], ["narrow"], strides=[4, 4]),
        helper.make_node("Relu", ["narrow"], ["active"]),
        helper.make_node("Flatten", ["active"], ["result"]),
    ]
    graph = helper.make_graph(nodes, "net", [image], [result], weights)
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path
    )
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    return convolutional(tmp_path / "open.onnx", ["batch", 3, "height", None])


def listed(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_estimates_are_those_of_the_model_with_fixed_sizes(
    opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fixed = convolutional(tmp_path / "fixed.onnx", [1, 3, 64, 32])
    for ours, theirs in zip(
        listed(capsys, "cuts", opened, *SIZED), listed(capsys, "cuts", fixed), strict=True
    ):
        assert ours["bytes"] is None
        assert ours["estimated_bytes"] == theirs["estimated_bytes"] == theirs["bytes"] > 0
        assert ours["device_macs_share"] == theirs["device_macs_share"]
        assert (ours["id"], ours["kind"], ours["reason"]) == (
            theirs["id"],
            theirs["kind"],
            theirs["reason"],
        )
    plan = ("--device", "pixel-2", "--link", "lte")
    assert main(["plan", str(opened), *plan, *SIZED, "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert main(["plan", str(fixed), *plan, "--json"]) == 0
    assert ours == json.loads(capsys.readouterr().out)


def test_cuts_keep_ids_and_types_and_say_about_how_much_crosses(
    opened: Path, capsys: pytest.CaptureFixture[str]
):
    plain, sized = listed(capsys, "cuts", opened), listed(capsys, "cuts", opened, *SIZED)
    assert [cut["tensors"] for cut in plain] == [cut["tensors"] for cut in sized]
    assert main(["cuts", str(opened), *SIZED]) == 0
    said = capsys.readouterr()
    assert "~6144 B" in said.out
    assert said.err == "note: estimates count with image.0=1, image.2=64, image.3=32\n"
    assert main(["cuts", str(opened)]) == 0
    assert "48 B x ?" in capsys.readouterr().out


def test_the_default_cut_is_chosen_by_the_sizes(
    opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bundle = tmp_path / "bundle"
    assert main(["compile", str(opened), "-o", str(bundle), *SIZED, "--werror"]) == 0
    assert "active" in capsys.readouterr().out, "a wide image in fewer bytes than the image itself"
    manifest = json.loads((bundle / "manifest.json").read_text())
    report = json.loads((bundle / "report.json").read_text())
    assert max(tensor["raw_bytes"] for tensor in report["tensors"]) == 16 * 64 * 32 * 4
    assert manifest["boundaries"][0]["tensors"][0]["shape"] == [None, 12, None, None], (
        "the type stays open"
    )
    chosen = tmp_path / "chosen"
    assert main(["compile", str(opened), "-o", str(chosen), "--cut", "active", "--no-report"]) == 0
    for side in ("device", "server"):
        files = [folder / side / "model.onnx" for folder in (bundle, chosen)]
        assert files[0].read_bytes() == files[1].read_bytes(), (
            "what is written does not depend on sizes"
        )
    assert main(["verify", str(bundle)]) == 0


def test_without_sizes_nothing_is_compared(
    opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert (
        main(["compile", str(opened), "-o", str(tmp_path / "bundle"), "--werror", "--no-report"])
        == 0
    )
    assert "image.2, image.3 are 1; say how large they are with --dim" in capsys.readouterr().err
    assert main(["plan", str(opened)]) == 0
    assert "image.2, image.3 are open and count as 1" in capsys.readouterr().out
    assert main(["report", str(opened), "--json"]) == 0
    said = capsys.readouterr()
    assert "image.2, image.3 are open and count as 1" in said.err
    assert json.loads(said.out)["open"] in said.err


def test_calibration_inputs_say_how_large_they_are(
    opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Published and measured ratios are of the same sizes, and the choice is that of --dim."""
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, np.random.default_rng(0).random((1, 3, 64, 32), np.float32))
    words = [str(opened), "--device", "pixel-2"]
    assert main(["plan", *words, "--calibration", str(inputs), "--json"]) == 0
    told = capsys.readouterr()
    assert "note: estimates count with image.0=1, image.2=64, image.3=32" in told.err
    assert not any("say how large" in note for note in json.loads(told.out)["notes"])
    compile_model(
        opened, tmp_path / "bundle", ["2"], calibration=[{"image": np.load(inputs)}], remember=False
    )
    pipeline = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["pipeline"]
    assert pipeline.startswith(
        'assume-sizes{dim="image.0=1" dim="image.2=64" dim="image.3=32"},rematerialise'
    )


def test_what_is_not_given_is_as_large_as_the_engine_takes(tmp_path: Path):
    path = convolutional(tmp_path / "tall.onnx", ["batch", 3, "height", "width"], limit=8)
    model, dialect = dialect_of(path).read(path), dialect_of(path)
    context = prepared(model, dialect, dim=["width=32"])
    (image,) = [value.type for value in model.entry.inputs if value.constant is None]
    assert isinstance(image, TensorType)
    assert image.estimated_shape == (1, 3, 1, 32)
    wide = next(value.type for value in model.entry.values() if value.name == "wide")
    assert isinstance(wide, TensorType)
    assert wide.estimated_shape == (1, 16, 8, 32), "as the engine made it"
    assert not any(remark.warning for remark in context.remarks)


def test_a_model_that_does_not_run_keeps_ones_with_a_warning(
    opened: Path, capsys: pytest.CaptureFixture[str]
):
    cuts = listed(capsys, "cuts", opened, "--dim", "height=2", "--dim", "image.3=2")
    assert cuts[1]["estimated_bytes"] == 4 * 16
    assert main(["cuts", str(opened), "--dim", "height=2", "--dim", "image.3=2"]) == 0
    assert (
        "warning: open dimensions count as 1, because the model does not run"
        in capsys.readouterr().err
    )


def test_inputs_that_cannot_be_made_up_keep_ones_too(
    opened: Path, capsys: pytest.CaptureFixture[str]
):
    model = onnx.load(opened)
    model.graph.input.append(helper.make_tensor_value_info("wave", TensorProto.COMPLEX64, [4]))
    onnx.save(model, opened)
    assert main(["cuts", str(opened), *SIZED]) == 0
    assert (
        "count as 1, because the model does not run: input 'wave' of type c64"
        in capsys.readouterr().err
    )


def test_text_keeps_ones_with_a_warning(
    opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = tmp_path / "open.irs"
    assert main(["opt", str(opened), "-o", str(text)]) == 0
    assert main(["opt", str(text), "--pipeline", 'assume-sizes{dim="height=64"}']) == 0
    printed = capsys.readouterr()
    assert printed.out == text.read_text()
    assert (
        "warning: assume-sizes: open dimensions count as 1, because IR text holds nothing that runs"
        in printed.err
    )


def test_words_about_no_input_are_refused(opened: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(opened), "--dim", "depth=3"]) == 2
    assert (
        "no input has that dimension; those that vary: image.0, image, batch"
        in capsys.readouterr().err
    )
    assert main(["profile", str(opened), "-o", "/dev/null", "--dim", "depth=3"]) == 2


def test_tflite(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sketch = Sketch()
    sketch.subgraph("main")
    varying = {"shapeSignature": [1, -1]}
    x = sketch.input("x", (1, 1), **varying)
    names = ("a", "b")
    a, b = (sketch.tensor(name, (1, 1), **varying) for name in names)
    sketch.operator("RELU", [x], [a])
    sketch.operator("CONCATENATION", [a, a], [b], schema.ConcatenationOptionsT(axis=1))
    result = sketch.tensor("result", (1, 1), **varying)
    sketch.operator("RELU", [b], [result])
    sketch.graph.outputs = [result]
    cuts = listed(capsys, "cuts", sketch.save(tmp_path / "m.tflite"), "--dim", "x.1=10")
    assert [cut["estimated_bytes"] for cut in cuts] == [40, 80]
