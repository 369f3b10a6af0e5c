"""A TFLite model with a state: it counts what it is given."""

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_models import Sketch

SHAPE = (1, 2)


def counting_model(path: Path, *, shown: bool = False) -> Path:
    """x -> cut = |x| -> count = cut + variable, which becomes count; the variable begins at zero.

    With `shown`, |count| is what comes out: work behind the state.
    """
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.subgraph("initialise")
    sketch.operator(
        "ASSIGN_VARIABLE",
        [_handle(sketch), sketch.constant("zero", np.zeros(SHAPE, np.float32))],
        [],
        schema.AssignVariableOptionsT(),
    )
    sketch.model.subgraphs.reverse()
    sketch.operator("CALL_ONCE", [], [], schema.CallOnceOptionsT(initSubgraphIndex=1))
    cut = sketch.then("ABS", [sketch.input("x", SHAPE)], "cut", SHAPE, options=schema.AbsOptionsT())
    total = sketch.then(
        "READ_VARIABLE", [_handle(sketch)], "total", SHAPE, options=schema.ReadVariableOptionsT()
    )
    count = sketch.then("ADD", [cut, total], "count", SHAPE, options=schema.AddOptionsT())
    sketch.operator(
        "ASSIGN_VARIABLE", [_handle(sketch), count], [], schema.AssignVariableOptionsT()
    )
    if shown:
        count = sketch.then("ABS", [count], "shown", SHAPE, options=schema.AbsOptionsT())
    sketch.graph.outputs.append(count)
    sketch.model.subgraphs.reverse()
    return sketch.save(path)


def _handle(sketch: Sketch) -> int:
    index = sketch.tensor("handle", (), "resource")
    sketch.operator(
        "VAR_HANDLE", [], [index], schema.VarHandleOptionsT(container="", sharedName="total")
    )
    return index
