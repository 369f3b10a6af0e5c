"""Constants as arrays, and multiplications counted by the types."""

from pathlib import Path
from typing import Any

import pytest

import corpus
from corpus import CorpusModel
from irsplit.base.errors import ModelError, UnsupportedError
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import Constant
from tflite_models import Sketch


@pytest.mark.parametrize(
    ("element", "data", "shape", "expected"),
    [
        ("int4", b"\xf1\x07", (3,), [1, -1, 7]),
        ("uint4", b"\xf1\x07", (3,), [1, 15, 7]),
        ("int2", b"\xb1", (4,), [1, 0, -1, -2]),
        ("int64", b"\x02\0\0\0\0\0\0\0", (), 2),
        ("float16", b"\x00\x3c\x00\x40", (2, 1), [[1.0], [2.0]]),
        ("bool", b"\1\0", (2,), [True, False]),
        ("string", b"\2\0\0\0\x10\0\0\0\x12\0\0\0\x13\0\0\0abc", (2,), [b"ab", b"c"]),
    ],
)
def test_constants_as_arrays(
    element: str, data: bytes, shape: tuple[int, ...], expected: Any, tmp_path: Path
):
    sketch = Sketch()
    sketch.subgraph("main")
    constant = sketch.tensor("c", shape, element, buffer=sketch.buffer(data))
    sketch.graph.outputs.append(sketch.then("my_op", [constant, sketch.input("x", (1,))], "y"))
    model = TFLITE.read(sketch.save(tmp_path / "constant.tflite"))
    assert TFLITE.array(model.entry.constants[0]).tolist() == expected
    model.entry.constants[0].constant = Constant.of(data[:-1])
    with pytest.raises(ModelError, match="%c of type"):
        TFLITE.array(model.entry.constants[0])
    with pytest.raises(UnsupportedError, match="%x is no constant tensor"):
        TFLITE.array(model.entry.inputs[0])


# Multiply-accumulates that the makers of these networks publish, in millions.
PUBLISHED_MACS = {
    "mobilenet_v1_025_128_uint8.tflite": 14,
    "mobilenet_v2_inat_bird_uint8.tflite": 300,
    "resnet8_cifar_int8.tflite": 12.5,
    "kws_dscnn_int8.tflite": 2.7,
}


@pytest.mark.parametrize(
    "model", corpus.cases(model for model in corpus.load("models") if model.name in PUBLISHED_MACS)
)
def test_multiplications_are_those_published(model: CorpusModel):
    count = sum(TFLITE.macs(node) for node in TFLITE.read(model.path).entry.nodes)
    assert count / 1e6 == pytest.approx(PUBLISHED_MACS[model.name], rel=0.04)
