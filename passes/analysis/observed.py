"""The shapes of a model's tensors, from one run of the engine."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from irsplit.base.errors import EngineError
from irsplit.dialects.base import Dialect
from irsplit.engines.execute import SegmentFile, prepared_shapes, run_shapes
from irsplit.engines.inputs import tensor_info
from irsplit.engines.isolate import isolated
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.ir import Model, TensorType, Value, required_inputs


def observed_shapes(
    dialect: Dialect, model: Model, sizes: Mapping[str, int]
) -> dict[Value, tuple[int, ...]]:
    """Shapes of the tensors of the entry whose types leave some dimension open, inputs among them.

    `sizes` of open dimensions of inputs are by "<input>.<axis>"; the others are those that the engine takes. Raises
    EngineError when it takes none.
    """
    if isinstance(dialect, _KnowsShapes):
        return dialect.shapes(model, sizes)

    entry = model.entry
    inputs = required_inputs(entry)
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


@runtime_checkable
class _KnowsShapes(Protocol):
    """A dialect that no engine runs, and that tells its shapes itself."""

    def shapes(self, model: Model, sizes: Mapping[str, int]) -> dict[Value, tuple[int, ...]]: ...


@runtime_checkable
class _TellsShapes(Protocol):
    """A dialect that knows the shapes of a model's values for sizes of its inputs without running it."""

    def shapes_at(
        self, model: Model, sizes: Sequence[Mapping[str, int]]
    ) -> list[dict[str, tuple[int, ...]]]: ...


def shapes_at(
    dialect: Dialect, model: Model, source: Path, sizes: Sequence[Mapping[str, int]]
) -> Sequence[Mapping[str, tuple[int, ...]]]:
    """Shapes of the values of the entry, by name, for sizes of open dimensions of inputs by "<input>.<axis>".

    Nothing is run. What cannot be told is left out: nothing, for a dialect that has no means of it.
    """
    if isinstance(dialect, _TellsShapes):
        return dialect.shapes_at(model, sizes)
    if dialect.name != "tflite" or model.entry is not min(
        model.graphs, key=lambda graph: graph.native.index
    ):
        return [{} for _ in sizes]
    inputs = model.entry.inputs
    shapes = [[_sized(value, each) for value in inputs] for each in sizes]
    tensors = {
        value.native.index: value.name for value in model.entry.values() if value.native is not None
    }
    try:
        found = isolated(prepared_shapes, source, shapes)
    except (EngineError, RuntimeError):
        return [{} for _ in sizes]
    return [
        {tensors[index]: shape for index, shape in each.items() if index in tensors}
        for each in found
    ]


def _sized(value: Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    dims = enumerate(shape or ())
    return tuple(
        dim if isinstance(dim, int) else sizes[f"{value.name}.{axis}"] for axis, dim in dims
    )


def _is_open(value: Value) -> bool:
    return isinstance(value.type, TensorType) and not value.type.is_static
