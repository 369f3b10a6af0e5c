"""A model that was read from a file, once, for everything that a command does with it."""

from dataclasses import dataclass
from pathlib import Path

from irsplit.dialects import registry
from irsplit.dialects.base import Dialect
from irsplit.ir import Model


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
