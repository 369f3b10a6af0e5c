"""Executors of segment files: one module an engine, loaded when a segment of its format is opened."""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from irsplit.base.errors import EngineError
from irsplit.base.reading import read_text, reading, record

MODULES = {
    "onnx": "irsplit.runtime.run.engines.ort",
    "tflite": "irsplit.runtime.run.engines.litert",
}
"""Format of a segment file to the module with its `open_engine`."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What an engine hands the nodes to that it can run: by name, with options of its own."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Accelerator":
        """NAME[,KEY=VALUE...], as str() writes it. Raises EngineError."""
        name, *words = text.split(",")
        pairs = [word.partition("=") for word in words]
        if not name or not all(key and equals for key, equals, _ in pairs):
            raise EngineError(f"accelerator '{text}': give NAME, or NAME,KEY=VALUE")
        return cls(name, tuple((key, value) for key, _, value in pairs))

    def __str__(self) -> str:
        return ",".join((self.name, *(f"{key}={value}" for key, value in self.options)))


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`optimize` lets the engine fuse and reorder; without it a node computes the same whatever surrounds it."""

    optimize: bool = True
    threads: int = 0
    """0: the engine chooses."""
    providers: tuple[Accelerator, ...] = ()
    """Execution providers of onnxruntime, the first choice first: "CUDAExecutionProvider", or short "cuda".

    What none of them takes runs on the CPU.
    """
    delegates: tuple[Accelerator, ...] = ()
    """Delegates of LiteRT, each the name of its library: "libedgetpu.so.1"."""

    def accelerators(self, format: str) -> tuple[Accelerator, ...]:
        """Those of the engine of a format."""
        return {"onnx": self.providers, "tflite": self.delegates}.get(format, ())

    @classmethod
    def load(cls, path: Path) -> "EngineOptions":
        """What `save` wrote, or somebody edited. Raises EngineError."""
        remedy = 'give {"threads": 1, "providers": ["NAME,KEY=VALUE"], "delegates": []}'
        with reading(path, "no options of an engine", remedy, EngineError):
            found = record(_Options, json.loads(read_text(path)))
            providers, delegates = (
                tuple(map(Accelerator.parse, words)) for words in (found.providers, found.delegates)
            )
            return cls(found.optimize, found.threads, providers, delegates)

    def save(self, path: Path) -> None:
        """As JSON, accelerators in words."""
        named = {"providers": [*map(str, self.providers)], "delegates": [*map(str, self.delegates)]}
        path.write_text(json.dumps({"threads": self.threads, **named}) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Options:
    """EngineOptions as a file has them."""

    optimize: bool = True
    threads: int = 0
    providers: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()


DEFAULT_OPTIONS = EngineOptions()
ONE_THREAD = EngineOptions(threads=1)


@dataclass(frozen=True, slots=True)
class MappedModel:
    """A model file inside of a larger, mapped one, and the contents of the files beside it, by name."""

    name: str
    data: memoryview
    beside: Mapping[str, memoryview]


ModelFile = Path | MappedModel


class Engine(Protocol):
    """A loaded model file. Inputs and outputs are positional, in the file's order: names need not be unique."""

    optimized: bool
    """Whether it fuses and reorders; an engine that can run a model in one way only does so whatever was asked."""

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        """One inference. Raises EngineError when the engine refuses the inputs or fails.

        After a `large` one, the engine keeps none of the memory that it took, nor state that lies in it.
        """
        ...

    def reset(self) -> None:
        """Forget state kept between calls."""
        ...


def open_engine(file: ModelFile, format: str, options: EngineOptions = DEFAULT_OPTIONS) -> Engine:
    """Load a model file. Raises EngineError when engine or accelerator are not installed, or refuse the file.

    An engine may abort the process on a malformed file: open files that nobody vouches for in a subprocess.
    """
    if format not in MODULES:
        raise EngineError(f"no engine for format '{format}'; formats: {', '.join(MODULES)}")
    try:
        module = importlib.import_module(MODULES[format])
    except ImportError as error:
        raise EngineError(
            f"{file.name} needs an engine that is not installed: {error}; install it"
        ) from error
    return module.open_engine(file, options)
