"""What a pass changes is written as changed: new nodes, constants, names, types and bodies."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from irsplit.base.dtypes import F32
from irsplit.dialects.onnx import ONNX
from irsplit.ir import Constant, Model, Node, TensorType, Value, verify
from stock_engines import open_model

X = np.array([[-2.0, 4.0]], np.float32)


def info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])


def read(path: Path, nodes: list[onnx.NodeProto]) -> Model:
    """A model from x to y: f32[1,2], with a weight w = 10 and a condition c."""
    weights = [
        numpy_helper.from_array(np.float32(10), "w"),
        numpy_helper.from_array(np.array(True), "c"),
    ]
    graph = helper.make_graph(
        nodes, "net", [info("x")], [info("y")], weights, value_info=[info("h")]
    )
    imports = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    return ONNX.read(path)


def run(model: Model, path: Path) -> Any:
    verify(model)
    ONNX.write(model, model.entry, path)
    onnx.checker.check_model(path, full_check=True)
    (result,) = open_model(path).run([X])
    return result.tolist()


def test_a_node_and_a_constant_that_a_pass_makes(tmp_path: Path):
    model = read(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "w"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
    )
    (add, negate), entry = model.entry.nodes, model.entry
    two = Value("two", TensorType(F32, ()), Constant.of(np.float32(2).tobytes()))
    entry.constants.append(two)
    leaky, scaled = Value("leaky", add.outputs[0] and add.outputs[0].type), Value("scaled")
    nodes = [
        Node("onnx.LeakyRelu", [entry.inputs[0]], [leaky], attributes={"alpha": 0.5}),
        Node("onnx.Mul", [leaky, two], [scaled], name="made"),
    ]
    entry.nodes[:0] = nodes
    add.set_input(0, scaled)

    assert run(model, tmp_path / "out.onnx") == [[-8.0, -18.0]]
    assert negate in entry.nodes


def test_attributes_of_every_kind(tmp_path: Path):
    model = read(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
    )
    attributes = {
        "i": -3,
        "f": 0.25,
        "s": "word",
        "ints": [1, -2],
        "floats": [0.5, 1.5],
        "strings": ["a", "b"],
    }
    source = model.entry.inputs[0]
    model.entry.nodes.append(
        Node("com.example.Odd", [source], [Value("odd")], attributes=dict(attributes))
    )

    ONNX.write(model, model.entry, tmp_path / "out.onnx")

    whole = onnx.load(tmp_path / "out.onnx")
    assert [(entry.domain, entry.version) for entry in whole.opset_import] == [
        ("", 17),
        ("com.example", 1),
    ]
    written = whole.graph.node[-1]
    found = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in written.attribute
    }
    assert (written.domain, written.op_type) == ("com.example", "Odd")
    assert found == {**attributes, "s": b"word", "strings": [b"a", b"b"]}


def test_a_renamed_value(tmp_path: Path):
    model = read(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "w"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
    )
    (value,) = model.entry.nodes[0].outputs
    assert value is not None
    value.name = "renamed"

    assert run(model, tmp_path / "out.onnx") == [[-8.0, -14.0]]
    written = onnx.load(tmp_path / "out.onnx").graph
    assert (written.node[0].output, written.node[1].input) == (["renamed"], ["renamed"])
    assert not written.value_info


def test_another_type(tmp_path: Path):
    model = read(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "w"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
    )
    for value in (
        *model.entry.inputs,
        *model.entry.outputs,
        *(node.outputs[0] for node in model.entry.nodes),
    ):
        assert value is not None
        value.type = TensorType(F32, ("batch", 2))

    assert run(model, tmp_path / "out.onnx") == [[-8.0, -14.0]]
    written = onnx.load(tmp_path / "out.onnx").graph
    dims = [
        value.type.tensor_type.shape.dim[0].dim_param
        for value in (*written.input, *written.value_info)
    ]
    assert dims == ["batch", "batch"]


def test_other_contents_of_a_constant(tmp_path: Path):
    model = read(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "w"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
    )
    weight = next(value for value in model.entry.constants if value.name == "w")
    weight.constant = Constant.of(np.float32(100).tobytes())

    assert run(model, tmp_path / "out.onnx") == [[-98.0, -104.0]]


def test_an_edited_body_and_what_is_beside_it(tmp_path: Path):
    """One branch gets another node; the other, the node's name and its documentation stay."""
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x"], [op])], f"branch{op}", [], [info(op)], doc_string="kept"
        )
        for op in ("Abs", "Relu")
    ]
    choice = helper.make_node(
        "If", ["c"], ["h"], "choice", then_branch=branches[0], else_branch=branches[1]
    )
    model = read(tmp_path / "m.onnx", [choice, helper.make_node("Add", ["h", "w"], ["y"])])
    body = next(graph for graph in model.entry.nodes[0].graphs if graph.name == "branchAbs")
    (result,) = body.outputs
    doubled = Value("doubled", result.type)
    body.nodes.append(Node("onnx.Add", [result, result], [doubled]))
    body.outputs[0] = doubled

    assert run(model, tmp_path / "out.onnx") == [[14.0, 18.0]]
    written = onnx.load(tmp_path / "out.onnx").graph.node[0]
    assert written.name == "choice"
    bodies = {attribute.name: attribute.g for attribute in written.attribute}
    assert bodies["then_branch"].doc_string == "kept"
    assert bodies["else_branch"] == branches[1]
