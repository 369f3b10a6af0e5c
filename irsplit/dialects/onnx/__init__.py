"""The ONNX dialect: ModelProto files to IR and back, by spans of the file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irsplit.base.errors import UnsupportedError
from irsplit.dialects.base import Layout, OperatorClass, WriteOptions
from irsplit.dialects.onnx import operators
from irsplit.dialects.onnx.affine import affine
from irsplit.dialects.onnx.constants import constant_array
from irsplit.dialects.onnx.inference import shapes_at
from irsplit.dialects.onnx.macs import macs, summed
from irsplit.dialects.onnx.reader import read_model
from irsplit.dialects.onnx.writer import write_model
from irsplit.ir import Graph, HeadRole, Model, Node, Value


class OnnxDialect:
    """ONNX files: protobuf messages, with weights inside or in files beside them."""

    name = "onnx"
    extensions: tuple[str, ...] = (".onnx",)
    engine = "onnx"
    layout: Layout = "NCHW"

    def read(self, path: Path, entry: str | None = None) -> Model:
        """Read a model; `entry` must be None, because an ONNX model has one main graph."""
        if entry is not None:
            raise UnsupportedError(
                f"{path}: an ONNX model has one graph to enter; leave '{entry}' out"
            )
        return read_model(path)

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]:
        return write_model(model, graph, path, options)

    def array(self, value: Value) -> Any:
        return constant_array(value)

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        return affine(model, source, target)

    def macs(self, node: Node) -> int:
        return macs(node)

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        return summed(node, own)

    def operator_class(self, node: Node) -> OperatorClass:
        return operators.operator_class(node)

    def is_cheap(self, node: Node) -> bool:
        return operators.is_cheap(node)

    def is_shape(self, node: Node) -> bool:
        return operators.is_shape(node)

    def head_role(self, node: Node) -> HeadRole:
        return operators.head_role(node)

    def shapes_at(
        self, model: Model, sizes: Sequence[Mapping[str, int]]
    ) -> list[dict[str, tuple[int, ...]]]:
        """Shapes of all values by name, for each of several sizes of the open dimensions."""
        return shapes_at(model, sizes)


ONNX = OnnxDialect()
