"""The inputs of a model, and those of several calls: from files, or checked as they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard, cast

from irsplit.compilation.model_file import ModelFile
from irsplit.engines.execute import Inputs, SegmentFile
from irsplit.engines.inputs import load_calls, tensor_info
from irsplit.ir import Graph, required_inputs
from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.run.session import check_inputs

SampleSource = Inputs | Sequence[Inputs] | Path | str | Sequence[Path | str]
"""Inputs of several calls: arrays by input name, or files and folders as `irsplit compile
--calibration` takes them. One alone needs no list around it."""


def whole_file(file: ModelFile) -> SegmentFile:
    """A model file as one segment, for an engine."""
    entry = file.model.entry
    outputs = tuple(value.name for value in entry.outputs)
    names = tuple(info.name for info in input_infos(entry))
    return SegmentFile(file.path, file.dialect.engine, names, outputs)


def input_infos(graph: Graph) -> list[TensorInfo]:
    """Name, type and shape of what a caller of the graph must feed."""
    return [tensor_info(value) for value in required_inputs(graph)]


def load_samples(
    samples: SampleSource, infos: Sequence[TensorInfo], *, complete: bool = True
) -> list[Inputs]:
    """The inputs of several calls, read from files or checked as they are.

    Args:
        samples: Arrays by input name, or files.
        infos: What the inputs are.
        complete: Whether every call must have all inputs. A state, for one, needs no input.

    Raises:
        EngineError: A file cannot be read, or an input is unknown, missing or does not fit.
    """
    if isinstance(samples, Mapping):
        return [check_inputs(_expected(infos, samples, complete=complete), samples)]
    if isinstance(samples, str | Path):
        return list(load_calls([Path(samples)], infos))
    if _are_paths(samples):
        return list(load_calls([Path(path) for path in samples], infos))
    calls = cast(Sequence[Inputs], samples)
    return [check_inputs(_expected(infos, inputs, complete=complete), inputs) for inputs in calls]


def _expected(infos: Sequence[TensorInfo], inputs: Inputs, *, complete: bool) -> list[TensorInfo]:
    return [info for info in infos if complete or info.name in inputs]


def _are_paths(samples: Sequence[Inputs] | Sequence[Path | str]) -> TypeGuard[Sequence[Path | str]]:
    return bool(samples) and all(isinstance(item, str | Path) for item in samples)
