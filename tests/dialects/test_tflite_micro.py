"""TFLite Micro, for microcontrollers, runs segments as they are: it is stricter than LiteRT.

It reads weights inside the flatbuffer only, checks alignment, and finds initialisers and variables
by itself.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpus
import tflite_objects
from corpus import CorpusModel
from irsplit.dialects.tflite import TFLITE
from irsplit.passes.analysis.cuts import legal_cuts

micro = pytest.importorskip(
    "tflite_micro", reason="pip install tflite-micro to run segments on TFLite Micro"
)

ARENA_BYTES = 4 << 20
CUTS_PER_MODEL = 6
DIGITS = Path(__file__).parents[2] / "examples" / "digits"
# Models of the corpus whose operators and types TFLite Micro has.
NAMES = {
    "resnet8_cifar_int8.tflite",
    "kws_dscnn_int8.tflite",
    "okay_nabu_stream_int8.tflite",
    "soundstream_encoder_mixed.tflite",
    "lstm_mnist_int8.tflite",
    "call_once_mul.tflite",
    "topo_fork_split.tflite",
}


class Micro:
    """A model on TFLite Micro, with whatever state it keeps between calls."""

    def __init__(self, path: Path, outputs: int) -> None:
        self._engine = micro.runtime.Interpreter.from_file(str(path), arena_size=ARENA_BYTES)
        self._outputs = outputs

    def run(self, values: list[Any]) -> list[Any]:
        for index, value in enumerate(values):
            self._engine.set_input(value, index)
        self._engine.invoke()
        return [self._engine.get_output(index).copy() for index in range(self._outputs)]


def assert_halves_are_the_whole(path: Path, calls: list[list[Any]], folder: Path) -> None:
    model = TFLITE.read(path)
    cuts = legal_cuts(model.entry)
    whole = Micro(path, len(model.entry.outputs))
    expected = [whole.run(values) for values in calls]
    for cut in cuts[:: max(1, len(cuts) // CUTS_PER_MODEL)]:
        graphs = tflite_objects.halves(model, cut.position)
        files = [TFLITE.write(model, graph, folder / f"{graph.name}.tflite")[0] for graph in graphs]
        parts = [Micro(file, len(graph.outputs)) for file, graph in zip(files, graphs, strict=True)]
        for values, results in zip(calls, expected, strict=True):
            known = dict(zip((value.name for value in model.entry.inputs), values, strict=True))
            for graph, part in zip(graphs, parts, strict=True):
                outputs = part.run([known[value.name] for value in graph.inputs])
                known.update(zip((value.name for value in graph.outputs), outputs, strict=True))
            for value, result in zip(model.entry.outputs, results, strict=True):
                np.testing.assert_array_equal(known[value.name], result, err_msg=f"cut {cut.id}")


@pytest.mark.parametrize(
    "model",
    corpus.cases(model for model in corpus.models("models", "micro") if model.name in NAMES),
)
def test_halves_are_the_whole(model: CorpusModel, tmp_path: Path):
    calls = corpus.feeds(model, calls=4 if model.stateful else 1)
    assert_halves_are_the_whole(model.path, calls, tmp_path)


def test_halves_of_the_example_are_the_whole(tmp_path: Path):
    path = DIGITS / "digits_int8.tflite"
    (entry,) = TFLITE.read(path).entry.inputs
    images = np.random.default_rng(7).integers(-128, 128, (3, 1, *entry.type.shape[1:]), np.int8)
    assert_halves_are_the_whole(path, [[image] for image in images], tmp_path)
