"""Models for bench_split_onnx.py from a seed: transformers, and graphs of any number of nodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from irsplit.dialects.base import WriteOptions
from irsplit.dialects.onnx import ONNX

SEED = 7
SEQUENCE = 8
BLOCK = 1 << 25
LIMIT = 2**31 - 1
"""Bytes that a file with everything inside may have."""


@dataclass(frozen=True)
class Transformer:
    """`layers` encoder layers of `hidden` features, four heads; 12 * hidden^2 weights a layer."""

    layers: int
    hidden: int

    @property
    def weight_bytes(self) -> int:
        return 4 * self.layers * (12 * self.hidden**2 + 2 * self.hidden)

    @property
    def middle(self) -> str:
        return f"layer{self.layers // 2 - 1}/out"


def write_transformer(case: Transformer, path: Path, *, inline: bool) -> None:
    """The model with its weights inside, or in `path`.data beside it."""
    outside = path if not inline else path.with_name("outside.onnx")
    data = outside.with_name(f"{outside.name}.data")
    builder = _Transformer(case, data.name)
    outside.write_bytes(builder.model().SerializeToString())
    _write_noise(data, builder.end)
    if inline:
        model = ONNX.read(outside)
        ONNX.write(model, model.entry, path, WriteOptions(external_over=LIMIT))
        outside.unlink()
        data.unlink()


def write_chain(nodes: int, path: Path) -> None:
    """MatMul, Add, LeakyRelu, Softmax and a residual Add, over and over, with exporters' names."""
    rng = np.random.default_rng(SEED)
    protos: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    state = "x"
    for index in range(nodes // 5):
        prefix = f"/layers.{index}"
        for name, shape in (("weight", (8, 8)), ("bias", (8,))):
            array = rng.standard_normal(shape, np.float32) / np.float32(8)
            weights.append(numpy_helper.from_array(array, f"{prefix}/{name}"))
        steps: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
            ("MatMul", [state, f"{prefix}/weight"], {}),
            ("Add", [f"{prefix}/MatMul_output_0", f"{prefix}/bias"], {}),
            ("LeakyRelu", [f"{prefix}/Add_output_0"], {"alpha": 0.1}),
            ("Softmax", [f"{prefix}/LeakyRelu_output_0"], {"axis": -1}),
            ("Sum", [f"{prefix}/Softmax_output_0", state], {}),
        )
        for op, operands, attributes in steps:
            protos.append(
                helper.make_node(
                    op, operands, [f"{prefix}/{op}_output_0"], f"{prefix}/{op}", **attributes
                )
            )
        state = f"{prefix}/Sum_output_0"
    _save(path, protos, weights, state, ["batch", 8])


class _Transformer:
    def __init__(self, case: Transformer, location: str) -> None:
        self.case = case
        self.location = location
        self.end = 0
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [
            helper.make_tensor("heads", TensorProto.INT64, [4], [0, 0, 4, case.hidden // 4]),
            helper.make_tensor("joined", TensorProto.INT64, [3], [0, 0, case.hidden]),
        ]
        self.infos: list[onnx.ValueInfoProto] = []

    def model(self) -> onnx.ModelProto:
        state = "x"
        for index in range(self.case.layers):
            state = self.layer(f"layer{index}", state)
        shape = [1, SEQUENCE, self.case.hidden]
        graph = helper.make_graph(
            self.nodes,
            "transformer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(state, TensorProto.FLOAT, shape)],
            self.weights,
            value_info=self.infos[:-1],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def layer(self, prefix: str, state: str) -> str:
        hidden = self.case.hidden
        normed = self.normalize(f"{prefix}/norm1", state)
        query, key, value = (
            self.heads(f"{prefix}/{part}", normed) for part in ("query", "key", "value")
        )
        turned = self.node("Transpose", [key], f"{prefix}/turned", perm=[0, 2, 3, 1])
        query = self.node("Transpose", [query], f"{prefix}/rows", perm=[0, 2, 1, 3])
        value = self.node("Transpose", [value], f"{prefix}/columns", perm=[0, 2, 1, 3])
        scores = self.node(
            "Softmax",
            [self.node("MatMul", [query, turned], f"{prefix}/scores")],
            f"{prefix}/softmax",
        )
        mixed = self.node("MatMul", [scores, value], f"{prefix}/mixed")
        mixed = self.node("Transpose", [mixed], f"{prefix}/mixed_back", perm=[0, 2, 1, 3])
        mixed = self.node("Reshape", [mixed, "joined"], f"{prefix}/joined")
        attended = self.product(f"{prefix}/projection", mixed, (hidden, hidden))
        state = self.node("Add", [attended, state], f"{prefix}/attended")
        inner = self.product(
            f"{prefix}/up", self.normalize(f"{prefix}/norm2", state), (hidden, 4 * hidden)
        )
        outer = self.product(
            f"{prefix}/down", self.node("Relu", [inner], f"{prefix}/relu"), (4 * hidden, hidden)
        )
        state = self.node("Add", [outer, state], f"{prefix}/out")
        self.infos.append(
            helper.make_tensor_value_info(state, TensorProto.FLOAT, [1, SEQUENCE, hidden])
        )
        return state

    def heads(self, name: str, state: str) -> str:
        projected = self.product(name, state, (self.case.hidden, self.case.hidden))
        return self.node("Reshape", [projected, "heads"], f"{name}/heads")

    def normalize(self, name: str, state: str) -> str:
        return self.node(
            "LayerNormalization", [state, self.weight(f"{name}/scale", (self.case.hidden,))], name
        )

    def product(self, name: str, state: str, shape: tuple[int, ...]) -> str:
        return self.node("MatMul", [state, self.weight(f"{name}/weight", shape)], name)

    def node(self, op: str, operands: list[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, operands, [result], f"{result}/{op}", **attributes))
        return result

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        tensor = TensorProto(
            name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
        )
        length = 4 * int(np.prod(shape))
        for key, value in (("location", self.location), ("offset", self.end), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.end += length
        self.weights.append(tensor)
        return name


def _write_noise(path: Path, size: int) -> None:
    """Seeded noise in the range of trained weights, one block over and over."""
    noise = np.random.default_rng(SEED).standard_normal(BLOCK // 4, np.float32) * np.float32(0.02)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write(noise.data.cast("B")[: size - start])


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    result: str,
    shape: list[int | str],
) -> None:
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
