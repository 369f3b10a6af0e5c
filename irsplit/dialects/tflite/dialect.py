"""The TFLite dialect: everything that the rest of irsplit asks of .tflite files and operators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from irsplit.dialects.base import Layout, OperatorClass, WriteOptions
from irsplit.dialects.operator_classes import class_of_name
from irsplit.dialects.tflite import operators
from irsplit.dialects.tflite.affine import affine
from irsplit.dialects.tflite.arrays import array
from irsplit.dialects.tflite.reader import read_model
from irsplit.dialects.tflite.writer import write_model
from irsplit.ir import Graph, HeadRole, Model, Node, Value


class TfliteDialect:
    """TFLite files, which are FlatBuffers with the identifier TFL3; see `irsplit.dialects.base`."""

    name = "tflite"
    extensions: tuple[str, ...] = (".tflite", ".lite")
    engine = "tflite"
    layout: Layout = "NHWC"

    def read(self, path: Path, entry: str | None = None) -> Model:
        """Read a model; `entry` names the signature or subgraph to split, by default the first."""
        return read_model(path, entry)

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]:
        """Write a graph of a model as a file, and return the files that were written."""
        return write_model(model, graph, path, options)

    def array(self, value: Value) -> Any:
        """The elements of a constant as a numpy array."""
        return array(value)

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        """The node that quantizes or dequantizes a value."""
        return affine(model, source, target)

    def macs(self, node: Node) -> int:
        """Multiply-accumulate operations of a node, including all that it calls."""
        return operators.macs(node)

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        """A cost of a node, including all that it calls."""
        return operators.summed(node, own)

    def operator_class(self, node: Node) -> OperatorClass:
        return class_of_name(node.op)

    def is_cheap(self, node: Node) -> bool:
        """Whether recomputing the node costs no more than reading its operands."""
        return operators.is_cheap(node)

    def is_shape(self, node: Node) -> bool:
        """Whether the node reads the shape of its operand and none of its elements."""
        return operators.is_shape(node)

    def head_role(self, node: Node) -> HeadRole:
        """What the node does to the outputs of a model that ends with it."""
        return operators.head_role(node)
