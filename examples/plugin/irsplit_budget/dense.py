"""A dialect: .dense files become IR, IR becomes .dense files, and what is known of the layers."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base import dtypes
from irsplit.base.errors import ModelError, UnsupportedError
from irsplit.dialects.base import Layout, OperatorClass, WriteOptions
from irsplit.ir import Constant, Graph, HeadRole, Model, Node, TensorType, Value
from irsplit_budget.dense_engine import Layer, Network, parse, text


class DenseDialect:
    """Networks of dense layers, as JSON.

    A layer is a node `dense.<activation>` with three operands: what it reads, weight and bias.
    """

    name = "dense"
    extensions: tuple[str, ...] = (".dense",)
    engine = "dense"
    layout: Layout = "NHWC"

    # -- files ------------------------------------------------------------------------------------

    def read(self, path: Path, entry: str | None = None) -> Model:
        """Read a file. Raises ModelError for a damaged one."""
        try:
            network = parse(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: no .dense file: {error}; write it again") from error

        graph = Graph("main")
        values: dict[str, Value] = {}
        for name, size in network.inputs.items():
            values[name] = Value(name, TensorType(dtypes.F32, (1, size)))
            graph.inputs.append(values[name])

        for layer in network.layers:
            weight = _constant(f"{layer.name}/weight", layer.weight)
            bias = _constant(f"{layer.name}/bias", layer.bias)
            result = Value(layer.name, TensorType(dtypes.F32, (1, layer.bias.size)))
            operands = (values[layer.reads], weight, bias)
            node = Node(f"dense.{layer.activation}", operands, (result,), name=layer.name)
            graph.constants += [weight, bias]
            graph.nodes.append(node)
            values[layer.name] = result

        graph.outputs = [values[name] for name in network.outputs]
        return Model("dense", [graph])

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]:
        """Write a graph: the whole model, or one segment of it."""
        inputs: dict[str, int] = {}
        for value in graph.inputs:
            assert isinstance(value.type, TensorType)
            assert value.type.shape is not None
            features = value.type.shape[-1]
            if value.type.dtype != dtypes.F32 or not isinstance(features, int):
                raise UnsupportedError(
                    f"{value} is {value.type.dtype}; a .dense file holds f32[1, N]"
                )
            inputs[value.name] = features

        layers: list[Layer] = []
        for node in graph.nodes:
            source, weight, bias = node.inputs
            (result,) = node.outputs
            assert source is not None
            assert result is not None
            activation = node.op.removeprefix("dense.")
            arrays = self.array(weight), self.array(bias)
            layers.append(Layer(result.name, source.name, activation, *arrays))

        network = Network(inputs, layers, [value.name for value in graph.outputs])
        path.write_text(text(network), encoding="utf-8")
        return [path]

    def array(self, value: Value | None) -> Any:
        """The elements of a weight or bias."""
        assert value is not None
        assert value.constant is not None
        assert isinstance(value.type, TensorType)
        flat = np.frombuffer(value.constant.view(), np.float32)
        return flat.reshape([size for size in value.type.shape or () if isinstance(size, int)])

    # -- operators --------------------------------------------------------------------------------

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        raise UnsupportedError("a .dense file cannot quantize; leave quantization to the runtime")

    def macs(self, node: Node) -> int:
        """One multiplication for each number in the weight."""
        weight = node.inputs[1]
        assert weight is not None
        assert isinstance(weight.type, TensorType)
        return prod(weight.type.estimated_shape or ())

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        """No layer has a body, so the cost is always the node's own."""
        return own(node)

    def operator_class(self, node: Node) -> OperatorClass:
        return "matmul"

    def is_cheap(self, node: Node) -> bool:
        return False

    def is_shape(self, node: Node) -> bool:
        return False

    def head_role(self, node: Node) -> HeadRole:
        return ""


def _constant(name: str, array: Any) -> Value:
    data = Constant.of(array.tobytes())
    return Value(name, TensorType(dtypes.F32, array.shape), data)


DENSE = DenseDialect()
