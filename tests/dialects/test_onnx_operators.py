"""What the dialect knows of operators: multiply-accumulates, cheapness, randomness."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irsplit.dialects.onnx import ONNX
from irsplit.ir import Node, TensorType


def single(
    path: Path, node: onnx.NodeProto, shapes: dict[str, list[Any]], outputs: dict[str, list[Any]]
) -> Node:
    """The only node of a model with these inputs and outputs, all float."""
    graph = helper.make_graph(
        [node],
        "net",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    return ONNX.read(path).entry.nodes[-1]


@pytest.mark.parametrize(
    ("op", "attributes", "shapes", "output", "expected"),
    [
        # 10 x 10 results of 8 channels, each over 3 channels of a 3 x 3 window
        ("Conv", {}, {"x": [1, 3, 12, 12], "w": [8, 3, 3, 3]}, [1, 8, 10, 10], 8 * 100 * 27),
        # depthwise: each over one channel
        (
            "Conv",
            {"group": 8},
            {"x": [1, 8, 12, 12], "w": [8, 1, 3, 3]},
            [1, 8, 10, 10],
            8 * 100 * 9,
        ),
        ("ConvTranspose", {}, {"x": [1, 8, 5, 5], "w": [8, 4, 2, 2]}, [1, 4, 6, 6], 8 * 25 * 16),
        ("MatMul", {}, {"a": [2, 5, 7], "b": [7, 3]}, [2, 5, 3], 2 * 5 * 7 * 3),
        ("MatMul", {}, {"a": [7], "b": [7]}, [], 7),
        ("Gemm", {}, {"a": [4, 6], "b": [6, 5]}, [4, 5], 4 * 6 * 5),
        ("Gemm", {"transA": 1, "transB": 1}, {"a": [6, 4], "b": [5, 6]}, [4, 5], 4 * 6 * 5),
        (
            "Einsum",
            {"equation": "bij,bjk->bik"},
            {"a": [2, 3, 4], "b": [2, 4, 5]},
            [2, 3, 5],
            2 * 3 * 4 * 5,
        ),
        (
            "Einsum",
            {"equation": "...ij,jk->...ik"},
            {"a": [2, 3, 4], "b": [4, 5]},
            [2, 3, 5],
            2 * 3 * 4 * 5,
        ),
        (
            "LSTM",
            {"hidden_size": 4},
            {"x": [9, 2, 3], "w": [1, 16, 3], "r": [1, 16, 4]},
            [9, 1, 2, 4],
            18 * 16 * 7,
        ),
        ("Relu", {}, {"x": [2, 3]}, [2, 3], 0),
    ],
)
def test_multiply_accumulates(
    op: str,
    attributes: dict[str, Any],
    shapes: dict[str, list[int]],
    output: list[int],
    expected: int,
    tmp_path: Path,
):
    node = single(
        tmp_path / "m.onnx",
        helper.make_node(op, list(shapes), ["y"], **attributes),
        shapes,
        {"y": output},
    )

    assert ONNX.macs(node) == expected


def test_symbols_count_as_given_and_unknown_dimensions_as_one(tmp_path: Path):
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    node = single(
        tmp_path / "m.onnx", node, {"a": ["n", None, 7], "b": [7, 3]}, {"y": ["n", None, 3]}
    )

    assert ONNX.macs(node) == 21
    for value in (*node.inputs, *node.outputs):
        assert value is not None
        assert isinstance(value.type, TensorType)
        sizes = [7 if value.name == "a" else 3] if value.name != "b" else []
        value.type = replace(value.type, assumed=(10, 1, *sizes) if sizes else None)
    assert ONNX.macs(node) == 210


def test_a_loop_counts_its_body_as_often_as_it_runs(tmp_path: Path):
    def info(name: str, dtype: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, shape)

    product = helper.make_node("MatMul", ["state", "w"], ["next"])
    body = helper.make_graph(
        [product, helper.make_node("Identity", ["going"], ["on"])],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, [2, 3]),
        ],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, [2, 3])],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    weights = [
        numpy_helper.from_array(np.array(5), "times"),
        numpy_helper.from_array(np.ones((3, 3), np.float32), "w"),
    ]
    result = info("y", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(
        [loop], "net", [info("x", TensorProto.FLOAT, [2, 3])], [result], weights
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())

    assert ONNX.macs(ONNX.read(path).entry.nodes[0]) == 5 * 2 * 3 * 3


@pytest.mark.parametrize(
    ("op", "cheap"), [("Shape", True), ("Add", True), ("MatMul", False), ("Softmax", False)]
)
def test_cheap_operators(op: str, cheap: bool, tmp_path: Path):
    names = ["a", "b"] if op in ("Add", "MatMul") else ["a"]
    shapes = {name: [3, 3] for name in names}
    node = single(tmp_path / "m.onnx", helper.make_node(op, names, ["y"]), shapes, {"y": [3, 3]})

    assert ONNX.is_cheap(node) is cheap


def dropout(path: Path, training: bool | None) -> Node:
    constants = (
        [] if training is None else [numpy_helper.from_array(np.array(training), "training")]
    )
    node = helper.make_node("Dropout", ["x", "", "" if training is None else "training"], ["y"])
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph([node], "net", [source], [result], constants)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return ONNX.read(path).entry.nodes[0]


@pytest.mark.parametrize(("training", "random"), [(None, False), (False, False), (True, True)])
def test_dropout_is_random_in_training_only(training: bool | None, random: bool, tmp_path: Path):
    node = dropout(tmp_path / "m.onnx", training)

    assert node.random is random
    assert ONNX.is_cheap(node) is not random


def test_a_node_with_something_random_inside_is_random(tmp_path: Path):
    noise = helper.make_node("RandomNormal", [], ["noise"], shape=[3])
    calm = helper.make_node("Identity", ["x"], ["same"])
    branches = [
        helper.make_graph(
            [node],
            name,
            [],
            [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [3])],
        )
        for node, name in ((noise, "then"), (calm, "else"))
    ]
    choice = helper.make_node("If", ["c"], ["h"], then_branch=branches[0], else_branch=branches[1])
    function = helper.make_function(
        "local",
        "Noise",
        ["a"],
        ["b"],
        [helper.make_node("RandomUniformLike", ["a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    call = helper.make_node("Noise", ["h"], ["g"], domain="local")
    inner = helper.make_node("Noise", ["g"], ["noisy"], domain="local")
    calling = [
        helper.make_graph(
            [node],
            name,
            [],
            [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [3])],
        )
        for node, name in ((inner, "then"), (calm, "else"))
    ]
    last = helper.make_node("If", ["c"], ["y"], then_branch=calling[0], else_branch=calling[1])
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph([choice, call, last], "net", [source, condition], [result])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, functions=[function], opset_imports=imports).SerializeToString()
    )

    assert [node.random for node in ONNX.read(path).entry.nodes] == [True, True, True]


def test_bodies_are_found_in_nodes_of_any_size(tmp_path: Path):
    identity = helper.make_node("Identity", ["x"], ["same"])
    result = helper.make_tensor_value_info("same", TensorProto.FLOAT, [3])
    branch = helper.make_graph([identity], "branch", [], [result])
    for padding in (0, 10_000):
        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=branch, else_branch=branch, doc_string=" " * padding
        )
        node = single(tmp_path / f"{padding}.onnx", node, {"x": [3], "c": []}, {"y": [3]})

        assert [len(body.nodes) for body in node.graphs] == [1, 1]
