"""The flat namespace: its names stay functions, and each does what the command of its name does."""

import dataclasses
import importlib
import inspect
import json
import pkgutil
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import corpus
import irsplit
from irsplit.cli import main
from irsplit.commands.flags import _FLAGS, in_flags
from irsplit.commands.registry import COMMANDS, parser_of
from irsplit.compilation.build import BuildFile
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.options import CompileKeywords, CompileOptions
from irsplit.dialects.base import Dialect

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
NEEDS_MORE = ("irsplit.adapters.olive", "irsplit.export.", "irsplit.runtime.c._operators")
"""Modules that another program imports, which brings what they need."""


def words_of(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON that a command prints."""
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)


def test_no_room_bears_the_name_of_a_function() -> None:
    before = {name: getattr(irsplit, name) for name in irsplit.__all__}
    for module in pkgutil.walk_packages(irsplit.__path__, "irsplit."):
        if not module.name.startswith(NEEDS_MORE) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {name: getattr(irsplit, name) for name in irsplit.__all__} == before
    modules = {name for name in irsplit.__all__ if inspect.ismodule(before[name])}
    assert modules == {"passes", "runtime"}
    commands = {name for name in COMMANDS if callable(before.get(name))}
    assert commands == {"plan", "compile", "verify", "profile", "bench", "report", "pack", "delta"}


def test_keywords_are_the_fields_of_the_options() -> None:
    fields = {field.name for field in dataclasses.fields(CompileOptions)}
    assert set(get_type_hints(CompileKeywords)) == fields
    assert CompileOptions(cuts="a").cuts == CompileOptions(cuts=["a"]).cuts == ("a",)


def test_every_flag_that_texts_may_name_exists() -> None:
    flags = {
        text
        for name in COMMANDS
        for action in parser_of(name)._actions
        for text in action.option_strings
    }
    assert set(_FLAGS.values()) <= flags
    said = in_flags('see `irsplit.find_cuts`, or give `max_tensors` or `codec="raw"`, not `other`')
    assert said == "see 'irsplit cuts', or give --max-tensors or --codec raw, not `other`"


def check_cuts_and_plan(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cuts = irsplit.find_cuts(path)
    assert words_of(capsys, "cuts", path, "--json") == json.loads(json.dumps(cuts.to_json()))
    assert [row["id"] for row in cuts.to_rows()] == [cut.id for cut in cuts]
    plan = irsplit.plan(path, device="pixel-2", link="lte")
    printed = words_of(capsys, "plan", path, "--device", "pixel-2", "--link", "lte", "--json")
    assert printed == json.loads(json.dumps(plan.to_json()))
    assert [row["cut"] for row in plan.to_rows()] == [row["cut"] for row in printed["ranked"]]
    assert {"\n" in repr(cuts), "\n" in repr(plan)} == {False}
    assert "<table>" in cuts._repr_html_()
    assert "<table>" in plan._repr_html_()


@pytest.mark.parametrize("name", ["digits.onnx", "digits.tflite"])
def test_functions_are_the_commands(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = DIGITS / name
    check_cuts_and_plan(path, capsys)
    assert [cut.id for cut in irsplit.find_cuts(irsplit.read_model(path))] == [
        cut.id for cut in irsplit.find_cuts(path)
    ]

    options = ("--device", "pixel-2", "--link", "lte", "--limit", "memory=64MB")
    made = words_of(capsys, "compile", path, "-o", tmp_path / "command", *options, "--json")
    compiled = irsplit.compile(
        path, tmp_path / "function", device="pixel-2", link="lte", limits=("memory=64MB",)
    )
    assert compiled.manifest.raw == made
    files = [file for file in (tmp_path / "command").rglob("*") if file.is_file()]
    for file in files:
        other = tmp_path / "function" / file.relative_to(tmp_path / "command")
        assert other.read_bytes() == file.read_bytes()

    outcome = words_of(capsys, "verify", tmp_path / "command", "--json")
    assert irsplit.verify(tmp_path / "function").to_json() == outcome | {
        "shapes": outcome["shapes"]
    }
    data = words_of(capsys, "report", tmp_path / "command", "--json")
    assert json.loads(json.dumps(irsplit.report(tmp_path / "function").data)) == data


def test_magika(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [model.path for model in corpus.load("models") if "magika" in model.name]
    if not paths:
        pytest.skip("THE CORPUS IS NOT HERE")
    check_cuts_and_plan(paths[0], capsys)


@pytest.mark.parametrize("name", ["digits.onnx", "digits.tflite"])
def test_a_model_that_was_read_is_compiled_again_and_again(name: str, tmp_path: Path) -> None:
    file = ModelFile.read(DIGITS / name)
    for cut in ("down/relu", "bottleneck/relu"):
        folders = [tmp_path / f"{kind}-{cut.partition('/')[0]}" for kind in ("fresh", "again")]
        fresh = irsplit.compile(DIGITS / name, folders[0], cuts=cut)
        again = irsplit.compile(file, folders[1], cuts=cut)
        assert fresh.manifest.raw == again.manifest.raw


@pytest.mark.parametrize("command", ["compile", "plan", "report", "cuts"])
def test_a_model_is_read_once(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect: Dialect = ModelFile.read(DIGITS / "digits.onnx").dialect
    read, paths = type(dialect).read, []

    def counting(self: Dialect, path: Path, entry: str | None = None) -> Any:
        paths.append(path)
        return read(self, path, entry)

    monkeypatch.setattr(type(dialect), "read", counting)
    words = [command, str(DIGITS / "digits.onnx")]
    if command in ("compile", "report"):
        words += ["-o", str(tmp_path / "out")]
    if command != "cuts":
        words += ["--calibration", str(DIGITS / "pictures")]
    assert main(words) == 0
    assert paths == [DIGITS / "digits.onnx"]


def test_the_old_name_of_quantize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(DIGITS / "digits.onnx"), "--json"]
    assert main([*words, "--boundary", "int8"]) == 0
    old = capsys.readouterr()
    assert old.err.splitlines()[0].startswith("note: --boundary is --quantize now")
    assert main([*words, "--quantize", "int8"]) == 0
    assert capsys.readouterr().out == old.out
    assert "--boundary" not in set(parser_of("compile").format_help().replace(",", " ").split())

    (tmp_path / "irsplit.toml").write_text(
        f"[targets.a]\nmodel = '{DIGITS / 'digits.onnx'}'\nboundary = 'lossless'\n"
    )
    assert main(["compile", str(tmp_path / "irsplit.toml")]) == 0
    assert "boundary is quantize now" in capsys.readouterr().err
    assert BuildFile.load(str(tmp_path / "irsplit.toml")).targets[0].name == "a"
