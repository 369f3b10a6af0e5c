"""Types that a file leaves out are found by ONNX's inference, stand-ins, or the engine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import corpus
from irsplit.base.dtypes import F32, I64, U8
from irsplit.dialects.onnx import ONNX
from irsplit.ir import Model, OpaqueType, TensorType, Value

RUNNABLE = [model for model in corpus.models("models", "micro") if model.format == "onnx"]


def info(name: str, shape: list[Any], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def read(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    initializers: tuple[onnx.TensorProto, ...] = (),
    opset: int = 17,
) -> Model:
    """A model of input x: f32[shape] and output y, whose inner types nobody says."""
    graph = helper.make_graph(
        nodes, "net", [info("x", shape)], [helper.make_empty_tensor_value_info("y")], initializers
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    return ONNX.read(path)


def types(model: Model) -> dict[str, Any]:
    return {value.name: value.type for value in model.entry.values()}


@pytest.mark.parametrize("model", corpus.cases(RUNNABLE))
def test_the_rank_of_every_value_of_the_corpus_is_known(model: corpus.CorpusModel):
    def is_known(value: Value) -> bool:
        return isinstance(value.type, OpaqueType) or (
            isinstance(value.type, TensorType) and value.type.shape is not None
        )

    assert [value for value in ONNX.read(model.path).entry.values() if not is_known(value)] == []


def test_the_onnx_package_may_be_imported_after_its_inference(tmp_path: Path):
    """Inference loads an extension alone; here both meet in an order tested nowhere else."""
    read(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [2, 3],
    )
    code = """
from pathlib import Path
from irsplit.dialects.onnx import ONNX
model = ONNX.read(Path("m.onnx"))
import sys
assert "onnx" not in sys.modules
import onnx.checker, onnx.parser, onnx.shape_inference
whole = onnx.load("m.onnx")
onnx.checker.check_model(onnx.shape_inference.infer_shapes(whole, strict_mode=True))
print(*(value.type.shape for value in model.entry.values()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(2, 3) (2, 3) (2, 3)\n"


def test_shapes_that_the_graph_computes_are_followed(tmp_path: Path):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = (
        numpy_helper.from_array(np.array([0]), "first"),
        helper.make_tensor("rest", TensorProto.INT64, [1], [6]),
    )

    found = types(read(tmp_path / "m.onnx", nodes, ["n", 2, 3], constants))

    assert found["s"] == TensorType(I64, (3,))
    assert found["y"] == TensorType(F32, ("n", 6))


def test_inference_does_not_need_the_weights(tmp_path: Path):
    weight = numpy_helper.from_array(np.zeros((512, 64), np.float32), "w")
    nodes = [
        helper.make_node(
            "Constant", [], ["big"], value=numpy_helper.from_array(np.zeros((64, 8), np.float32))
        ),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "big"], ["y"]),
    ]

    found = types(read(tmp_path / "m.onnx", nodes, ["n", 512], (weight,)))

    assert found["h"] == TensorType(F32, ("n", 64))
    assert found["y"] == TensorType(F32, ("n", 8))


def test_nodes_out_of_order_are_typed(tmp_path: Path):
    nodes = [helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Abs", ["x"], ["h"])]

    model = read(tmp_path / "m.onnx", nodes, [2, 3])

    assert [node.op for node in model.entry.nodes] == ["onnx.Abs", "onnx.Relu"]
    assert types(model)["y"] == TensorType(F32, (2, 3))


def test_operators_dropped_from_onnx_have_stand_ins(tmp_path: Path):
    nodes = [
        helper.make_node("ImageScaler", ["x"], ["h"], scale=2.0),
        helper.make_node("Crop", ["h"], ["y"], border=[1, 2, 3, 4]),
    ]

    assert types(read(tmp_path / "m.onnx", nodes, [1, 3, 20, 20], opset=7))["y"] == TensorType(
        F32, (1, 3, 14, 16)
    )


def test_the_engine_types_its_own_operators(tmp_path: Path):
    scale, zero = (
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.uint8(3), "z"),
    )
    quantized = helper.make_node(
        "QLinearSigmoid", ["q", "s", "z", "s", "z"], ["r"], domain="com.microsoft"
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        quantized,
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]

    found = types(read(tmp_path / "m.onnx", nodes, [2, 3], (scale, zero)))

    assert found["r"] == TensorType(U8, (2, 3))
    assert found["y"] == TensorType(F32, (2, 3))


def test_a_rank_that_depends_on_what_the_inputs_hold_is_not_known(tmp_path: Path):
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["h"], keepdims=0),
        helper.make_node("Log", ["h"], ["y"]),
    ]
    inputs = [info("x", [3, 4, 5]), info("axes", [2], TensorProto.INT64)]
    graph = helper.make_graph(nodes, "net", inputs, [helper.make_empty_tensor_value_info("y")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8),
        tmp_path / "m.onnx",
    )

    found = types(ONNX.read(tmp_path / "m.onnx"))["h"]

    assert found == TensorType(F32, None)  # axes of ones would reduce one dimension, not two


def test_a_rank_that_depends_on_that_of_an_input_is_not_known(tmp_path: Path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Log", ["h"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_empty_tensor_value_info("y")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8),
        tmp_path / "m.onnx",
    )

    found = types(ONNX.read(tmp_path / "m.onnx"))["h"]

    assert found == TensorType(F32, None)  # the engine says the same of a scalar


def test_what_nobody_knows_stays_unknown(tmp_path: Path):
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], domain="com.example"),
        helper.make_node("Relu", ["h"], ["y"]),
    ]

    model = read(tmp_path / "m.onnx", nodes, [2, 3])

    assert types(model) == {"x": TensorType(F32, (2, 3)), "h": None, "y": None}
    assert [node.random for node in model.entry.nodes] == [True, False]


def test_inferred_types_are_not_written_into_an_untouched_model(tmp_path: Path):
    path = tmp_path / "m.onnx"
    model = read(
        path,
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Abs", ["h"], ["y"])],
        [2, 3],
    )

    ONNX.write(model, model.entry, tmp_path / "out.onnx")

    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()
