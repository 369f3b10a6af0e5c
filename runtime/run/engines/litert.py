"""TFLite segments on LiteRT."""

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from ai_edge_litert.interpreter import Delegate, Interpreter, OpResolverType, load_delegate
from numpy.typing import NDArray

from irsplit.base.errors import EngineError, ModelRefusedError
from irsplit.runtime.run.engines import Accelerator, Engine, EngineOptions, MappedModel, ModelFile


class LitertEngine:
    """One interpreter, which serves one call at a time.

    A few kernels exist in the default delegate alone, and a few models only open without it: what does not open as
    asked is opened the other way, and `optimized` tells. A model may open neither way because it cannot run with the
    sizes that its file has for dimensions that vary: then it is prepared by the first call, with the call's sizes.
    A file is mapped by LiteRT, a mapped model is copied: it takes nothing but `bytes`.
    """

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        self._name = file.name
        self._path = file if isinstance(file, Path) else None
        self._content = bytes(file.data) if isinstance(file, MappedModel) else None
        self._identity = self._identify()
        self._lock = threading.Lock()
        self._threads = options.threads
        self._delegates = [_delegate(accelerator) for accelerator in options.delegates]
        self.optimized = options.optimize
        self._shapes: list[tuple[int, ...]] | None = None
        """Of the inputs that the interpreter is prepared for; None: not prepared."""
        try:
            self._prepare_either_way()
        except EngineError:
            self.optimized = options.optimize
            self._interpreter = self._opened()
            if not any(-1 in details["shape_signature"] for details in self._details()):
                raise
            self._learn()

    def _prepare_either_way(self) -> None:
        try:
            self._prepare()
        except EngineError:
            self.optimized = not self.optimized
            self._prepare()

    def _prepare(self) -> None:
        self._interpreter = self._opened()
        try:
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise self._refusal(error) from error
        self._learn()
        self._shapes = [tuple(details["shape"]) for details in self._inputs]

    def _details(self) -> list[dict[str, Any]]:
        """What the interpreter says of its inputs."""
        return self._interpreter.get_input_details()

    def _opened(self) -> Interpreter:
        plain, delegated = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN
        resolver = delegated if self.optimized else plain
        if self._identify() != self._identity:
            raise EngineError(
                f"{self._path}: was replaced while it was in use; open the bundle again"
            )
        try:
            return Interpreter(
                None if self._path is None else str(self._path),
                self._content,
                experimental_op_resolver_type=resolver,
                num_threads=self._threads or None,
                experimental_delegates=self._delegates,
            )
        except (RuntimeError, ValueError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> ModelRefusedError:
        return ModelRefusedError(f"{self._name}: LiteRT refuses it: {str(error).splitlines()[0]}")

    def _learn(self) -> None:
        try:
            self._inputs = self._details()
            self._outputs = [details["index"] for details in self._interpreter.get_output_details()]
        except ValueError as error:  # a name that is no UTF-8
            raise self._refusal(error) from error

    def _identify(self) -> tuple[int, int] | None:
        """What differs when another file takes the place of the one that was opened first."""
        if self._path is None or not self._path.exists():
            return None
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        with self._lock:
            try:
                self._resize(inputs)
                for details, array in zip(self._inputs, inputs, strict=True):
                    self._interpreter.set_tensor(details["index"], array)
                self._interpreter.invoke()
                outputs = [
                    np.asarray(self._interpreter.get_tensor(index)) for index in self._outputs
                ]
                if large:
                    self._interpreter, self._shapes = self._opened(), None  # its arena only grows
                return outputs
            except (RuntimeError, ValueError) as error:
                raise EngineError(
                    f"{self._name}: LiteRT failed: {str(error).splitlines()[0]}"
                ) from error

    def _resize(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Fit dynamic inputs; only when a shape changed, because allocating anew clears variable tensors."""
        shapes = [array.shape for array in inputs]
        if shapes == self._shapes:
            return
        self._shapes = None
        for details, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(details["index"], shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def reset(self) -> None:
        with self._lock:
            self._interpreter, self._shapes = (
                self._opened(),
                None,
            )  # reset_all_variables() leaves resource variables


def prepared(path: Path, shapes: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Shapes of the main subgraph's tensors by number, when its inputs have these; empty when LiteRT refuses them."""
    try:
        interpreter = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            num_threads=1,
        )
        for details, shape in zip(interpreter.get_input_details(), shapes, strict=True):
            if tuple(cast("Sequence[int]", details["shape"])) != shape:
                interpreter.resize_tensor_input(details["index"], shape)
        interpreter.allocate_tensors()
        tensors = cast("list[dict[str, Any]]", interpreter.get_tensor_details())
    except (RuntimeError, ValueError):
        return {}
    shapes_of: dict[int, tuple[int, ...]] = {}
    for tensor in tensors:
        shapes_of[int(tensor["index"])] = tuple(int(size) for size in tensor["shape"])
    return shapes_of


def _delegate(accelerator: Accelerator) -> Delegate:
    try:
        # Looked up first: LiteRT's object for a library that has it not complains, on standard error, when it goes.
        _ = ctypes.PyDLL(accelerator.name).tflite_plugin_create_delegate
        return load_delegate(accelerator.name, dict(accelerator.options))
    except (AttributeError, OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise EngineError(
            f"LiteRT cannot load the delegate '{accelerator.name}': {why}; give its library"
        ) from error


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    return LitertEngine(file, options)
