"""What is no ONNX model, or a damaged one, is refused by a line: what, where, what to do."""

import re
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irsplit.base.errors import IrsplitError, ModelError, UnsupportedError
from irsplit.dialects.onnx import ONNX


def small_model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(32, dtype=np.float32).reshape(8, 4), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["y"], "second"),
    ]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    return helper.make_model(helper.make_graph(nodes, "net", [source], [result], [weight]))


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        ONNX.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"", "it is empty"),
        (b"This is not a real model.", "fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x20\x00\x00\x00TFL3" + bytes(64), "name it .tflite"),
        (b"\x08\x0a", "has no graph"),
        (b"\x3a\x00", "has no IR version"),
        (b"\x08\x0a\x3a\x00\x3a\x00", "2 graphs"),
        (b"\x08" + b"\xff" * 11, "longer than 10 bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused(content: bytes, advice: str, tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    assert advice in refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    assert "no such file" in refusal(tmp_path / "absent.onnx")
    assert "no such file" in refusal(tmp_path)


def test_truncation_at_every_length_is_refused(tmp_path: Path):
    path = tmp_path / "model.onnx"
    content = small_model().SerializeToString()
    graph_end = content.index(b"\x42", content.rindex(b"y"))

    for length in range(graph_end):
        path.write_bytes(content[:length])
        refusal(path)


def test_a_flipped_bit_is_refused_or_read_but_never_a_traceback(tmp_path: Path):
    path = tmp_path / "model.onnx"
    content = small_model().SerializeToString()

    for position in range(0, len(content) * 8, 13):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with suppress(IrsplitError):
            read = ONNX.read(path)
            ONNX.write(read, read.entry, tmp_path / "out.onnx")


def edited(path: Path, edit: str) -> str:
    model = small_model()
    graph = model.graph
    match edit:
        case "undefined":
            graph.node[1].input[0] = "nowhere"
        case "twice":
            graph.node[1].output[0] = "h"
        case "cycle":
            graph.node[0].input[0] = "y"
        case "output":
            graph.output[0].name = "nowhere"
        case "no operator":
            graph.node[0].op_type = ""
        case "nameless weight":
            graph.initializer[0].name = ""
        case "short weight":
            graph.initializer[0].raw_data = bytes(12)
        case _:
            graph.initializer[0].dims[0] = -8
    path.write_bytes(model.SerializeToString())
    return refusal(path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("undefined", "onnx.Relu 'second' reads 'nowhere', which nothing produces"),
        ("twice", "'h' is defined twice in graph 'net'"),
        ("cycle", "depends on its own result"),
        ("output", "the output of graph 'net' reads 'nowhere'"),
        ("no operator", "node 'first' names no operator"),
        ("nameless weight", "an initializer has no name"),
        ("short weight", "tensor 'w' needs 128 bytes of data, but has 12"),
        ("negative", "negative dimension"),
    ],
)
def test_an_inconsistent_graph_is_refused(edit: str, said: str, tmp_path: Path):
    assert said in edited(tmp_path / "model.onnx", edit)


def test_functions_that_call_each_other_are_refused(tmp_path: Path):
    model = small_model()
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for name, callee in (("One", "Two"), ("Two", "One")):
        call = helper.make_node(callee, ["a"], ["b"], domain="local")
        model.functions.append(helper.make_function("local", name, ["a"], ["b"], [call], imports))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    assert "a graph calls itself: 'local.One' <- 'local.Two' <- 'local.One'" in refusal(
        tmp_path / "model.onnx"
    )


def external_model(path: Path, **entries: str) -> None:
    model = small_model()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "names no file"),
        (
            {"location": "absent.bin"},
            "'absent.bin', which is missing; put the file beside the model",
        ),
        ({"location": "../outside.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": "w.bin", "offset": "64"}, "ends at byte 192 of 'w.bin', which has 128 bytes"),
        ({"location": "w.bin", "length": "100"}, "needs 128 bytes, but says it has 100"),
        (
            {"location": "w.bin", "offset": "-4"},
            "offset '-4' of weight 'w' is not a number of bytes",
        ),
    ],
)
def test_external_data_out_of_reach_is_refused(entries: dict[str, str], said: str, tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "outside.bin"
    outside.write_bytes(struct.pack("<32f", *range(32)))
    (folder / "w.bin").write_bytes(outside.read_bytes())
    (folder / "link.bin").symlink_to(outside)
    external_model(folder / "model.onnx", **entries)

    assert said in refusal(folder / "model.onnx")


@pytest.mark.parametrize(
    ("op", "location", "said"),
    [
        ("Constant", "t.bin", "weight 'c' lies in 't.bin', which is missing"),
        ("Constant", "../t.bin", "weight 'c' lies in '../t.bin', outside the model's folder"),
        (
            "ConstantOfShape",
            "t.bin",
            "write it inside of the model: onnx.save(onnx.load(MODEL), NEW)",
        ),
    ],
)
def test_tensor_attributes_in_other_files_that_cannot_be_read(
    op: str, location: str, said: str, tmp_path: Path
):
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    for padding in (0, 10_000):
        constant = helper.make_node(op, [], ["c"], value=tensor, doc_string=" " * padding)
        model = small_model()
        model.graph.node.insert(0, constant)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

        with pytest.raises((ModelError, UnsupportedError), match=re.escape(said)):
            ONNX.read(tmp_path / "model.onnx")


def test_bytes_that_reading_left_alone_are_refused_when_looked_at(tmp_path: Path):
    """An attribute cut short: the node is copied as it is, but its MACs cannot be counted."""
    model = small_model()
    model.graph.node[0].CopyFrom(helper.make_node("Gemm", ["x", "w"], ["h"], "first", transA=1))
    content = model.SerializeToString().replace(
        b"transA\x18\x01\xa0\x01\x02", b"transA\x1a\x7f\xa0\x01\x02"
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    node = ONNX.read(path).entry.nodes[0]

    with pytest.raises(ModelError, match=r"onnx.Gemm 'first' of model.onnx is damaged"):
        ONNX.macs(node)


def test_the_source_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(small_model().SerializeToString())
    read = ONNX.read(path)

    with pytest.raises(UnsupportedError, match="give another path"):
        ONNX.write(read, read.entry, path)
    assert onnx.load(path) == small_model()


def test_a_model_that_the_engine_refuses_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Shapes that contradict each other leave types open: the engine's word is passed on."""
    ends = {"a": [3, 4], "b": [4, 1], "y": [3, 1]}
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ends.items()
    }
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"], "sum"),
        helper.make_node("MatMul", ["c", "b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", [infos["a"], infos["b"]], [infos["y"]])
    path = tmp_path / "torn.onnx"
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path
    )
    assert len(ONNX.read(path).entry.nodes) == 2
    assert "torn.onnx: onnxruntime refuses this model: " in caplog.text
    assert "Incompatible dimensions" in caplog.text
