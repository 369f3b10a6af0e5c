"""Reading and writing an untouched model loses nothing: objects, text, outputs, alignment."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import corpus
import tflite_objects
from corpus import CorpusModel
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite import TFLITE
from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.ir import equal, parse_model, print_model, verify
from irsplit.passes.analysis.cuts import legal_cuts
from stock_engines import open_model, same_bits
from tflite_models import Sketch

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "digits").glob("*.tflite"))
# An operator reads what nothing produces: LiteRT opens it and cannot run it; irsplit refuses.
UNREADABLE = {"add_shared_tensors.tflite"}
MODELS = [
    model
    for model in corpus.load("models") + corpus.load("micro")
    if model.format == "tflite" and model.name not in UNREADABLE
]
PATHS = [pytest.param(path, id=path.name) for path in EXAMPLES] + [
    pytest.param(model.path, id=model.name) for model in MODELS
]


@pytest.mark.parametrize("path", PATHS)
def test_untouched_model_is_written_back_equal(path: Path, tmp_path: Path):
    model = TFLITE.read(path)
    verify(model)
    (written,) = TFLITE.write(model, model.entry, tmp_path / path.name)
    assert (
        tflite_objects.difference(tflite_objects.load(path), tflite_objects.load(written)) is None
    )


@pytest.mark.parametrize("path", PATHS)
def test_weights_behind_the_flatbuffer_are_the_same_model(path: Path, tmp_path: Path):
    model = TFLITE.read(path)
    (written,) = TFLITE.write(
        model, model.entry, tmp_path / "outside.tflite", WriteOptions(external_over=0)
    )
    assert (
        tflite_objects.difference(tflite_objects.load(path), tflite_objects.load(written)) is None
    )
    again = TFLITE.read(written)
    (inside,) = TFLITE.write(again, again.entry, tmp_path / "inside.tflite")
    assert tflite_objects.difference(tflite_objects.load(path), tflite_objects.load(inside)) is None


@pytest.mark.parametrize("path", PATHS)
def test_text_of_the_model_parses_to_an_equal_one(path: Path):
    model = TFLITE.read(path)
    assert print_model(parse_model(print_model(model))) == print_model(model)
    assert equal(model, TFLITE.read(path))


@pytest.mark.parametrize("model", corpus.cases(model for model in MODELS if model.runs))
def test_untouched_model_gives_the_same_outputs(model: CorpusModel, tmp_path: Path):
    read = TFLITE.read(model.path)
    calls = corpus.feeds(model, calls=3 if model.stateful else 1)
    (inside,) = TFLITE.write(read, read.entry, tmp_path / "inside.tflite")
    (outside,) = TFLITE.write(
        read, read.entry, tmp_path / "outside.tflite", WriteOptions(external_over=0)
    )
    optimized = model.needs_delegate
    source, *copies = (
        open_model(path, optimized=optimized) for path in (model.path, inside, outside)
    )
    for values in calls:
        expected = source.run(values)
        assert all(same_bits(copy.run(values), expected) for copy in copies)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("external_over", [None, 0])
def test_weights_start_at_multiples_of_16(path: Path, external_over: int | None, tmp_path: Path):
    model = TFLITE.read(path)
    (written,) = TFLITE.write(model, model.entry, tmp_path / path.name, WriteOptions(external_over))
    contents = TFLITE.read(written).native.contents
    assert {content.offset % 16 for content in contents if content is not None} <= {0}


def misaligned(table: Table) -> Iterator[str]:
    """Fields of a table, and below it, that do not start at a multiple of their width."""
    source = table.source
    for slot, offset in enumerate(table.shape.offsets):
        spec = table.layout.slots[slot] if slot < len(table.layout.slots) else None
        if spec is None or not offset:
            continue
        position = table.position + offset
        if position % spec.width:
            yield f"{table.layout.name}.{spec.name} at {position}"
        if spec.kind in ("table", "union"):
            inner = table.table(spec.name)
            yield from () if inner is None else misaligned(inner)
        elif spec.kind == "tables":
            for inner in table.tables(spec.name):
                yield from misaligned(inner)
        elif spec.kind == "numbers" and (source.follow(position) + 4) % spec.element_width:
            yield f"elements of {table.layout.name}.{spec.name} at {source.follow(position) + 4}"


@pytest.mark.parametrize("path", PATHS)
def test_written_fields_are_aligned(path: Path, tmp_path: Path):
    model = TFLITE.read(path)
    files = [TFLITE.write(model, model.entry, tmp_path / path.name)[0]]
    if legal_cuts(model.entry):
        files += [
            TFLITE.write(model, graph, tmp_path / graph.name)[0]
            for graph in tflite_objects.halves(model)
        ]
    assert [text for file in files for text in misaligned(TFLITE.read(file).native.table)] == []


def test_model_is_written_any_number_of_times(tmp_path: Path):
    """The guard against files that refer to themselves in fans counts one walk, not all."""
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain(*(f"value{index}" for index in range(20)))
    model = TFLITE.read(sketch.save(tmp_path / "chain.tflite"))
    for _ in range(300):
        TFLITE.write(model, model.entry, tmp_path / "again.tflite")


def test_reading_imports_no_engine():
    """Listing the cuts of a model must start fast: the packages for engines and tests stay out."""
    code = (
        "import irsplit.dialects.tflite, sys; print([n for n in ('ai_edge_litert', 'tflite') if n "
        "in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_same_bytes_every_time(tmp_path: Path):
    model = TFLITE.read(EXAMPLES[0])
    first, second = (
        TFLITE.write(model, model.entry, tmp_path / name)[0].read_bytes() for name in ("a", "b")
    )
    assert first == second


@pytest.mark.parametrize("path", PATHS)
def test_nothing_follows_a_written_model(path: Path, tmp_path: Path):
    """The end of a flatbuffer is found: no table or padding is taken for something else."""
    model = TFLITE.read(path)
    (written,) = TFLITE.write(model, model.entry, tmp_path / path.name)
    once = TFLITE.read(written)
    (again,) = TFLITE.write(once, once.entry, tmp_path / "again.tflite")
    assert again.stat().st_size == written.stat().st_size


def test_what_somebody_appended_stays(tmp_path: Path):
    path = tmp_path / "signed.tflite"
    path.write_bytes(EXAMPLES[0].read_bytes() + b"signature of somebody")
    model = TFLITE.read(path)
    (written,) = TFLITE.write(model, model.entry, tmp_path / "written.tflite")
    assert written.read_bytes().endswith(b"signature of somebody")
    (segment,) = TFLITE.write(
        model, replace(model.entry, placement="device"), tmp_path / "segment.tflite"
    )
    assert not segment.read_bytes().endswith(b"signature of somebody")


def test_associated_files_move_with_the_model(tmp_path: Path):
    path = tmp_path / "labelled.tflite"
    path.write_bytes(EXAMPLES[0].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "zero\none\n")
        archive.writestr("vocabulary.txt", "a b c", zipfile.ZIP_DEFLATED)
    model = TFLITE.read(path)
    model.graphs[0].name = "renamed"
    (written,) = TFLITE.write(
        model, model.entry, tmp_path / "written.tflite", WriteOptions(external_over=0)
    )
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt") == b"zero\none\n"
        assert archive.infolist()[0].header_offset > 0
    assert written.read_bytes()[archive.infolist()[0].header_offset :][:4] == b"PK\x03\x04"
