"""Inference engines that run segment files, found by the file's format.

An engine is an entry point of the group `irsplit.engines`. Its name is the format of the files
that it opens, and its object is a function `open_engine(file, options) -> Engine`. The module with
that function is imported when a file of its format is opened.
"""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from irsplit.base.entry_points import entry_points
from irsplit.base.errors import EngineError
from irsplit.base.reading import read_text, reading, record
from irsplit.runtime.bundle.store import MappedModel, ModelFile

__all__ = [
    "DEFAULT_OPTIONS",
    "ENTRY_POINTS",
    "ONE_THREAD",
    "Accelerator",
    "Engine",
    "EngineOptions",
    "MappedModel",
    "ModelFile",
    "engine_module",
    "formats",
    "open_engine",
]

ENTRY_POINTS = "irsplit.engines"
"""The group of entry points that engines are registered in."""

_OURS = {
    "onnx": ("irsplit.runtime.run.engines.ort", "open_engine"),
    "tflite": ("irsplit.runtime.run.engines.litert", "open_engine"),
}
"""Module and name of our own entry points, by format.

They are in the metadata too, but searching the metadata of all installed packages takes a tenth of
a second, which a device should not pay at every start.
"""
_PACKAGES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
"""The packages that our own engines need, by format."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Something that an engine hands the nodes to that it can run, such as a GPU.

    Example:
        str(Accelerator.parse("cuda,device_id=1"))    # "cuda,device_id=1"

    Attributes:
        name: Its name, as the engine knows it.
        options: Keys and values that the engine passes on to it.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Accelerator":
        """Read NAME[,KEY=VALUE...], as `str` writes it.

        Raises:
            EngineError: The text has another form.
        """
        name, *words = text.split(",")
        pairs = [word.partition("=") for word in words]
        if not name or not all(key and equals for key, equals, _ in pairs):
            raise EngineError(f"accelerator '{text}': give NAME, or NAME,KEY=VALUE")
        return cls(name, tuple((key, value) for key, _, value in pairs))

    def __str__(self) -> str:
        return ",".join((self.name, *(f"{key}={value}" for key, value in self.options)))


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines run a model.

    Attributes:
        optimize: Let the engine fuse and reorder nodes. Without it a node computes the same,
            whatever surrounds it.
        threads: Threads of one call; 0 leaves the number to the engine.
        providers: Execution providers of onnxruntime, the first choice first:
            "CUDAExecutionProvider", or "cuda" for short. What none of them takes runs on the CPU.
        delegates: Delegates of LiteRT, each by the name of its library: "libedgetpu.so.1".
    """

    optimize: bool = True
    threads: int = 0
    providers: tuple[Accelerator, ...] = ()
    delegates: tuple[Accelerator, ...] = ()

    def accelerators(self, format: str) -> tuple[Accelerator, ...]:
        """The accelerators that are meant for the engine of a format."""
        return {"onnx": self.providers, "tflite": self.delegates}.get(format, ())

    @classmethod
    def load(cls, path: Path) -> "EngineOptions":
        """Read a file that `save` or a person wrote.

        Raises:
            EngineError: The file holds no options.
        """
        remedy = 'give {"threads": 1, "providers": ["NAME,KEY=VALUE"], "delegates": []}'
        with reading(path, "no options of an engine", remedy, EngineError):
            options = record(_Options, json.loads(read_text(path)))
            providers = tuple(Accelerator.parse(text) for text in options.providers)
            delegates = tuple(Accelerator.parse(text) for text in options.delegates)
            return cls(options.optimize, options.threads, providers, delegates)

    def save(self, path: Path) -> None:
        """Write threads and accelerators as JSON, each accelerator as text."""
        data = {
            "threads": self.threads,
            "providers": [str(accelerator) for accelerator in self.providers],
            "delegates": [str(accelerator) for accelerator in self.delegates],
        }
        path.write_text(json.dumps(data) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Options:
    """EngineOptions as a file holds them."""

    optimize: bool = True
    threads: int = 0
    providers: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()


DEFAULT_OPTIONS = EngineOptions()
ONE_THREAD = EngineOptions(threads=1)


class Engine(Protocol):
    """A model file that is loaded and ready to run.

    Inputs and outputs are positional, in the file's order, because names need not be unique.
    """

    optimized: bool
    """Whether it fuses and reorders nodes. An engine that can run a model in one way only does so,
    whatever the options ask for."""

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        """Run one inference.

        Args:
            inputs: One array for each input of the file.
            large: Give the memory that this run takes back afterwards, and with it any state that
                lies in that memory.

        Returns:
            One value for each output of the file.

        Raises:
            EngineError: The engine refuses the inputs, or fails.
        """
        ...

    def reset(self) -> None:
        """Forget the state that is kept between calls."""
        ...


def formats() -> list[str]:
    """The formats that an engine is installed for."""
    return sorted({*_OURS, *(point.name for point in entry_points(ENTRY_POINTS))})


def engine_module(format: str) -> str:
    """The module that opens files of a format, for whoever imports it in advance.

    Raises:
        EngineError: There is no engine for the format, or there are two.
    """
    module, _ = _location(format)
    return module


def open_engine(file: ModelFile, format: str, options: EngineOptions = DEFAULT_OPTIONS) -> Engine:
    """Load a model file into the engine of its format.

    An engine may abort the process on a malformed file. Open files from strangers in a process of
    their own.

    Example:
        engine = open_engine(Path("server/model.onnx"), "onnx")
        outputs = engine.run([features])

    Args:
        file: The model file.
        format: Its format, which is the name of the engine's entry point.
        options: How the engine runs the model.

    Raises:
        EngineError: The engine or an accelerator is not installed, or refuses the file.
    """
    module, name = _location(format)
    try:
        opener = getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = _PACKAGES.get(format, f"what {module} needs")
        raise EngineError(
            f"{file.name} needs an engine that is not installed: {error}; install {package}"
        ) from error
    return opener(file, options)


def _location(format: str) -> tuple[str, str]:
    """The module of a format's engine, and the name of the function in it."""
    if format in _OURS:
        return _OURS[format]

    points = {point.value: point for point in entry_points(ENTRY_POINTS) if point.name == format}
    if not points:
        raise EngineError(
            f"no engine for format '{format}'; install a package that has one. Formats with an "
            f"engine: {', '.join(formats())}"
        )
    if len(points) > 1:
        raise EngineError(
            f"two engines are for format '{format}': {' and '.join(sorted(points))}; uninstall one"
        )
    (point,) = points.values()
    return point.module, point.attr
