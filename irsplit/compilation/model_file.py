"""A model that was read from a file, once, for everything that a command does with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, cast

from irsplit.dialects import registry
from irsplit.dialects.base import Dialect
from irsplit.engines.execute import Inputs, SegmentFile
from irsplit.engines.inputs import load_calls, tensor_info
from irsplit.ir import Graph, Model, required_inputs
from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.run.session import check_inputs

SampleSource = Inputs | Sequence[Inputs] | Path | str | Sequence[Path | str]
"""Inputs of several calls: arrays by input name, or files and folders as `irsplit compile
--calibration` takes them. One alone needs no list around it."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model, its file and its dialect.

    Everything that takes the path of a model takes a `ModelFile` too, and does not read it again.
    """

    path: Path
    dialect: Dialect
    model: Model

    @classmethod
    def read(cls, path: Path | str) -> "ModelFile":
        """Read a model file.

        Raises:
            ModelError: The file is missing, damaged, or of no known kind.
            UnsupportedError: It asks for what irsplit does not do.
        """
        path = Path(path)
        dialect = registry.dialect_of(path)
        return cls(path, dialect, dialect.read(path))

    @classmethod
    def of(cls, source: "ModelFile | Path | str") -> "ModelFile":
        """The file itself, or what the path names."""
        return source if isinstance(source, ModelFile) else cls.read(source)

    @property
    def inputs(self) -> list[TensorInfo]:
        """What a caller must feed."""
        return input_infos(self.model.entry)

    def whole(self) -> SegmentFile:
        """The file as one segment, for an engine."""
        outputs = tuple(value.name for value in self.model.entry.outputs)
        names = tuple(info.name for info in self.inputs)
        return SegmentFile(self.path, self.model.dialect, names, outputs)

    def fork(self) -> "ModelFile":
        """The same file for a compilation: passes may replace its graphs, and these stay."""
        model = Model(self.model.dialect, list(self.model.graphs), self.model.native)
        return ModelFile(self.path, self.dialect, model)


def model_and_dialect(source: ModelFile | Model | Path | str) -> tuple[Model, Dialect]:
    """A model in memory or in a file, with its dialect."""
    if isinstance(source, Model):
        return source, registry.dialect(source.dialect)
    file = ModelFile.of(source)
    return file.model, file.dialect


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
        return load_calls([Path(samples)], infos)
    if _are_paths(samples):
        return load_calls([Path(path) for path in samples], infos)
    calls = cast(Sequence[Inputs], samples)
    return [check_inputs(_expected(infos, inputs, complete=complete), inputs) for inputs in calls]


def _expected(infos: Sequence[TensorInfo], inputs: Inputs, *, complete: bool) -> list[TensorInfo]:
    return [info for info in infos if complete or info.name in inputs]


def _are_paths(samples: Sequence[Inputs] | Sequence[Path | str]) -> TypeGuard[Sequence[Path | str]]:
    return bool(samples) and all(isinstance(item, str | Path) for item in samples)
