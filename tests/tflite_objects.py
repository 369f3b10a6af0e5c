"""Model files as LiteRT's objects, for tests: what a file says; and segments to look at."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import Graph, Model, engine_graph
from irsplit.passes.analysis.cuts import legal_cuts, schedule
from irsplit.passes.partition import split


def load(path: Path) -> Any:
    """The model as objects, the contents of buffers that lie behind the flatbuffer brought in."""
    data = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for buffer in model.buffers or []:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def difference(left: Any, right: Any, where: str = "model") -> str | None:
    """Where two objects differ first; None when they are equal."""
    if type(left) is not type(right):
        return f"{where}: {left!r} and {right!r}"
    if isinstance(left, np.ndarray):
        same = left.dtype == right.dtype and left.tobytes() == right.tobytes()
        return None if same else f"{where}: arrays {left!r} and {right!r}"
    if isinstance(left, list):
        if len(left) != len(right):
            return f"{where}: {len(left)} and {len(right)} elements"
        pairs = (
            (f"{where}[{index}]", *pair) for index, pair in enumerate(zip(left, right, strict=True))
        )
    elif hasattr(left, "__dict__"):
        pairs = (
            (f"{where}.{name}", value, getattr(right, name)) for name, value in vars(left).items()
        )
    else:
        return None if left == right or left != left else f"{where}: {left!r} and {right!r}"
    found = (difference(a, b, name) for name, a, b in pairs)
    return next((text for text in found if text is not None), None)


def halves(model: Model, position: int | None = None) -> list[Graph]:
    """The engine graphs of both segments at the legal cut of this position, or the middle one."""
    plan = schedule(model.entry)
    cuts = [cut for cut in legal_cuts(plan, max_tensors=2) if position in (None, cut.position)]
    return [
        engine_graph(part) for part in split(plan, [cuts[len(cuts) // 2]], ("device", "server"))
    ]


def write(model: Model, graph: Graph, folder: Path, options: WriteOptions = WriteOptions()) -> Any:
    """The file that the dialect writes for a graph, as objects."""
    return load(TFLITE.write(model, graph, folder / f"{graph.name}.tflite", options)[0])
