"""The class of an operator, which selects a device's rate: by name, and by the shape of filters."""

import pytest

from irsplit.dialects.base import OperatorClass
from irsplit.dialects.onnx import ONNX
from irsplit.dialects.registry import dialect
from irsplit.ir import Node, parse_model


def node_of(line: str) -> Node:
    """The one node of a graph with an image, filters of two kinds and a vector."""
    text = (
        "model onnx\n"
        "graph @main(%image: f32[1,8,32,32], %full: f32[16,8,3,3], %single: f32[8,1,3,3],"
        " %vector: f32[8]) -> (%y) {\n"
        f"  %y = {line} : f32[1,8,30,30]\n"
        "}\n"
    )
    return parse_model(text).entry.nodes[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("onnx.Conv(%image, %full)", "conv"),
        ("onnx.Conv(%image, %single)", "depthwise"),
        ("onnx.Conv(%image, %vector)", "conv"),
        ("onnx.Conv(%vector, %single)", "conv"),
        ("onnx.Conv(%image)", "conv"),
        ("onnx.ConvTranspose(%image, %full)", "conv"),
        ("com.microsoft.FusedConv(%image, %single)", "conv"),
        ("onnx.MatMul(%image, %image)", "matmul"),
        ("onnx.LSTM(%image, %full)", "matmul"),
        ("onnx.Relu(%image)", "other"),
    ],
)
def test_class_of_an_onnx_operator(line: str, expected: OperatorClass) -> None:
    assert ONNX.operator_class(node_of(line)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tflite.CONV_2D(%image, %full)", "conv"),
        ("tflite.TRANSPOSE_CONV(%image, %full)", "conv"),
        ("tflite.DEPTHWISE_CONV_2D(%image, %single)", "depthwise"),
        ("tflite.FULLY_CONNECTED(%image, %full)", "matmul"),
        ("tflite.RELU(%image)", "other"),
    ],
)
def test_class_of_a_tflite_operator(line: str, expected: OperatorClass) -> None:
    assert dialect("tflite").operator_class(node_of(line)) == expected


def test_engine_and_layout() -> None:
    assert (ONNX.engine, ONNX.layout) == ("onnx", "NCHW")
    tflite = dialect("tflite")
    assert (tflite.engine, tflite.layout) == ("tflite", "NHWC")
