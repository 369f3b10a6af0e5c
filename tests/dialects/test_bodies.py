"""What runs inside of a node: bodies and called graphs, priced by the nodes in them."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from irsplit.dialects.onnx import ONNX
from irsplit.dialects.tflite.operators import summed
from irsplit.ir import Graph, Node, Value
from irsplit.measure.device_fit import FEATURES, features
from irsplit.passes.planning.stages import estimated_ns
from irsplit.profiles import Device

DEVICE = Device(
    "d", {"conv": 10**9, "depthwise": 10**9, "matmul": 10**9}, bytes_s=10**9, overhead_ns=1000
)


def tensor(name: str, shape: tuple[int, ...] = (4, 4)) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def branch(name: str, operators: list[str]) -> object:
    names = ["x", *(f"{name}{index}" for index in range(len(operators)))]
    nodes = [
        helper.make_node(op, [names[i]] * (2 if op == "MatMul" else 1), [names[i + 1]])
        for i, op in enumerate(operators)
    ]
    return helper.make_graph(nodes, name, [], [tensor(names[-1])])


def read(folder: Path, node: object, constants: dict[str, np.ndarray]) -> Node:
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "main", [tensor("x")], [tensor("y")], initializer=held)
    path = folder / "m.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return ONNX.read(path).entry.nodes[-1]


def test_the_dearest_branch_counts(tmp_path: Path):
    branches = {
        "then_branch": branch("t", ["Relu", "MatMul"]),
        "else_branch": branch("e", ["Relu"]),
    }
    node = read(tmp_path, helper.make_node("If", ["c"], ["y"], **branches), {"c": np.array(True)})
    assert ONNX.summed(node, lambda node: 1) == 2
    assert estimated_ns([node], ONNX.macs, [DEVICE], ONNX.summed) == [2 * 1000 + 128 + 64]
    assert ONNX.macs(node) == 64
    counted = dict(zip(FEATURES, features([node], ONNX.macs, ONNX.summed), strict=True))
    assert counted == {"conv": 0, "depthwise": 0, "matmul": 64, "bytes": 128, "operators": 2}, (
        "what a fit learns from"
    )


@pytest.mark.parametrize(("trips", "runs"), [(np.array(5, np.int64), 5), (None, 1)])
def test_a_loop_runs_as_often_as_is_written_down(
    tmp_path: Path, trips: np.ndarray | None, runs: int
):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["b"], ["more"]),
            helper.make_node("MatMul", ["s", "s"], ["t"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("b", TensorProto.BOOL, ()),
            tensor("s"),
        ],
        [helper.make_tensor_value_info("more", TensorProto.BOOL, ()), tensor("t")],
    )
    constants = {"c": np.array(True), **({} if trips is None else {"n": trips})}
    node = read(
        tmp_path,
        helper.make_node("Loop", ["n" if "n" in constants else "", "c", "x"], ["y"], body=body),
        constants,
    )
    assert ONNX.summed(node, lambda node: 1) == 2 * runs
    assert ONNX.macs(node) == 64 * runs
    assert estimated_ns([node], ONNX.macs, [DEVICE], ONNX.summed)[0] > runs * (2 * 1000 + 64)


def test_functions_that_call_functions_twice_are_looked_at_once():
    inner = Graph("f0", nodes=[Node("onnx.Relu")])
    for level in range(40):
        inner = Graph(f"f{level + 1}", nodes=[Node("local.f", callees=(inner,)) for _ in range(2)])
    assert ONNX.summed(Node("local.f", callees=(inner,)), lambda node: 1) == 1 << 40


def test_called_graphs_of_tflite():
    """Branches that share a graph, and one that calls itself, are summed once."""

    def calling(op: str, *callees: Graph) -> Node:
        return Node(op, [], [Value("v")], callees=callees)

    small = Graph("small", nodes=[Node("tflite.RELU", [], [Value("a")])])
    large = Graph(
        "large",
        nodes=[Node("tflite.RELU", [], [Value("b")]), calling("tflite.WHILE", small, small)],
    )
    large.nodes.append(calling("tflite.CALL", large))
    assert summed(calling("tflite.IF", small, large), lambda node: 1) == 3
    assert summed(calling("tflite.WHILE", small, large), lambda node: 1) == 4
