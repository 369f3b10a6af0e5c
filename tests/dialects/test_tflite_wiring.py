"""New numbers for a segment's tensors, subgraphs, buffers and signatures; names that stay."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_objects
from irsplit.base.errors import ModelError, UnsupportedError
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite import TFLITE, writer
from irsplit.ir import Buffer, Constant, Node, TensorType, Value, verify
from stock_engines import open_model
from tflite_models import Sketch


def test_called_subgraphs_get_new_numbers(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    choice, branch = sketch.input("choice", (), "bool"), sketch.input("branch", (), "int32")
    x = sketch.input("x", (1, 2))
    first = sketch.then("IF", [choice, x], "first", (1, 2), options=schema.IfOptionsT(2, 3))
    options = schema.StablehloCaseOptionsT(branchSubgraphIndices=[4, 2])
    last = sketch.then("STABLEHLO_CASE", [branch, first], "last", (1, 2), options=options)
    sketch.graph.outputs.append(last)
    for name in ("unused", "then", "else", "other"):
        sketch.subgraph(name)
        sketch.chain(name)
    model = TFLITE.read(sketch.save(tmp_path / "calls.tflite"))
    verify(model)
    assert [[graph.name for graph in node.callees] for node in model.entry.nodes] == [
        ["then", "else"],
        ["other", "then"],
    ]
    near, far = (
        tflite_objects.write(model, graph, tmp_path) for graph in tflite_objects.halves(model, 1)
    )
    assert [graph.name for graph in near.subgraphs] == [b"main", b"then", b"else"]
    assert vars(near.subgraphs[0].operators[0].builtinOptions) == {
        "thenSubgraphIndex": 1,
        "elseSubgraphIndex": 2,
    }
    assert [graph.name for graph in far.subgraphs] == [b"main", b"then", b"other"]
    assert far.subgraphs[0].operators[0].builtinOptions2.branchSubgraphIndices.tolist() == [2, 1]


def test_names_that_repeat_or_are_missing(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("same", "same", "x#2", "x", "plain")
    sketch.graph.tensors[-1].name = None
    model = TFLITE.read(sketch.save(tmp_path / "names.tflite"))
    verify(model)
    assert [value.name for value in model.entry.values()] == [
        "x",
        "same",
        "same#2",
        "x#2",
        "x#3",
        "tensor_5",
    ]
    near, far = (
        tflite_objects.write(model, graph, tmp_path).subgraphs[0]
        for graph in tflite_objects.halves(model, 2)
    )
    assert [tensor.name for tensor in near.tensors + far.tensors] == [
        b"x",
        b"same",
        b"same",
        b"same",
        b"x#2",
        b"x",
        None,
    ]


def test_tensor_written_twice_is_two_values(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    x = sketch.input("x", (1, 2))
    sketch.operator("ABS", [x], [x], schema.AbsOptionsT())
    sketch.graph.outputs.append(sketch.then("NEG", [x], "y", (1, 2), options=schema.NegOptionsT()))
    model = TFLITE.read(sketch.save(tmp_path / "in_place.tflite"))
    verify(model)
    assert [value.name for value in model.entry.values()] == ["x", "x#2", "y"]
    whole = tflite_objects.write(model, model.entry, tmp_path)
    assert (
        tflite_objects.difference(whole, tflite_objects.load(tmp_path / "in_place.tflite")) is None
    )
    near = tflite_objects.write(model, tflite_objects.halves(model)[0], tmp_path).subgraphs[0]
    assert [near.operators[0].inputs.tolist(), near.operators[0].outputs.tolist()] == [[0], [1]]


def signature(key: str, graph: int, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    maps = ([schema.TensorMapT(name=name, tensorIndex=index) for name, index in items.items()]
            for items in (inputs, outputs))  # fmt: skip
    return schema.SignatureDefT(*maps, signatureKey=key, subgraphIndex=graph)


def two_signatures(path: Path) -> Path:
    sketch = Sketch()
    for name in ("encode", "decode"):
        sketch.subgraph(name)
        sketch.chain(f"{name}_near", f"{name}_far")
    sketch.model.signatureDefs = [
        signature("enc", 0, {"samples": 0}, {"codes": 2}),
        signature("dec", 1, {"codes": 0}, {"samples": 2}),
        signature("dec_alias", 1, {"c": 0}, {"s": 2}),
    ]
    return sketch.save(path)


def test_every_name_that_a_signature_has_for_a_tensor_stays(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("a", "y")
    last = sketch.graph.outputs[0]
    outputs = [schema.TensorMapT("one", last), schema.TensorMapT("two", last)]
    sketch.model.signatureDefs = [
        schema.SignatureDefT([schema.TensorMapT("x", 0)], outputs, "serve")
    ]
    model = TFLITE.read(sketch.save(tmp_path / "signature.tflite"))
    _, far = (
        tflite_objects.write(model, graph, tmp_path) for graph in tflite_objects.halves(model)
    )
    assert [(item.name, item.tensorIndex) for item in far.signatureDefs[0].outputs] == [
        (b"one", 1),
        (b"two", 1),
    ]


@pytest.mark.parametrize(("entry", "index"), [("dec", 1), ("decode", 1), ("enc", 0), (None, 0)])
def test_one_signature_of_several_is_split(entry: str | None, index: int, tmp_path: Path):
    path = two_signatures(tmp_path / "two.tflite")
    model = TFLITE.read(path, entry)
    verify(model)
    assert model.entry.name == ("encode", "decode")[index]
    assert (
        tflite_objects.difference(
            tflite_objects.write(model, model.entry, tmp_path), tflite_objects.load(path)
        )
        is None
    )
    near, far = (
        tflite_objects.write(model, graph, tmp_path) for graph in tflite_objects.halves(model)
    )
    assert [len(near.subgraphs), len(far.subgraphs)] == [1, 1]
    defs = [part.signatureDefs[0] for part in (near, far)]
    keys = [
        [(item.name, item.tensorIndex) for item in maps]
        for own in defs
        for maps in (own.inputs, own.outputs)
    ]
    first, last = ((b"samples", b"codes"), (b"codes", b"samples"))[index]
    middle = f"{model.entry.name}_near".encode()
    assert keys == [[(first, 0)], [(middle, 1)], [(middle, 0)], [(last, 1)]]
    assert [item.signatureKey for item in near.signatureDefs] == ([b"enc"], [b"dec", b"dec_alias"])[
        index
    ]
    assert {item.subgraphIndex for part in (near, far) for item in part.signatureDefs} == {0}


def test_unknown_signature_is_refused(tmp_path: Path):
    with pytest.raises(
        ModelError,
        match="no signature or subgraph is named 'train'; known: enc, dec, dec_alias, encode",
    ):
        TFLITE.read(two_signatures(tmp_path / "two.tflite"), "train")


def test_metadata_goes_along_unless_it_speaks_of_positions(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    weights = sketch.constant("w", np.ones((1, 2), np.float32))
    middle = sketch.then(
        "ADD", [sketch.input("x", (1, 2)), weights], "near", (1, 2), options=schema.AddOptionsT()
    )
    sketch.graph.outputs.append(
        sketch.then("ABS", [middle], "far", (1, 2), options=schema.AbsOptionsT())
    )
    contents = {
        "TFLITE_METADATA": b"about inputs",
        "min_runtime_version": b"1.5.0",
        "mine": b"kept",
    }
    sketch.model.metadata = [
        schema.MetadataT(name=k, buffer=sketch.buffer(v)) for k, v in contents.items()
    ]
    sketch.model.metadataBuffer = [item.buffer for item in sketch.model.metadata]
    model = TFLITE.read(sketch.save(tmp_path / "metadata.tflite"))
    far = tflite_objects.write(
        model, tflite_objects.halves(model)[1], tmp_path, WriteOptions(external_over=0)
    )
    found = {item.name: far.buffers[item.buffer].data.tobytes() for item in far.metadata}
    assert found == {b"min_runtime_version": b"1.5.0", b"mine": b"kept"}
    assert len(far.buffers) == 3
    assert far.metadataBuffer.tolist() == [item.buffer for item in far.metadata]


def test_too_much_for_offsets_goes_behind_the_flatbuffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Offsets of a flatbuffer reach 2 GB: with a limit of a few bytes in its place."""
    monkeypatch.setattr(writer, "INLINE_LIMIT", 100)
    sketch = Sketch()
    sketch.subgraph("main")
    weights = sketch.constant("w", np.ones((1, 64), np.float32))
    sketch.graph.outputs.append(
        sketch.then("ADD", [sketch.input("x", (1, 64)), weights], "y", (1, 64))
    )
    path = sketch.save(tmp_path / "large.tflite")
    model = TFLITE.read(path)
    (written,) = TFLITE.write(model, model.entry, tmp_path / "written.tflite")
    raw = schema.ModelT.InitFromObj(schema.Model.GetRootAs(written.read_bytes(), 0))
    assert [raw.buffers[1].data, raw.buffers[1].size] == [None, 256]
    assert (
        tflite_objects.difference(tflite_objects.load(written), tflite_objects.load(path)) is None
    )


def test_small_buffers_stay_inside(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    choice = sketch.constant("choice", np.array([True]))
    x, weights = sketch.input("x", (1, 64)), sketch.constant("w", np.ones((1, 64), np.float32))
    sketch.graph.outputs.append(sketch.then("SELECT_V2", [choice, weights, x], "y", (1, 64)))
    model = TFLITE.read(sketch.save(tmp_path / "choice.tflite"))
    (written,) = TFLITE.write(
        model, model.entry, tmp_path / "written.tflite", WriteOptions(external_over=0)
    )
    raw = schema.ModelT.InitFromObj(schema.Model.GetRootAs(written.read_bytes(), 0))
    assert [buffer.size for buffer in raw.buffers] == [0, 0, 256]
    assert open_model(written).run([np.zeros((1, 64), np.float32)])[0].tolist() == [[1.0] * 64]


def test_shared_buffer_is_written_once(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    first = sketch.constant("a", np.full((1, 2), 3, np.float32))
    second = sketch.tensor("b", (2, 1), buffer=1)
    value = sketch.then("ADD", [sketch.input("x", (1, 2)), first], "sum", (1, 2))
    sketch.graph.outputs.append(sketch.then("MUL", [value, second], "y", (2, 2)))
    model = TFLITE.read(sketch.save(tmp_path / "shared.tflite"))
    for graph in (model.entry, *tflite_objects.halves(model)):
        assert len(tflite_objects.write(model, graph, tmp_path).buffers) == 2


def test_what_passes_add_gets_tables_of_its_own(tmp_path: Path):
    """A pass may add nodes, values and constants that no table has, and change a value's bytes."""
    sketch = Sketch()
    sketch.subgraph("main")
    weights = sketch.constant("w", np.ones((1, 2), np.float32))
    sketch.graph.outputs.append(
        sketch.then("ADD", [sketch.input("x", (1, 2)), weights], "y", (1, 2))
    )
    model = TFLITE.read(sketch.save(tmp_path / "source.tflite"))
    entry = model.entry
    old = entry.outputs[0]
    assert isinstance(old.type, TensorType)
    added = Value("z", TensorType(old.type.dtype, (None, 2)))
    zeros = Value("zeros", old.type, Constant(Buffer.in_memory(bytes(16)), 4, 8))
    entry.constants.append(zeros)
    entry.constants[0].constant = Constant.of(np.float32([5, 6]).tobytes())
    entry.nodes += [Node("tflite.MAXIMUM", [old, zeros], [added])]
    entry.outputs = [added]
    entry.placement = "device"
    verify(model)
    written = tflite_objects.write(model, entry, tmp_path)
    tensors = written.subgraphs[0].tensors
    assert [tensor.name for tensor in tensors] == [b"w", b"x", b"y", b"zeros", b"z"]
    assert [buffer.data.tobytes() for buffer in written.buffers[1:]] == [
        np.float32([5, 6]).tobytes(),
        bytes(8),
    ]
    assert tensors[4].shapeSignature.tolist() == [-1, 2]
    assert [code.builtinCode for code in written.operatorCodes] == [
        0,
        schema.BuiltinOperator.MAXIMUM,
    ]
    entry.nodes[-1].op = "tflite.FANCY"
    with pytest.raises(UnsupportedError, match=r"tflite\.FANCY is no operator of TFLite"):
        tflite_objects.write(model, entry, tmp_path)
