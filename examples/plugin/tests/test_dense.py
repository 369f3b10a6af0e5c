"""The dialect and its engine: files come back equal, halves equal the whole, damage is refused."""

from pathlib import Path

import numpy as np
import pytest
from irsplit_budget.dense import DENSE
from irsplit_budget.dense_engine import Layer, Network, open_engine, parse, text

from irsplit.base.errors import EngineError, ModelError, ModelRefusedError
from irsplit.ir import Model, equal
from irsplit.runtime.run.engines import DEFAULT_OPTIONS


def network() -> Network:
    """Three layers of random numbers."""
    random = np.random.default_rng(0)
    sizes = {"x": 6, "hidden": 3, "wide": 8, "scores": 4}
    layers: list[Layer] = []
    for reads, name in [("x", "hidden"), ("hidden", "wide"), ("wide", "scores")]:
        weight = random.standard_normal((sizes[reads], sizes[name])).astype(np.float32)
        bias = random.standard_normal(sizes[name]).astype(np.float32)
        layers.append(Layer(name, reads, "relu" if name != "scores" else "linear", weight, bias))
    return Network({"x": 6}, layers, ["scores"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.dense"
    path.write_text(text(network()))
    return path


def read(path: Path) -> Model:
    return DENSE.read(path)


def test_an_untouched_model_comes_back_equal(file: Path, tmp_path: Path) -> None:
    model = read(file)
    written = tmp_path / "written.dense"
    assert DENSE.write(model, model.entry, written) == [written]
    assert written.read_bytes() == file.read_bytes()
    assert equal(read(written), model)


def test_knowledge_of_operators(file: Path) -> None:
    nodes = read(file).entry.nodes
    assert [DENSE.macs(node) for node in nodes] == [6 * 3, 3 * 8, 8 * 4]
    assert {DENSE.operator_class(node) for node in nodes} == {"matmul"}


def test_engine(file: Path) -> None:
    engine = open_engine(file, DEFAULT_OPTIONS)
    x = np.ones((1, 6), np.float32)
    first, second, third = network().layers
    hidden = np.maximum(x @ first.weight + first.bias, 0)
    wide = np.maximum(hidden @ second.weight + second.bias, 0)
    (scores,) = engine.run([x])
    np.testing.assert_array_equal(scores, wide @ third.weight + third.bias)
    with pytest.raises(EngineError, match="input 'x' has shape"):
        engine.run([np.ones((1, 5), np.float32)])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"layers"', '"lawyers"', "it lacks 'layers'"),
        ('"reads": "hidden"', '"reads": "wide"', "which is not computed"),
        ('"name": "wide"', '"name": "hidden"', "two values are named 'hidden'"),
        ('"linear"', '"sigmoid"', "unknown activation sigmoid"),
        ('"x": 6', '"x": 7', "needs a weight of 7 x 3 numbers"),
        ('["scores"]', '["other"]', "output 'other' is not computed"),
        ("}\n", "", "delimiter"),
    ],
)
def test_damage_is_refused(file: Path, old: str, new: str, reason: str) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=reason):
        parse(file.read_bytes())
    with pytest.raises(ModelError, match=reason):
        read(file)
    with pytest.raises(ModelRefusedError, match=reason):
        open_engine(file, DEFAULT_OPTIONS)
