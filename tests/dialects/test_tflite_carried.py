"""What the IR does not model goes along: tables, options, quantization, newer schemas' fields."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import corpus
import tflite_objects
from corpus import CorpusModel
from irsplit.base.errors import IrsplitError, UnsupportedError
from irsplit.dialects.tflite import TFLITE
from irsplit.dialects.tflite.schema import ENUMS, TABLES, UNIONS
from stock_engines import run_model
from tflite_models import Sketch

MODELS = [
    model
    for model in corpus.models("models", "micro")
    if model.format == "tflite" and model.entry["n_cuts"]
]


def test_schema_has_all_that_litert_knows():
    """Fails when LiteRT's schema grows: run `python -m irsplit.dialects.tflite.generate_schema`."""
    for name, text in TABLES.items():
        known = {word.partition(":")[0].replace("_", "") for word in text.split()}
        fields = set(vars(getattr(schema, f"{name}T")())) if hasattr(schema, f"{name}T") else set()
        assert {field.lower() for field in fields} <= known, name
    objects = {
        name[:-1]
        for name in vars(schema)
        if name.endswith("T") and isinstance(vars(schema)[name], type)
    }
    assert {name for name in objects if hasattr(schema, name)} <= set(TABLES)
    for name, members in {**UNIONS, **ENUMS}.items():
        numbers = {
            key: number
            for key, number in vars(getattr(schema, name)).items()
            if isinstance(number, int)
        }
        assert {key: members.split().index(key) for key in numbers} == numbers


def wires(graph: Any, indices: Any) -> list[bytes | None]:
    """The names of the tensors that an operator names by index."""
    return [
        None if index < 0 else graph.tensors[index].name
        for index in ([] if indices is None else indices)
    ]


def read_and_write(path: Path) -> None:
    model = TFLITE.read(path)
    TFLITE.write(model, model.entry, path.with_name("written.tflite"))


@pytest.mark.parametrize("model", corpus.cases(MODELS))
def test_tables_of_segments_are_those_of_the_source(model: CorpusModel, tmp_path: Path):
    read = TFLITE.read(model.path)
    source = tflite_objects.load(model.path)
    tensors = {tensor.name: tensor for tensor in source.subgraphs[0].tensors}
    operators = {source.subgraphs[0].tensors[item.outputs[0]].name: item
                 for item in source.subgraphs[0].operators if len(item.outputs)}  # fmt: skip
    if len(tensors) != len(source.subgraphs[0].tensors):
        pytest.skip("names of tensors repeat")
    for graph in tflite_objects.halves(read):
        written = tflite_objects.write(read, graph, tmp_path)
        (own, *_) = written.subgraphs
        for tensor in own.tensors:
            original = tensors[tensor.name]
            left, right = (
                file.buffers[item.buffer].data
                for file, item in ((written, tensor), (source, original))
            )
            assert tflite_objects.difference(left, right) is None
            tensor.buffer = original.buffer
            assert tflite_objects.difference(tensor, original) is None
        for item in own.operators:
            if not len(item.outputs):
                continue
            original = operators[own.tensors[item.outputs[0]].name]
            for field in ("inputs", "outputs", "intermediates"):
                assert wires(own, getattr(item, field)) == wires(
                    source.subgraphs[0], getattr(original, field)
                )
                setattr(item, field, getattr(original, field))
            codes = [
                file.operatorCodes[node.opcodeIndex]
                for file, node in ((written, item), (source, original))
            ]
            assert tflite_objects.difference(*codes) is None
            item.opcodeIndex = original.opcodeIndex
            if len(source.subgraphs) == 1:
                assert tflite_objects.difference(item, original) is None


def test_scales_of_blocks_go_with_their_tensor(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("near")
    scales = sketch.constant("scales", np.ones((2, 1), np.float16))
    details = schema.BlockwiseQuantizationT(scales=scales, blockSize=32)
    quantization = schema.QuantizationParametersT(
        detailsType=schema.QuantizationDetails.BlockwiseQuantization, details=details
    )
    weights = sketch.constant(
        "weights", np.arange(4, dtype=np.int8).reshape(2, 2), quantization=quantization
    )
    sketch.graph.outputs = [sketch.then("FULLY_CONNECTED", [1, weights, -1], "far", (1, 2))]
    model = TFLITE.read(sketch.save(tmp_path / "blocks.tflite"))
    far = tflite_objects.write(model, tflite_objects.halves(model)[1], tmp_path)
    (graph,) = far.subgraphs
    names = [tensor.name for tensor in graph.tensors]
    assert names == [b"near", b"scales", b"weights", b"far"]
    assert graph.tensors[2].quantization.details.scales == 1
    assert graph.tensors[2].quantization.details.zeroPoints == 0
    assert [buffer.data.tobytes() for buffer in far.buffers[1:]] == [
        np.ones(2, np.float16).tobytes(),
        bytes(range(4)),
    ]
    whole = tflite_objects.write(model, model.entry, tmp_path)
    assert tflite_objects.difference(whole, tflite_objects.load(tmp_path / "blocks.tflite")) is None


def _widen(monkeypatch: pytest.MonkeyPatch, table: str, slot: int, add: str, value: int) -> None:
    """Make LiteRT write a field that is in no schema behind the known ones of a table."""
    monkeypatch.setattr(schema, f"{table}Start", lambda builder: builder.StartObject(slot + 1))
    end = getattr(schema, f"{table}End")

    def finish(builder: Any) -> Any:
        getattr(builder, add)(slot, value, 0)
        return end(builder)

    monkeypatch.setattr(schema, f"{table}End", finish)


@pytest.mark.parametrize(
    ("table", "slot"), [("Tensor", 13), ("Operator", 14), ("AbsOptions", 0), ("SubGraph", 7)]
)
def test_unknown_field_that_can_only_be_a_number_is_kept(
    table: str, slot: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _widen(monkeypatch, table, slot, "PrependUint16Slot", 0xBEEF)
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("near", "far")
    model = TFLITE.read(sketch.save(tmp_path / "new.tflite"))
    source = (tmp_path / "new.tflite").read_bytes().count(b"\xef\xbe")
    assert source > 0
    (written,) = TFLITE.write(model, model.entry, tmp_path / "written.tflite")
    assert written.read_bytes().count(b"\xef\xbe") == source
    parts = [
        TFLITE.write(model, graph, tmp_path / f"{graph.name}.tflite")[0]
        for graph in tflite_objects.halves(model)
    ]
    kept = sum(part.read_bytes().count(b"\xef\xbe") for part in parts)
    assert kept == {"Tensor": source + 1, "SubGraph": 2 * source}.get(table, source)


@pytest.mark.parametrize(
    ("table", "slot"), [("Tensor", 13), ("Operator", 14), ("Model", 10), ("AbsOptions", 2)]
)
def test_unknown_field_that_might_refer_is_refused(
    table: str, slot: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _widen(monkeypatch, table, slot, "PrependUint32Slot", 12)
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("near", "far")
    path = sketch.save(tmp_path / "new.tflite")
    with pytest.raises(
        UnsupportedError, match=rf"new\.tflite: slot {slot} of a {table} table is newer"
    ):
        read_and_write(path)


def test_unknown_options_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schema.BuiltinOptions, "AbsOptions", 250)
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("near", "far")
    sketch.save(tmp_path / "new.tflite")
    with pytest.raises(
        UnsupportedError, match="member 250 of BuiltinOptions in a Operator table is newer"
    ):
        TFLITE.read(tmp_path / "new.tflite")


def test_options_without_a_type_are_absent(tmp_path: Path):
    """What the type of a union says is none cannot be read by anybody."""
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("near", "far")
    for operator in sketch.graph.operators:
        operator.builtinOptionsType = 0
    model = TFLITE.read(sketch.save(tmp_path / "untyped.tflite"))
    for graph in (model.entry, *tflite_objects.halves(model)):
        (path,) = TFLITE.write(model, graph, tmp_path / "written.tflite")
        operators = TFLITE.read(path).native.table.tables("subgraphs")[0].tables("operators")
        assert [operator.has("builtin_options") for operator in operators] == [False] * len(
            graph.nodes
        )
    whole = tflite_objects.write(model, model.entry, tmp_path)
    assert (
        tflite_objects.difference(whole, tflite_objects.load(tmp_path / "untyped.tflite")) is None
    )


def test_unknown_operator_is_carried(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("near", "far")
    sketch.model.operatorCodes[0].builtinCode = 999
    model = TFLITE.read(sketch.save(tmp_path / "new.tflite"))
    assert [node.op for node in model.entry.nodes] == ["tflite.BUILTIN_999"] * 2
    assert (
        tflite_objects.write(model, tflite_objects.halves(model)[1], tmp_path)
        .operatorCodes[0]
        .builtinCode
        == 999
    )


def test_custom_options_inside_and_behind_the_flatbuffer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    sketch = Sketch()
    sketch.subgraph("main")
    first = sketch.then(
        "my_op", [sketch.input("x", (1, 2))], "first", (1, 2), customOptions=list(b"\x01flex\x02")
    )
    last = sketch.then(
        "my_op", [first], "last", (1, 2), largeCustomOptionsOffset=1 << 40, largeCustomOptionsSize=6
    )
    sketch.graph.outputs.append(last)
    path = sketch.save(tmp_path / "custom.tflite")
    size = path.stat().st_size
    sketch.graph.operators[1].largeCustomOptionsOffset = size
    sketch.save(path)
    path.write_bytes(path.read_bytes() + b"behind")
    model = TFLITE.read(path)
    assert [node.op for node in model.entry.nodes] == ["tflite.custom.my_op"] * 2
    assert "custom.tflite: custom operator my_op needs a kernel of its own" in caplog.text
    near, far = tflite_objects.halves(model)
    assert (
        tflite_objects.write(model, near, tmp_path)
        .subgraphs[0]
        .operators[0]
        .customOptions.tobytes()
        == b"\x01flex\x02"
    )
    (item,) = tflite_objects.write(model, far, tmp_path).subgraphs[0].operators
    assert item.largeCustomOptionsSize == 6
    assert (tmp_path / "server.tflite").read_bytes()[item.largeCustomOptionsOffset :][
        :6
    ] == b"behind"


def external(folder: Path, **changes: object) -> Path:
    """y = (x + first) * second, the two constants in a file beside the model, at odd offsets."""
    sketch = Sketch()
    sketch.subgraph("main")
    value = sketch.input("x", (1, 64))
    for number, (name, op) in enumerate((("first", "ADD"), ("second", "MUL")), 1):
        constant = sketch.tensor(name, (1, 64), externalBuffer=number)
        value = sketch.then(
            op, [value, constant], f"{op.lower()}_out", (1, 64), options=OPTIONS[op]()
        )
    sketch.graph.outputs.append(value)
    sketch.model.externalBufferGroups = [
        schema.ExternalBufferGroupT(name=changes.pop("group", "weights.bin"))
    ]
    sketch.model.externalBuffers = [
        schema.ExternalBufferT(
            **{"id": id, "offset": offset, "length": 256, "packing": "unpacked"} | changes
        )
        for id, offset in ((1, 7), (2, 300))
    ]
    (folder / "weights.bin").write_bytes(
        b"\0" * 7 + FIRST.tobytes() + b"\0" * 37 + SECOND.tobytes()
    )
    return sketch.save(folder / "external.tflite")


FIRST, SECOND = np.arange(64, dtype=np.float32), np.linspace(-1, 1, 64, dtype=np.float32)
OPTIONS = {"ADD": schema.AddOptionsT, "MUL": schema.MulOptionsT}


def test_weights_in_files_beside_the_model_are_written_inside(tmp_path: Path):
    model = TFLITE.read(external(tmp_path))
    x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)
    whole = tmp_path / "whole.tflite"
    TFLITE.write(model, model.entry, whole)
    halves = [
        TFLITE.write(model, half, tmp_path / f"{half.name}.tflite")[0]
        for half in tflite_objects.halves(model)
    ]
    (tmp_path / "weights.bin").unlink()
    expected = (x + FIRST) * SECOND
    assert np.array_equal(run_model(whole, [x])[0], expected)
    assert np.array_equal(run_model(halves[1], run_model(halves[0], [x]))[0], expected)
    written = schema.ModelT.InitFromPackedBuf(whole.read_bytes(), 0)
    assert not written.externalBuffers
    assert all(tensor.externalBuffer == 0 for tensor in written.subgraphs[0].tensors)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"packing": "int4x8"}, "is packed as 'int4x8'"),
        ({"group": "../weights.bin"}, "outside the model's folder"),
        ({"group": "other.bin"}, "which is missing"),
        ({"length": 1 << 20}, "the file is truncated"),
        ({"id": 9}, "names external buffer 1, which the model does not have"),
    ],
)
def test_external_weights_that_cannot_be_read_are_refused(
    changes: dict[str, object], text: str, tmp_path: Path
):
    with pytest.raises(IrsplitError, match=text):
        TFLITE.read(external(tmp_path, **changes))
