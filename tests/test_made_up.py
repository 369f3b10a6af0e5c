"""Inputs that nobody gave get the sizes that the engine takes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from irsplit.base.errors import EngineError, ModelRefusedError
from irsplit.cli import main
from irsplit.engines.execute import Inputs
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.runtime.bundle.manifest import TensorInfo
from tflite_models import Sketch

INFOS = [TensorInfo("x", "f32", (None, 3, None)), TensorInfo("y", "u8", (2,))]


def shapes_tried(refused: int, **options: object) -> list[tuple[int, ...]]:
    """Shapes of x in every attempt, of which so many are refused."""
    tried: list[tuple[int, ...]] = []

    def run(calls: Sequence[Inputs]) -> None:
        tried.append(np.shape(calls[0]["x"]))
        if len(tried) <= refused:
            raise EngineError(f"refused {len(tried)}")

    first_taken(run, INFOS, 2, **options)  # pyright: ignore[reportArgumentType]
    return tried


def test_sizes_grow_until_the_engine_takes_them():
    assert shapes_tried(3) == [(1, 3, 1), (1, 3, 16), (16, 3, 16), (1, 3, 128)]


def test_a_model_that_does_not_open_is_tried_once():
    tried: list[int] = []

    def run(calls: Sequence[Inputs]) -> None:
        tried.append(len(calls))
        raise ModelRefusedError("refused")

    with pytest.raises(ModelRefusedError, match=r"^refused$"):
        first_taken(run, INFOS, 2)
    assert tried == [2]


def test_indices_shrink_before_sizes_grow():
    tried: list[tuple[int, bool]] = []

    def embed(calls: Sequence[Inputs]) -> None:
        ids = calls[0]["ids"]
        tried.append((ids.size, bool(ids.max() < 2)))
        if not tried[-1][1]:
            raise EngineError("out of bounds")

    first_taken(embed, [TensorInfo("ids", "i64", (40,))], 1)
    assert tried == [(40, False), (40, True)]


def test_sizes_that_are_told_stay():
    assert shapes_tried(1, dims={"x.2": 7}) == [(1, 3, 7), (16, 3, 7)]
    with pytest.raises(EngineError, match=r"^refused 1\n  the inputs were made up"):
        shapes_tried(9, dims={"x": 7})


def test_inputs_that_are_given_stay_and_are_checked():
    given = {"x": np.ones((5, 3, 2), np.float32)}
    assert shapes_tried(0, given=given) == [(5, 3, 2)]
    with pytest.raises(EngineError, match=r"^refused 1\n  the inputs were made up"):
        shapes_tried(1, given=given)
    with pytest.raises(EngineError, match=r"^refused 1$"):
        shapes_tried(1, given=given | {"y": np.ones(2, np.uint8)})
    with pytest.raises(EngineError, match="input 'x' is float32"):
        shapes_tried(0, given={"x": np.ones((5, 4, 2), np.float32)})
    with pytest.raises(EngineError, match="no input 'z'; its inputs: x, y"):
        shapes_tried(0, given={"z": np.ones(1)})


def reflecting(folder: Path) -> Path:
    """An ONNX model that wants more than three columns, and reads a second input."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "columns"]) for name in "xy"
    )
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, None)
    pads = helper.make_tensor("pads", TensorProto.INT64, [4], [0, 3, 0, 3])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Pad", ["a", "pads"], ["b"], mode="reflect"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("ReduceSum", ["y"], ["sum"]),
        helper.make_node("Add", ["c", "sum"], ["result"]),
    ]
    graph = helper.make_graph(nodes, "reflecting", [x, y], [result], [pads])
    path = folder / "reflecting.onnx"
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path
    )
    return path


def pooling(folder: Path) -> Path:
    """A TFLite model that LiteRT cannot prepare with the sizes in its file."""
    sketch = Sketch()
    sketch.subgraph("main")
    open_shape = {"shapeSignature": [1, -1, -1, 1]}
    x = sketch.input("x", (1, 1, 1, 1), **open_shape)
    a = sketch.tensor("a", (1, 1, 1, 1), **open_shape)
    weight = sketch.constant("weight", np.ones((1, 4, 4, 1), np.float32))
    bias = sketch.constant("bias", np.ones(1, np.float32))
    result = sketch.tensor("result", (1, 1, 1, 1), **open_shape)
    sketch.operator("RELU", [x], [a])
    options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideH=1, strideW=1)
    options.dilationHFactor = options.dilationWFactor = 1
    sketch.operator("CONV_2D", [a, weight, bias], [result], options)
    sketch.graph.outputs = [result]
    return sketch.save(folder / "pooling.tflite")


@pytest.mark.parametrize(
    ("make", "sizes"), [(reflecting, "x [1, 16]"), (pooling, "x [1, 16, 16, 1]")]
)
def test_verify_profile_and_bench_find_sizes(
    make, sizes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bundle = make(tmp_path), tmp_path / "bundle"
    assert main(["compile", str(path), "-o", str(bundle), "--cut", "a", "--no-report"]) == 0
    assert main(["verify", str(bundle)]) == 0
    assert f"with {sizes}" in capsys.readouterr().out
    assert (
        main(["profile", str(path), "-o", str(tmp_path / "profile.json"), "--quick", "--runs", "2"])
        == 0
    )
    assert main(["bench", str(path), "--quick", "--runs", "2", "--cuts", "1"]) == 0


def test_profile_makes_up_the_inputs_that_are_not_given(tmp_path: Path) -> None:
    path, profile = reflecting(tmp_path), tmp_path / "profile.json"
    np.save(tmp_path / "x.npy", np.ones((1, 40), np.float32))
    words = ("-o", str(profile), "--quick", "--runs", "2", "--input", f"x={tmp_path / 'x.npy'}")
    assert main(["profile", str(path), *words]) == 0
    assert json.loads(profile.read_text())["prefixes"][0]["output_bytes"] == 164, (
        "a, and the sum of y"
    )
