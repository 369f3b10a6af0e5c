"""The second reader: what we write is sound for `tflite`, and what is damaged is named."""

import random
import struct
from pathlib import Path

import pytest

import corpus
import irsplit
from corpus import CorpusModel
from irsplit.base.errors import ModelError
from irsplit.compilation import verification
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite import TFLITE
from irsplit.dialects.tflite.check import check_file
from irsplit.ir import engine_graph
from irsplit.passes.analysis.cuts import legal_cuts, schedule
from irsplit.passes.partition import split
from tflite_models import Sketch

SMALL = Path(__file__).parents[2] / "examples" / "digits" / "digits_int8.tflite"
MODELS = [model for model in corpus.models("models", "micro") if model.format == "tflite"]


@pytest.mark.parametrize("model", corpus.cases(MODELS))
@pytest.mark.parametrize("external_over", [None, 0])
def test_written_segments_and_models_are_sound(
    model: CorpusModel, external_over: int | None, tmp_path: Path
) -> None:
    read = TFLITE.read(model.path)
    options = WriteOptions(external_over=external_over)
    plan = schedule(read.entry)
    cuts = legal_cuts(plan, max_tensors=2)
    graphs = [read.entry]
    if cuts:
        graphs += map(engine_graph, split(plan, [cuts[len(cuts) // 2]], ("device", "server")))

    for number, graph in enumerate(graphs):
        check_file(TFLITE.write(read, graph, tmp_path / f"{number}.tflite", options)[0])


def small_model(folder: Path) -> tuple[Path, bytearray]:
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("a", "b")
    path = sketch.save(folder / "small.tflite")
    return path, bytearray(path.read_bytes())


def test_a_reference_out_of_range_is_named(tmp_path: Path) -> None:
    path, data = small_model(tmp_path)
    operator = TFLITE.read(path).entry.nodes[1].native.table
    position = operator.refers_to("inputs")
    struct.pack_into("<i", data, position + 4, 77)
    path.write_bytes(data)
    message = (
        r"small.tflite: subgraph 0, operator 1, field Inputs: 77 is out of range; there are 3; "
    )
    with pytest.raises(ModelError, match=message):
        check_file(path)


def test_a_vector_beyond_the_file_is_named(tmp_path: Path) -> None:
    path, data = small_model(tmp_path)
    tensor = TFLITE.read(path).entry.inputs[0].native.table
    struct.pack_into("<I", data, tensor.refers_to("shape"), 1 << 20)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"table Tensor at byte {tensor.position}, field Shape: "):
        check_file(path)


def test_a_table_outside_the_file_is_named(tmp_path: Path) -> None:
    path, data = small_model(tmp_path)
    tensor = TFLITE.read(path).entry.inputs[0].native.table
    struct.pack_into("<i", data, tensor.position, 1 << 20)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"table Tensor at byte \d+, field vtable: .* outside the"):
        check_file(path)


@pytest.mark.parametrize("content", [b"", b"no model at all"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="bytes 4 to 7 are not 'TFL3'"):
        check_file(path)


def test_damage_never_raises_anything_else(tmp_path: Path) -> None:
    source = SMALL.read_bytes()
    generator = random.Random(0)
    path = tmp_path / "flipped.tflite"
    refused = 0
    for _ in range(300):
        data = bytearray(source)
        for _ in range(4):
            data[generator.randrange(8, 2000)] = generator.choice((0, 0x7F, 0x80, 0xFF))
        path.write_bytes(data[: generator.randrange(8, len(data) + 1)])
        try:
            check_file(path)
        except ModelError:
            refused += 1
    assert refused > 200


def test_verify_checks_every_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def check(paths: list[Path]) -> None:
        checked.extend(path.parent.name for path in paths)

    monkeypatch.setattr(verification, "check_files", check)
    cut = TFLITE.read(SMALL).entry.nodes[1].outputs[0]
    assert cut is not None
    irsplit.compile_model(SMALL, tmp_path / "bundle", cut.name)
    irsplit.verify_bundle(tmp_path / "bundle", engine_defaults=False)
    assert checked == ["device", "server"]
