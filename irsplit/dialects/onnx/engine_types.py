"""A program for `confined.py`, never imported: what onnxruntime knows of the outputs of a model.

The request is a JSON list of the inputs whose rank is unknown, a line, then the model. `answer` gives JSON:
{"types": [[name, type, shape], ...]}, or {"refused": text} of a model that onnxruntime does not open. onnxruntime says
`[]` for a scalar and for an unknown rank alike: those are run, and get as many unknown dimensions as come out; the
shape is null where that fails, or where a rank depends on what the inputs hold (axes to reduce, say) or on their ranks.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

_DTYPES = {"float": "float32", "double": "float64"}
_MOST_BYTES = 256 * 1024 * 1024


def answer(request: bytes) -> bytes:
    names, _, model = request.partition(b"\n")
    unranked = json.loads(names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime has a class of its own for each way to refuse
        return json.dumps({"refused": str(error)}).encode()
    shapes: dict[str, Any] = {value.name: value.shape for value in session.get_outputs()}
    unclear = [name for name, shape in shapes.items() if not shape]
    if unranked:
        shapes.update(dict.fromkeys(unclear))
    elif unclear:
        shapes.update(_observed(session, unclear))
    found = [(value.name, value.type, shapes[value.name]) for value in session.get_outputs()]
    return json.dumps({"types": found}).encode()


def _observed(session: Any, names: list[str]) -> dict[str, Any]:
    """Shapes of these outputs when the model runs: as many nulls as there are dimensions, or null."""
    on_ones, on_counts = _ranks(session, names, np.ones), _ranks(session, names, _counts)
    agreed = [
        one if other in (one, None) else None for one, other in zip(on_ones, on_counts, strict=True)
    ]
    return {
        name: None if rank is None else [None] * rank
        for name, rank in zip(names, agreed, strict=True)
    }


def _ranks(
    session: Any, names: list[str], fill: Callable[[list[int], Any], Any]
) -> list[int | None]:
    """Numbers of dimensions in one run on inputs that are filled so."""
    try:
        results = session.run(
            names, {value.name: _filled(value, fill) for value in session.get_inputs()}
        )
    except (
        Exception
    ):  # whatever an engine or an odd input raises, the answer is that nothing is known
        return [None] * len(names)
    return [len(result.shape) if hasattr(result, "shape") else None for result in results]


def _counts(shape: list[int], dtype: Any) -> Any:
    """0, 1, 2, ...: other numbers than ones, no two alike."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def _filled(value: Any, fill: Callable[[list[int], Any], Any]) -> Any:
    name = value.type.removeprefix("tensor(").removesuffix(")")
    shape = [dim if isinstance(dim, int) else 1 for dim in value.shape]
    dtype = np.dtype(_DTYPES.get(name, name))
    if dtype.itemsize * np.prod(shape, dtype=float) > _MOST_BYTES:
        raise MemoryError(value.name)
    return fill(shape, dtype)
