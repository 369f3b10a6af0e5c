"""Reading and writing an untouched ONNX model gives the same file: the corpus, and small ones."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

import corpus
from irsplit.dialects.onnx import ONNX
from irsplit.ir import verify
from stock_engines import run_model, same_bits

EVERY = [model for section in ("models", "micro", "hostile") for model in corpus.load(section)]
ONNX_MODELS = [model for model in EVERY if model.format == "onnx"]


def has_external_data(proto: onnx.ModelProto) -> bool:
    return any(map(external_data_helper.uses_external_data, proto.graph.initializer))


def loaded(path: Path) -> onnx.ModelProto:
    """The model with all weights in memory, without onnx's trace of where they came from."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        tensor.ClearField("data_location")
    return proto


@pytest.mark.parametrize("model", corpus.cases(ONNX_MODELS))
def test_an_untouched_model_is_written_back_equal(model: corpus.CorpusModel, tmp_path: Path):
    read = ONNX.read(model.path)
    written = tmp_path / model.path.name

    assert ONNX.write(read, read.entry, written) == [written]

    verify(read)
    assert loaded(written) == loaded(model.path)
    if not has_external_data(onnx.load(model.path, load_external_data=False)):
        assert written.read_bytes() == model.path.read_bytes()


def test_old_models_that_do_not_list_an_initializer_stay_so(tmp_path: Path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "a", "y")]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [2], [1, 2]) for name in ("a", "b")]
    nodes = [helper.make_node("Mul", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    graph = helper.make_graph(nodes, "net", ends[:2], ends[2:], weights)
    path, written = tmp_path / "m.onnx", tmp_path / "written.onnx"
    imports = [helper.make_opsetid("", 8)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=3).SerializeToString()
    )
    read = ONNX.read(path)

    ONNX.write(read, read.entry, written)

    assert written.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("model", corpus.cases(model for model in ONNX_MODELS if model.runs))
def test_an_untouched_model_computes_the_same_bits(model: corpus.CorpusModel, tmp_path: Path):
    read = ONNX.read(model.path)
    written = tmp_path / model.path.name
    ONNX.write(read, read.entry, written)
    (values,) = corpus.feeds(model)

    assert same_bits(run_model(written, values), run_model(model.path, values))
