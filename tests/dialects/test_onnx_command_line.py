"""`irsplit compile` with weights beside the segments: in own files, or in the source's."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irsplit.cli import main

SIZE = 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two matrix products whose weights lie in source.onnx.data."""
    weights = [
        numpy_helper.from_array(np.full((SIZE, SIZE), value, np.float32), name)
        for name, value in (("a", 1), ("b", 2))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE])
        for name in ("x", "h", "y")
    ]
    graph = helper.make_graph(nodes, "net", [ends[0]], [ends[2]], weights, value_info=[ends[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "source.onnx"
    onnx.save(
        model, path, save_as_external_data=True, location="source.onnx.data", size_threshold=0
    )
    return path


def compile_with(source: Path, *options: str) -> dict[str, list[str]]:
    """Compile at h, verify, and list the files of both sides."""
    bundle = source.with_name("bundle")
    assert main(["compile", str(source), "-o", str(bundle), "--cut", "h", *options]) == 0
    assert main(["verify", str(bundle)]) == 0
    return {
        place: sorted(path.name for path in (bundle / place).glob("*.onnx*"))
        for place in ("device", "server")
    }


def test_weights_are_inline_by_default(source: Path):
    assert compile_with(source) == {"device": ["model.onnx"], "server": ["model.onnx"]}


def test_weights_go_beside_the_segment_when_asked(source: Path):
    files = ["model.onnx", "model.onnx.data"]

    assert compile_with(source, "--external-over", "1000") == {"device": files, "server": files}


def test_weights_are_shared_when_asked(source: Path):
    files = ["model.onnx", "source.onnx.data"]

    assert compile_with(source, "--share-weights") == {"device": files, "server": files}


@pytest.mark.parametrize("options", [(), ("--share-weights",)])
def test_the_bundle_knows_the_weights_of_its_source(
    source: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    compile_with(source, *options)
    data = source.with_name("source.onnx.data")

    manifest = json.loads((source.parent / "bundle" / "manifest.json").read_text())
    files = {entry["file"]: entry["sha256"] for entry in manifest["provenance"]["source_files"]}
    assert files == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (source, data)
    }

    changed = bytes(len(data.read_bytes()))
    data.unlink()  # the bundle may have a link to it
    data.write_bytes(changed)
    assert main(["verify", str(source.parent / "bundle")]) == 2
    assert "source.onnx.data: is not the data file that" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_types_that_numpy_has_not_cross(
    dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Out of the engine and into it: the type is the boundary's, an input's and an output's."""
    code = TensorProto.DataType.Value(dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["h"], to=code),
        helper.make_node("Identity", ["h"], ["y"]),
        helper.make_node("Cast", ["h"], ["z"], to=TensorProto.FLOAT),
    ]
    types = {"x": code, "y": code, "z": TensorProto.FLOAT}
    ends = [helper.make_tensor_value_info(name, type, [2, 3]) for name, type in types.items()]
    model = helper.make_model(helper.make_graph(nodes, "net", ends[:1], ends[1:]), ir_version=10)
    model.opset_import[0].version = 21
    path = tmp_path / "source.onnx"
    onnx.save(model, path)

    compile_with(path)
    assert "engine defaults:   bit-equal" in capsys.readouterr().out
