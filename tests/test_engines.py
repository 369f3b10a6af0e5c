"""Engines are found by entry points: ours, those of other packages, and what is missing."""

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from irsplit.base.errors import EngineError
from irsplit.runtime.run import engines
from irsplit.runtime.run.engines import (
    ENTRY_POINTS,
    EngineOptions,
    ModelFile,
    engine_module,
    formats,
    open_engine,
)

ROOT = Path(__file__).parent.parent


class Echo:
    """An engine that gives back what it is fed."""

    optimized = False

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        self.file, self.options = file, options


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    monkeypatch.setattr(engines, "entry_points", lambda group: list(points))


def test_our_engines_are_the_registered_ones() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    registered = data["project"]["entry-points"][ENTRY_POINTS]
    assert {f"{engine_module(name)}:open_engine" for name in registered} == set(registered.values())
    assert set(registered) <= set(formats())


def test_an_engine_of_another_package_opens_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("echo", f"{__name__}:Echo", ENTRY_POINTS))
    options = EngineOptions(threads=3)
    engine = open_engine(Path("model.echo"), "echo", options)
    assert isinstance(engine, Echo)
    assert (engine.file, engine.options) == (Path("model.echo"), options)
    assert formats() == ["echo", "onnx", "tflite"]


def test_a_format_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(EngineError, match=r"no engine for format 'echo'; install .* onnx, tflite"):
        open_engine(Path("model.echo"), "echo")


def test_two_engines_for_one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("echo", f"{module}:open_engine", ENTRY_POINTS) for module in ("a", "b")]
    install(monkeypatch, *points)
    with pytest.raises(EngineError, match="a:open_engine and b:open_engine; uninstall one"):
        engine_module("echo")


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "irsplit.runtime.run.engines.ort", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"model\.onnx needs an engine .* install onnxruntime"):
        open_engine(Path("model.onnx"), "onnx")
