"""Models of strangers: reading ends soon, in bounded memory, with a model or one clear line."""

import json
import os
from collections.abc import Callable
from logging import WARNING
from pathlib import Path

import pytest

from hostile import models
from hostile.models import TARGETS, look_at
from hostile.target import Target
from irsplit.base.confined import Bounds, Confined, ConfinedError
from irsplit.base.errors import IrsplitError, ModelError, ParseError, VerifyError
from irsplit.cli import main
from irsplit.dialects.onnx import ONNX
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import Graph, Model, Node, TensorType, parse_model, verify
from irsplit.passes.analysis.cuts import find_cuts

MUTANTS = {"models: ONNX reader": 30, "models: TFLite reader": 200, "models: IR text parser": 300}
"""A taste: `python -m benchmarks.fuzz_readers` reads thousands. The ONNX ones start processes."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutants_are_refused_in_one_line_or_read(target: Target, tmp_path: Path) -> None:
    refusals: list[str] = []
    for index, mutant in enumerate(target.mutants(15, MUTANTS[target.name])):
        folder = tmp_path / str(index)
        folder.mkdir()
        try:
            target.read(mutant, folder)
        except IrsplitError as error:
            # The verifier shows the graph around a node below its line.
            refusals.append(str(error).partition("\n  in graph")[0])
    assert all(map(str.isprintable, refusals))
    assert 0 < len(refusals) < MUTANTS[target.name]


# -- types -----------------------------------------------------------------------------------------


SHAPES = (
    "model.onnx: shapes that the model computes are not known: to infer them it needs more than "
)
TYPES = (
    "model.onnx: types that the file does not say are not known: to infer them it takes more than "
)


@pytest.mark.parametrize(
    ("model", "said"),
    [(models.huge_shape, SHAPES), (models.doubled_shape, SHAPES), (models.doubled_calls, TYPES)],
)
def test_what_inference_would_never_end_with_is_not_known(
    model: Callable[[], bytes], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.onnx").write_bytes(model())

    with caplog.at_level(WARNING, "irsplit"):
        read = ONNX.read(tmp_path / "model.onnx")

    look_at(read)
    assert read.entry.inputs[0].type is not None
    assert [message.startswith(said) for message in caplog.messages] == [True]


def test_without_the_elements_of_shapes_other_types_are_known(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(models.huge_shape())

    read = ONNX.read(tmp_path / "model.onnx")

    types = {value.name: value.type for value in read.entry.values()}
    assert isinstance(types["ends"], TensorType)
    assert types["ends"].shape == (2**40,)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return bytes(1 << 30)", "it needs more than 67 MB"),
        ("while True: pass", "it takes more than 1 s"),
        ("import os; os.abort()", "it crashes (SIGABRT)"),
        ("raise SystemExit(3)", "it fails with 3"),
    ],
)
def test_a_confined_program_keeps_to_its_bounds(body: str, reason: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"def answer(request):\n    {body}\n")

    with Confined(program) as process, pytest.raises(ConfinedError, match=r"^it ") as caught:
        process.answer(b"", Bounds(64 << 20, 1))

    assert str(caught.value) == reason


def test_a_confined_program_answers_with_its_arguments(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("def answer(request, word):\n    return word.encode() + request[::-1]\n")
    request = os.urandom(3_000_000)  # more than a pipe holds

    with Confined(program, "back: ") as process:
        assert process.answer(request, Bounds(64 << 20, 5)) == b"back: " + request[::-1]


def test_a_confined_process_that_nobody_asks_is_ended(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time\ntime.sleep(1000)\n")
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").is_dir() else []

    with Confined(tmp_path / "program.py"):
        pass

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert len(before) == (len(os.listdir("/proc/self/fd")) if before else 0)


# -- depth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [False, True])
def test_a_thousand_subgraphs_that_call_the_next_are_walked(resource: bool, tmp_path: Path) -> None:
    read = TFLITE.read(models.subgraph_chain(1000, tmp_path / "model.tflite", resource=resource))

    look_at(read)
    assert TFLITE.summed(read.entry.nodes[-1], lambda node: 1) == 1
    assert len(TFLITE.write(read, read.entry, tmp_path / "written.tflite")) == 1
    if resource:
        assert len(read.graphs) == 1000


def test_900_functions_that_call_the_next_are_walked(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(models.call_chain(900))

    read = ONNX.read(tmp_path / "model.onnx")

    look_at(read)
    assert ONNX.summed(read.entry.nodes[0], lambda node: 1) == 1
    ONNX.write(read, read.entry, tmp_path / "written.onnx")
    assert (tmp_path / "written.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize("levels", [1001, 10_000])
def test_deeper_calls_are_refused(levels: int, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(models.call_chain(levels))

    with pytest.raises(
        ModelError, match=r"graphs call each other more than 1000 deep, up to 'local\.F"
    ):
        ONNX.read(tmp_path / "model.onnx")


def test_subgraphs_that_call_deeper_are_refused(tmp_path: Path) -> None:
    path = models.subgraph_chain(1001, tmp_path / "model.tflite")

    with pytest.raises(
        ModelError, match="more than 1000 deep, up to 'level0'; no engine runs that"
    ):
        TFLITE.read(path)


def test_bodies_may_be_nested_a_hundred_deep(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(models.nested_bodies(100))

    models.read_onnx(models.nested_bodies(100), tmp_path)

    look_at(parse_model(models.nested_text(100)))
    look_at(parse_model(models.nested_list(100)))


@pytest.mark.parametrize("levels", [101, 900, 10_000])
def test_deeper_bodies_lists_and_types_are_refused(levels: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.nested_bodies(levels))
    with pytest.raises(ModelError, match="bodies are nested deeper than 100"):
        ONNX.read(path)

    path.write_bytes(models.nested_type(levels))
    with pytest.raises(ModelError, match="types are nested deeper than 32"):
        ONNX.read(path)

    for text in (models.nested_text(levels), models.nested_list(levels)):
        with pytest.raises(ParseError, match="nested deeper than 100"):
            parse_model(text)


def test_bodies_that_a_program_nests_deeper_are_no_valid_model() -> None:
    body = Graph("g")
    for _ in range(101):
        body = Graph("g", nodes=[Node("test.op", graphs=[body])])

    with pytest.raises(VerifyError, match="bodies are nested deeper than 100 in graph @g"):
        verify(Model("test", [body]))


def test_a_tensor_has_as_many_dimensions_as_engines_take(tmp_path: Path) -> None:
    """The number of elements of so many is a number of megabytes."""
    path = tmp_path / "model.onnx"
    path.write_bytes(models.many_dims(10_000, as_weight=True))
    with pytest.raises(ModelError, match="tensor 'w' has 10000 dimensions; 255 are the most"):
        ONNX.read(path)

    path.write_bytes(models.many_dims(10_000, as_weight=False))
    assert "tensor of 10000 dimensions" in str(ONNX.read(path).entry.inputs[0].type)

    with pytest.raises(ParseError, match="a tensor of 1000 dimensions"):
        parse_model(f"graph @main(%x: f32[{','.join('7' * 1000)}]) {{}}")


# -- names and numbers -----------------------------------------------------------------------------


def test_reasons_say_the_ends_of_a_long_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.long_names(2_000_000))

    reasons = [cut.reason for cut in find_cuts(ONNX.read(path).entry)]

    assert any(reason is not None and "aaa...aaa" in reason for reason in reasons)
    assert all(reason is None or len(reason) < 1000 for reason in reasons)
    for words in (["cuts"], ["plan", "--device", "pixel-2", "--link", "lte"]):
        assert main([words[0], str(path), *words[1:]]) == 0
        assert len(capsys.readouterr().out) < 100_000
    assert main(["cuts", str(path), "--json"]) == 0
    assert any(
        tensor["name"] == "a" * 2_000_000
        for cut in json.loads(capsys.readouterr().out)
        for tensor in cut["tensors"]
    )


def test_a_name_stays_on_its_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.net([models.relu("no\nwhere\x1b[2J", "y")]))

    with pytest.raises(ModelError) as caught:
        ONNX.read(path)

    assert r"reads 'no\nwhere\x1b[2J', which nothing produces" in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            {"location": "a\0b"},
            r"lies in 'a\x00b', which cannot be opened (embedded null byte); put the file beside",
        ),
        (
            {"location": "n" * 300},
            "nnn', which cannot be opened (File name too long); put the file beside",
        ),
        ({"location": "ring"}, "lies in 'ring', which cannot be opened ("),
        ({"location": "ring/w.bin"}, "lies in 'ring/w.bin', which cannot be opened ("),
        ({"location": "pipe"}, "lies in 'pipe', which is missing"),
        (
            {"location": "w.bin", "offset": "9" * 5000},
            "999' of weight 'w' is not a number of bytes",
        ),
        (
            {"location": "w.bin", "length": "9" * 5000},
            "999' of weight 'w' is not a number of bytes",
        ),
        (
            {"location": "w.bin", "offset": "-1"},
            "offset '-1' of weight 'w' is not a number of bytes",
        ),
    ],
)
def test_external_data_that_no_file_can_hold(
    entries: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    (tmp_path / "w.bin").write_bytes(bytes(32))
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "model.onnx"
    path.write_bytes(models.external(**entries))

    with pytest.raises(ModelError) as caught:
        ONNX.read(path)

    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a\0b", "n" * 300, "ring", "pipe"])
def test_external_buffers_that_no_file_can_hold(name: str, tmp_path: Path) -> None:
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    os.mkfifo(tmp_path / "pipe")
    path = models.external_buffer(name, tmp_path / "model.tflite")

    with pytest.raises(
        ModelError, match=r"tensor 1 of subgraph 'main' lies in '.*; put the file beside the model$"
    ):
        TFLITE.read(path)


@pytest.mark.parametrize("extension", ["onnx", "tflite"])
def test_a_model_that_is_no_file(
    extension: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / f"pipe.{extension}")
    (tmp_path / f"ring.{extension}").symlink_to(tmp_path / f"ring.{extension}")
    for name in (f"{'n' * 300}.{extension}", f"pipe.{extension}", f"ring.{extension}"):
        assert main(["cuts", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {tmp_path / name}: ")
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'test.op() "\x"', "not a string: Invalid \\escape"),
        (r'test.op() "\ud800"', "not a string: 'utf-8' codec can't encode"),
        ("test.op() {a=0x1}", "bytes need an even number of hexadecimal digits"),
        (f"test.op() {{a={'9' * 5000}}}", "a number of 5000 digits; 4000 are the most"),
        (f"irsplit.send {'9' * 5000}", "expected an integer, found '999"),
        ("irsplit.send 0 {boundary=[1]}", "'boundary' is given twice"),
    ],
)
def test_words_of_a_text_that_are_none(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.irs"
    path.write_text(f"graph @main() {{\n  {text}\n}}\n")

    assert main(["opt", str(path)]) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: line 2, column ")
    assert said in error
    assert len(error) < 500


def test_sizes_beyond_64_bits_are_no_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = models.huge_dims(tmp_path / "model.tflite")

    assert main(["plan", str(path), "--device", "pixel-2", "--link", "lte"]) == 2

    assert capsys.readouterr().err.startswith(
        "error: the model moves more than 2^63 bytes, or takes as many nano"
    )
