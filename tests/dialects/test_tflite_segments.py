"""A segment is a model file with exactly what it uses, and stock LiteRT runs its signature."""

from pathlib import Path

import pytest
import tflite
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import corpus
from corpus import CorpusModel
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import Graph, Model, engine_graph
from irsplit.passes.analysis.cuts import legal_cuts, schedule
from irsplit.passes.partition import split
from stock_engines import open_model, same_bits

MODELS = [model for model in corpus.models("models", "micro") if model.format == "tflite"]
PLACES = ("device", "server")
CUTS_PER_MODEL = 5


def segments(model: Model, position: int | None = None) -> list[Graph]:
    """The engine graphs of both halves at the legal cut of this position, or the middle one."""
    plan = schedule(model.entry)
    cuts = legal_cuts(plan, max_tensors=2)
    chosen = [cut for cut in cuts if position in (None, cut.position)]
    return [engine_graph(part) for part in split(plan, [chosen[len(chosen) // 2]], PLACES)]


def write(model: Model, graphs: list[Graph], folder: Path, **options: int) -> list[Path]:
    return [
        TFLITE.write(model, graph, folder / f"{graph.name}.tflite", WriteOptions(**options))[0]
        for graph in graphs
    ]


def oracle(path: Path) -> tflite.Model:
    """The file through the accessors of the `tflite` package."""
    return tflite.Model.GetRootAsModel(path.read_bytes(), 0)


@pytest.mark.parametrize("model", corpus.cases(MODELS))
@pytest.mark.parametrize("external_over", [None, 0])
def test_halves_are_the_whole(model: CorpusModel, external_over: int | None, tmp_path: Path):
    read = TFLITE.read(model.path)
    plan = schedule(read.entry)
    cuts = legal_cuts(plan, max_tensors=2)
    calls = corpus.feeds(model, calls=3 if model.stateful else 1)
    optimized = model.needs_delegate
    whole = open_model(model.path, optimized=optimized)
    expected = [whole.run(values) for values in calls]
    for cut in cuts[:: max(1, len(cuts) // CUTS_PER_MODEL)]:
        graphs = [engine_graph(part) for part in split(plan, [cut], PLACES)]
        paths = write(read, graphs, tmp_path, external_over=external_over)
        engines = [open_model(path, optimized=optimized) for path in paths]
        for values, results in zip(calls, expected, strict=True):
            known = dict(zip((value.name for value in read.entry.inputs), values, strict=True))
            for graph, engine in zip(graphs, engines, strict=True):
                outputs = engine.run([known[value.name] for value in graph.inputs])
                known.update(zip((value.name for value in graph.outputs), outputs, strict=True))
            assert same_bits([known[value.name] for value in read.entry.outputs], results), (
                f"cut {cut.id}"
            )


@pytest.mark.parametrize("model", corpus.cases(model for model in MODELS if model.entry["n_cuts"]))
def test_segments_hold_nothing_unused(model: CorpusModel, tmp_path: Path):
    read = TFLITE.read(model.path)
    for path in write(read, segments(read), tmp_path):
        file = oracle(path)
        graphs = [file.Subgraphs(index) for index in range(file.SubgraphsLength())]
        operators = [
            graph.Operators(index) for graph in graphs for index in range(graph.OperatorsLength())
        ]
        assert {item.OpcodeIndex() for item in operators} == set(range(file.OperatorCodesLength()))
        buffers = {file.Metadata(index).Buffer() for index in range(file.MetadataLength())} | {0}
        for graph in graphs:
            tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
            buffers |= {tensor.Buffer() for tensor in tensors}
            own = [graph.Operators(index) for index in range(graph.OperatorsLength())]
            used = {int(graph.Inputs(index)) for index in range(graph.InputsLength())}
            used |= {int(graph.Outputs(index)) for index in range(graph.OutputsLength())}
            for item in own:
                used |= {int(item.Inputs(index)) for index in range(item.InputsLength())}
                used |= {int(item.Outputs(index)) for index in range(item.OutputsLength())}
                used |= {
                    int(item.Intermediates(index)) for index in range(item.IntermediatesLength())
                }
            assert used - {-1} == set(range(len(tensors)))
        assert buffers == set(range(file.BuffersLength()))
        assert file.Buffers(0).DataLength() == 0


@pytest.mark.parametrize("model", corpus.cases(model for model in MODELS if model.entry["n_cuts"]))
def test_signature_runner_runs_segments(model: CorpusModel, tmp_path: Path):
    if model.needs_delegate or any(
        isinstance(dim, int) and dim < 0 for _, _, dims in model.entry["inputs"] for dim in dims
    ):
        pytest.skip(
            "a signature runner of this model needs the default delegate, or sizes of dynamic "
            "inputs"
        )
    read = TFLITE.read(model.path)
    graphs = segments(read)
    known = dict(
        zip((value.name for value in read.entry.inputs), corpus.feeds(model)[0], strict=True)
    )
    for graph, path in zip(graphs, write(read, graphs, tmp_path), strict=True):
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        engine = Interpreter(str(path), experimental_op_resolver_type=plain, num_threads=1)
        (key,) = engine.get_signature_list()
        runner = engine.get_signature_runner(key)
        names = [details["name"] for details in runner.get_input_details().values()]
        assert sorted(names) == sorted(value.name for value in graph.inputs)
        outputs = runner(
            **{key: known[details["name"]] for key, details in runner.get_input_details().items()}
        )
        known.update(
            (details["name"], outputs[key]) for key, details in runner.get_output_details().items()
        )
    assert same_bits(
        [known[value.name] for value in read.entry.outputs],
        open_model(model.path).run(corpus.feeds(model)[0]),
    )
