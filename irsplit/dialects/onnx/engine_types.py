"""A program for `confined.py`, never imported: asks onnxruntime for the types of a model's outputs.

The request is a JSON list of the inputs whose rank is unknown, a newline, and the model. The answer
of `answer` is JSON: {"types": [[name, type, shape], ...]}, or {"refused": text} for a model that
onnxruntime does not open.

onnxruntime says `[]` for a scalar and for an unknown rank alike. Such outputs are computed twice,
on different inputs, and get as many unknown dimensions as the results have. Their shape is null if
that fails, or if the rank depends on the elements or ranks of the inputs.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

_DTYPES = {"float": "float32", "double": "float64"}
_MOST_BYTES = 256 * 1024 * 1024
"""Size of one input beyond which the model is not run."""


def answer(request: bytes) -> bytes:
    """Answer one request (see the top of the file)."""
    names, _, model = request.partition(b"\n")
    unranked_inputs = json.loads(names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    # onnxruntime has an exception class of its own for each way to refuse.
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        return json.dumps({"refused": str(error)}).encode()

    shapes: dict[str, Any] = {value.name: value.shape for value in session.get_outputs()}
    unclear = [name for name, shape in shapes.items() if not shape]
    if unranked_inputs:
        shapes.update(dict.fromkeys(unclear))
    elif unclear:
        shapes.update(_observed(session, unclear))

    types = [(value.name, value.type, shapes[value.name]) for value in session.get_outputs()]
    return json.dumps({"types": types}).encode()


def _observed(session: Any, names: list[str]) -> dict[str, Any]:
    """Shapes of these outputs in runs: as many nulls as there are dimensions, or null."""
    ranks_on_ones = _ranks(session, names, np.ones)
    ranks_on_counts = _ranks(session, names, _counts)
    shapes: dict[str, Any] = {}
    for name, rank, other in zip(names, ranks_on_ones, ranks_on_counts, strict=True):
        # The second run may fail where the first does not: its inputs are unusual numbers.
        if rank is None or other not in (rank, None):
            shapes[name] = None
        else:
            shapes[name] = [None] * rank
    return shapes


def _ranks(
    session: Any, names: list[str], fill: Callable[[list[int], Any], Any]
) -> list[int | None]:
    """Ranks of these outputs in one run on inputs that `fill` makes."""
    # Whatever an engine or an odd input raises, the answer is that nothing is known.
    try:
        inputs = {value.name: _filled(value, fill) for value in session.get_inputs()}
        results = session.run(names, inputs)
    except Exception:
        return [None] * len(names)

    return [len(result.shape) if hasattr(result, "shape") else None for result in results]


def _counts(shape: list[int], dtype: Any) -> Any:
    """0, 1, 2, ...: other numbers than ones, no two alike."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def _filled(value: Any, fill: Callable[[list[int], Any], Any]) -> Any:
    """An array for an input, with size 1 for open dimensions."""
    name = value.type.removeprefix("tensor(").removesuffix(")")
    shape = [dim if isinstance(dim, int) else 1 for dim in value.shape]
    dtype = np.dtype(_DTYPES.get(name, name))
    if dtype.itemsize * np.prod(shape, dtype=float) > _MOST_BYTES:
        raise MemoryError(value.name)
    return fill(shape, dtype)
