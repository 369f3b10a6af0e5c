"""Damaged files are refused with what and where; nothing else flies, nothing is half written."""

import random
import struct
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema

import corpus
from corpus import CorpusModel
from irsplit.base.errors import IrsplitError, ModelError, ModelRefusedError, UnsupportedError
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import verify
from irsplit.runtime.run.engines import open_engine
from tflite_models import Sketch

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"
SMALL = EXAMPLES / "digits_int8.tflite"
# Files sound for irsplit that engines cannot run: operators that only another engine has.
SOUND = {"empty_model.tflite", "custom_bsign.tflite", "fake_op.tflite", "fork_violation.tflite"}
HOSTILE = [model for model in corpus.load("hostile") if model.format == "tflite"]


@pytest.mark.parametrize("model", corpus.cases(HOSTILE))
def test_hostile_models_are_refused_by_name_or_carried(model: CorpusModel, tmp_path: Path):
    if model.name in SOUND:
        read = TFLITE.read(model.path)
        verify(read)
        assert TFLITE.write(read, read.entry, tmp_path / model.name)[0].stat().st_size > 0
        return
    with pytest.raises(ModelError) as error:
        TFLITE.read(model.path)
    assert str(error.value).startswith(f"{model.path}: ")
    assert ";" in str(error.value), "a remedy follows"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no TFLite model: bytes 4 to 7 are not 'TFL3'"),
        (b"this is a text, not a model", "no TFLite model"),
        (b"\x08\0\0\0TFL3", "it refers to byte 8, beyond the end of the file"),
        (b"\xff\xff\xff\xffTFL3" + bytes(64), "beyond the end of the file"),
        (
            b"\x08\0\0\0TFL3\xff\xff\xff\x7f" + bytes(64),
            "vtable of a Model table lies outside the file",
        ),
        (b"\x08\0\0\0TFL3\0\0\0\0" + bytes(64), "vtable of a Model table is malformed"),
    ],
)
def test_files_that_are_no_model(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        TFLITE.read(path)


def test_missing_path_and_folder(tmp_path: Path):
    for path in (tmp_path / "gone.tflite", tmp_path):
        with pytest.raises(ModelError, match=r"cannot be read: .*; check the path"):
            TFLITE.read(path)


def test_truncated_at_any_length(tmp_path: Path):
    data = SMALL.read_bytes()
    path = tmp_path / "short.tflite"
    lengths = [*range(600), *range(600, len(data), 97), len(data) - 1]
    for length in lengths:
        path.write_bytes(data[:length])
        with pytest.raises(IrsplitError):
            TFLITE.read(path)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_refused_or_carried(seed: int, tmp_path: Path):
    """Whatever the bytes say, only errors of ours come out, of reading and of writing."""
    source = SMALL.read_bytes()
    generator = random.Random(seed)
    path = tmp_path / "flipped.tflite"
    refused = 0
    for _ in range(300):
        data = bytearray(source)
        for _ in range(generator.randint(1, 4)):
            position = generator.randrange(len(data))
            data[position] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        path.write_bytes(data)
        try:
            model = TFLITE.read(path)
            verify(model)
            TFLITE.write(model, model.entry, tmp_path / "written.tflite")
        except IrsplitError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("seed", range(2))
def test_offsets_to_anywhere_are_refused_or_carried(seed: int, tmp_path: Path):
    source = SMALL.read_bytes()
    generator = random.Random(seed)
    path = tmp_path / "moved.tflite"
    for _ in range(200):
        data = bytearray(source)
        position = 4 * generator.randrange(len(data) // 4)
        struct.pack_into(
            "<I", data, position, generator.choice((0, 4, len(data), generator.randrange(1 << 32)))
        )
        path.write_bytes(data)
        try:
            model = TFLITE.read(path)
            TFLITE.write(model, model.entry, tmp_path / "written.tflite")
        except IrsplitError:
            pass


def test_file_that_refers_to_itself_in_fans_is_refused(tmp_path: Path):
    """Many tensors of one long name: 60 KB that would be read as 5 MB."""
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.tensor("n" * 40_000)
    sketch.chain(*(f"value{index}" for index in range(130)))
    path = sketch.save(tmp_path / "fans.tflite")
    data = bytearray(path.read_bytes())
    tensors = TFLITE.read(path).native.table.tables("subgraphs")[0].tables("tensors")
    name = tensors[0].layout.fields["name"].slot
    places = [tensor.position + tensor.shape.offsets[name] for tensor in tensors]
    long = places[0] + struct.unpack_from("<I", data, places[0])[0]
    moved = [place for place in places if place < long]
    assert len(moved) > 100
    for place in moved:
        struct.pack_into("<I", data, place, long - place)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="refer to each other more often than the file has bytes"):
        TFLITE.read(path)


def test_unwritable_place_leaves_nothing(tmp_path: Path):
    model = TFLITE.read(SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written"):
        TFLITE.write(model, model.entry, tmp_path / "file" / "model.tflite")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_newer_schema_version_is_refused(tmp_path: Path):
    path = tmp_path / "new.tflite"
    data = bytearray(SMALL.read_bytes())
    model = TFLITE.read(SMALL).native.table
    struct.pack_into("<I", data, model.position + model.shape.offsets[0], 4)
    path.write_bytes(data)
    with pytest.raises(UnsupportedError, match="TFLite schema version 4; irsplit reads version 3"):
        TFLITE.read(path)


def test_subgraph_that_calls_itself_is_refused(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    choice, x = sketch.input("choice", (), "bool"), sketch.input("x", (1, 2))
    sketch.graph.outputs.append(
        sketch.then("IF", [choice, x], "y", (1, 2), options=schema.IfOptionsT(1, 1))
    )
    sketch.subgraph("branch")
    x = sketch.input("x", (1, 2))
    sketch.graph.outputs.append(
        sketch.then("IF", [x, x], "y", (1, 2), options=schema.IfOptionsT(0, 1))
    )
    with pytest.raises(ModelError, match=r"a graph calls itself: '(main|branch)' <- "):
        TFLITE.read(sketch.save(tmp_path / "ring.tflite"))


def test_name_that_the_engine_cannot_tell_is_its_refusal(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("a", "name")
    path = sketch.save(tmp_path / "name.tflite")
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xffme"))
    assert [value.name for value in TFLITE.read(path).entry.outputs] == [r"n\xffme"]
    with pytest.raises(ModelRefusedError, match=r"name.tflite: LiteRT refuses it: 'utf-8' codec"):
        open_engine(path, "tflite")
