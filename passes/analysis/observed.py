"""The shapes of a model's tensors, from one run of the engine."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from irsplit.dialects.base import Dialect
from irsplit.engines.execute import SegmentFile, run_shapes
from irsplit.engines.inputs import tensor_info
from irsplit.engines.isolate import isolated
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.ir import Model, TensorType, Value, fed


def observed_shapes(
    dialect: Dialect, model: Model, sizes: Mapping[str, int]
) -> dict[Value, tuple[int, ...]]:
    """Shapes of the tensors of the entry whose types leave some dimension open, inputs among them.

    `sizes` of open dimensions of inputs are by "<input>.<axis>"; the others are those that the engine takes. Raises
    EngineError when it takes none.
    """
    entry = model.entry
    inputs = fed(entry)
    wanted = [value for value in entry.values() if value.producer is not None and _is_open(value)]
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        path = Path(folder) / f"whole{dialect.extensions[0]}"
        outputs = list(dict.fromkeys((*entry.outputs, *wanted)))
        dialect.write(model, replace(entry, outputs=outputs), path)
        file = SegmentFile(path, model.dialect, tuple(value.name for value in inputs), ())
        infos = [tensor_info(value) for value in inputs]
        calls, shapes = first_taken(
            lambda calls: isolated(run_shapes, file, calls[0]), infos, 1, dims=sizes
        )
    found = dict(zip(outputs, shapes, strict=True))
    found.update((value, calls[0][value.name].shape) for value in inputs)
    return {value: shape for value, shape in found.items() if shape is not None and _is_open(value)}


def _is_open(value: Value) -> bool:
    return isinstance(value.type, TensorType) and not value.type.is_static
