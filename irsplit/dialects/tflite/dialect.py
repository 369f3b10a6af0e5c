"""The TFLite dialect: the door between .tflite files and the IR."""

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
    """TFLite files: FlatBuffers with the identifier TFL3."""

    name = "tflite"
    extensions: tuple[str, ...] = (".tflite", ".lite")
    engine = "tflite"
    layout: Layout = "NHWC"

    def read(self, path: Path, entry: str | None = None) -> Model:
        """`entry` names the signature or subgraph to split, by default the first subgraph."""
        return read_model(path, entry)

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]:
        return write_model(model, graph, path, options)

    def array(self, value: Value) -> Any:
        return array(value)

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        return affine(model, source, target)

    def macs(self, node: Node) -> int:
        return operators.macs(node)

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        return operators.summed(node, own)

    def operator_class(self, node: Node) -> OperatorClass:
        return class_of_name(node.op)

    def is_cheap(self, node: Node) -> bool:
        return operators.is_cheap(node)

    def is_shape(self, node: Node) -> bool:
        return operators.is_shape(node)

    def head_role(self, node: Node) -> HeadRole:
        return operators.head_role(node)
