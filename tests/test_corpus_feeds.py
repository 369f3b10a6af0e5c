"""The helpers of the corpus tests: inputs and stock engines are as the manifest says."""

from pathlib import Path

import numpy as np
import pytest

import corpus
from corpus import CorpusModel
from stock_engines import EngineFailed, open_model, run_isolated, run_model, same_bits

RUNNABLE = corpus.models("models", "micro")
# Models whose outputs involve no rounding that could differ between machines; together they fix the
# rule for floats, for several inputs in order, for ids, and for how outputs are digested.
EXACT = {
    "swap_3in3out.tflite",
    "topo_fork_split.tflite",
    "loop_with_if.onnx",
    "loop_fp16.onnx",
    "loop_polygraphy.onnx",
    "initializer_is_output.onnx",
    "sequence_optional.onnx",
}


@pytest.mark.parametrize("model", corpus.cases(RUNNABLE))
def test_engine_gives_the_outputs_of_the_manifest(model: CorpusModel):
    engine = open_model(model.path, optimized=True)
    outputs = engine.run(corpus.feeds(model)[0])
    declared = model.entry["run_outputs"]
    assert engine.outputs == [name for name, _, _ in declared]
    for output, (name, dtype, shape) in zip(outputs, declared, strict=True):
        if isinstance(output, np.ndarray) and not output.dtype.hasobject:
            assert [str(output.dtype), list(output.shape)] == [dtype, shape], name
    if model.name in EXACT:
        assert corpus.digest(outputs) == model.entry["output_digest"]


@pytest.mark.parametrize("model", corpus.cases(RUNNABLE))
def test_plain_engine_runs_all_but_what_needs_the_delegate(model: CorpusModel):
    if model.needs_delegate:
        with pytest.raises(RuntimeError, match="unresolved custom op"):
            open_model(model.path)
        return
    plain, optimized = (
        run_model(model.path, corpus.feeds(model)[0], optimized=choice) for choice in (False, True)
    )
    assert [np.shape(output) for output in plain] == [np.shape(output) for output in optimized]


@pytest.mark.parametrize("model", corpus.cases(model for model in RUNNABLE if model.stateful))
def test_stateful_models_repeat_as_a_sequence_on_a_fresh_engine(model: CorpusModel):
    calls = corpus.feeds(model, calls=3)
    first, second = open_model(model.path), open_model(model.path)
    for values in calls:
        assert same_bits(first.run(values), second.run(values))


@pytest.mark.parametrize("model", corpus.cases(corpus.load("hostile")))
def test_isolated_engine_survives_hostile_models(model: CorpusModel):
    if model.runs:
        run_isolated(model.path, corpus.feeds(model)[0])
        return
    with pytest.raises(EngineFailed, match=model.name):
        run_isolated(model.path, [])


def test_isolated_engine_reports_one_that_died(tmp_path: Path):
    with pytest.raises(EngineFailed, match=r"no\.onnx: .*"):
        run_isolated(tmp_path / "no.onnx", [])


def test_same_bits_sees_what_equality_does_not():
    nan = np.array([np.nan], np.float32)
    assert same_bits([nan, None, [nan]], [nan.copy(), None, [nan.copy()]])
    assert not same_bits([np.array([0.0])], [np.array([-0.0])])
    assert not same_bits([np.zeros(2)], [np.zeros((1, 2))])
    assert not same_bits([np.zeros(1)], [])
