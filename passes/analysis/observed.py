"""The shapes of a model's tensors, from one run of the engine or from what its dialect knows."""

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


@runtime_checkable
class _KnowsShapes(Protocol):
    """A dialect that no engine runs, and that tells the shapes of its tensors itself."""

    def shapes(self, model: Model, sizes: Mapping[str, int]) -> dict[Value, tuple[int, ...]]: ...


@runtime_checkable
class _InfersShapes(Protocol):
    """A dialect that infers the shapes of a model's values from sizes of its inputs."""

    def shapes_at(
        self, model: Model, sizes: Sequence[Mapping[str, int]]
    ) -> list[dict[str, tuple[int, ...]]]: ...


def observed_shapes(
    dialect: Dialect, model: Model, sizes: Mapping[str, int]
) -> dict[Value, tuple[int, ...]]:
    """Run the model once and return the shapes of the tensors that leave some dimension open.

    Args:
        dialect: The dialect of the model.
        model: A model that is not partitioned.
        sizes: Sizes of open dimensions of inputs by "<input>.<axis>". The dimensions that are left
            out take the first size that the engine accepts.

    Returns:
        The shapes of such tensors of the entry graph, inputs among them.

    Raises:
        EngineError: The engine accepts no sizes.
    """
    if isinstance(dialect, _KnowsShapes):
        return dialect.shapes(model, sizes)

    entry = model.entry
    inputs = required_inputs(entry)
    inner = [value for value in entry.values() if value.producer is not None and _is_open(value)]
    outputs = list(dict.fromkeys((*entry.outputs, *inner)))
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        path = Path(folder) / f"whole{dialect.extensions[0]}"
        dialect.write(model, replace(entry, outputs=outputs), path)
        file = SegmentFile(path, dialect.engine, tuple(value.name for value in inputs), ())
        infos = [tensor_info(value) for value in inputs]
        samples, output_shapes = first_taken(
            lambda samples: isolated(run_shapes, file, samples[0]), infos, 1, dims=sizes
        )

    shapes = dict(zip(outputs, output_shapes, strict=True))
    shapes.update((value, samples[0][value.name].shape) for value in inputs)
    open_shapes: dict[Value, tuple[int, ...]] = {}
    for value, shape in shapes.items():
        if shape is not None and _is_open(value):
            open_shapes[value] = shape
    return open_shapes


def shapes_at(
    dialect: Dialect, model: Model, source: Path, sizes: Sequence[Mapping[str, int]]
) -> Sequence[Mapping[str, tuple[int, ...]]]:
    """Return the shapes of the entry's values for several sizes of its inputs; nothing is run.

    Args:
        dialect: The dialect of the model.
        model: A model that is not partitioned.
        source: The file it was read from.
        sizes: Sizes of all open dimensions of inputs by "<input>.<axis>", once a result.

    Returns:
        For each item of `sizes`, shapes by the value's name. Values whose shape cannot be told are
        left out, which are all of them for a dialect without a means to tell.
    """
    if isinstance(dialect, _InfersShapes):
        return dialect.shapes_at(model, sizes)

    if dialect.name != "tflite":
        return [{} for _ in sizes]

    # LiteRT resizes tensors without running them, but of a file's first subgraph alone.
    first = min(model.graphs, key=lambda graph: graph.native.index)
    if model.entry is not first:
        return [{} for _ in sizes]

    names: dict[int, str] = {}
    for value in model.entry.values():
        if value.native is not None:
            names[value.native.index] = value.name

    requests = [_input_shapes(model, inputs) for inputs in sizes]
    try:
        answers = isolated(prepared_shapes, source, requests)
    except (EngineError, RuntimeError):
        return [{} for _ in sizes]
    return [_named(shapes, names) for shapes in answers]


def _named(
    shapes: Mapping[int, tuple[int, ...]], names: Mapping[int, str]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name, without tensors that are no values of the entry."""
    return {names[index]: shape for index, shape in shapes.items() if index in names}


def _input_shapes(model: Model, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Return the shapes of the entry's inputs, open dimensions as in `sizes`."""
    return [_sized(value, sizes) for value in model.entry.inputs]


def _sized(value: Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a value, open dimensions as in `sizes`; () for an unknown rank."""
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    dims: list[int] = []
    for axis, dim in enumerate(shape or ()):
        dims.append(dim if isinstance(dim, int) else sizes[f"{value.name}.{axis}"])
    return tuple(dims)


def _is_open(value: Value) -> bool:
    return isinstance(value.type, TensorType) and not value.type.is_static
