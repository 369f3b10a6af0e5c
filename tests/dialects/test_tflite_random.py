"""Random TFLite models: whatever is cut legally, the halves compute the whole, bit for bit."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from irsplit.dialects.tflite import TFLITE
from irsplit.ir import engine_graph
from irsplit.passes.analysis.cuts import legal_cuts
from irsplit.passes.analysis.schedule import schedule
from irsplit.passes.partition import split
from stock_engines import open_model, same_bits
from tflite_models import Sketch

SHAPE = (1, 3)
OPTIONS: dict[str, Any] = {
    "ABS": schema.AbsOptionsT,
    "NEG": schema.NegOptionsT,
    "ADD": schema.AddOptionsT,
    "SUB": schema.SubOptionsT,
    "MAXIMUM": schema.MaximumMinimumOptionsT,
}
UNARY = {"ABS", "NEG"}
MAX_CUTS = 6


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    """A graph of a few inputs, constants with shared buffers, operators that read them."""
    sketch = Sketch()
    sketch.subgraph("main")
    values = [sketch.input(f"input{index}", SHAPE) for index in range(draw(st.integers(1, 3)))]
    for index in range(draw(st.integers(0, 2))):
        constant = sketch.constant(f"constant{index}", np.full(SHAPE, index + 0.5, np.float32))
        values.append(constant)
        if draw(st.booleans()):
            shared = sketch.graph.tensors[constant].buffer
            values.append(sketch.tensor(f"shared{index}", SHAPE, buffer=shared))
    results: list[int] = []
    for index in range(draw(st.integers(2, 10))):
        name = draw(st.sampled_from(sorted(OPTIONS)))
        # Recent values first, so that graphs are long rather than wide.
        reads = [
            values[-1 - draw(st.integers(0, min(3, len(values) - 1)))]
            for _ in range(1 if name in UNARY else 2)
        ]
        repeated = draw(st.booleans())
        results.append(
            sketch.then(
                name, reads, "same" if repeated else f"value{index}", SHAPE, options=OPTIONS[name]()
            )
        )
        values.append(results[-1])
    early = draw(st.lists(st.sampled_from(results), max_size=2, unique=True))
    sketch.graph.outputs = [*(index for index in early if index != results[-1]), results[-1]]
    return sketch


@given(sketches(), st.integers(1, 3))
@settings(max_examples=60)
def test_halves_of_random_models_are_the_whole(sketch: Sketch, max_tensors: int):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = sketch.save(folder / "whole.tflite")
        model = TFLITE.read(path)
        plan = schedule(model.entry)
        values = [
            np.float32([[index - 1.25, 0.1, 3e38]]) for index in range(len(model.entry.inputs))
        ]
        expected = open_model(path).run(values)
        for cut in legal_cuts(plan, max_tensors)[:MAX_CUTS]:
            known = dict(zip((value.name for value in model.entry.inputs), values, strict=True))
            for part in split(plan, [cut], ("device", "server")):
                graph = engine_graph(part)
                (file,) = TFLITE.write(model, graph, folder / f"{graph.name}.tflite")
                outputs = open_model(file).run([known[value.name] for value in graph.inputs])
                known.update(zip((value.name for value in graph.outputs), outputs, strict=True))
            assert same_bits([known[value.name] for value in model.entry.outputs], expected), cut.id
