"""TFLite segments on LiteRT."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from irsplit.errors import EngineError
from irsplit.runtime.engines import Engine, EngineOptions, MappedModel, ModelFile


class LitertEngine:
    """One interpreter, which serves one call at a time.

    A few kernels exist in the default delegate alone, and a few models only open without it: what does not open as
    asked is opened the other way, and `optimized` tells. A file is mapped by LiteRT, a mapped model is copied: it
    takes nothing but `bytes`.
    """

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        self._name = file.name
        self._path = file if isinstance(file, Path) else None
        self._content = bytes(file.data) if isinstance(file, MappedModel) else None
        self._identity = self._identify()
        self._lock = threading.Lock()
        self._threads = options.threads
        self.optimized = options.optimize
        try:
            self._open()
        except EngineError:
            self.optimized = not options.optimize
            self._open()

    def _open(self) -> None:
        plain, delegated = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN
        resolver = delegated if self.optimized else plain
        if self._identify() != self._identity:
            raise EngineError(f"{self._path}: was replaced while it was in use; open the bundle again")
        try:
            interpreter = Interpreter(
                None if self._path is None else str(self._path),
                self._content,
                experimental_op_resolver_type=resolver,
                num_threads=self._threads or None,
            )
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"{self._name}: LiteRT refuses it: {str(error).splitlines()[0]}") from error
        self._interpreter = interpreter
        self._inputs = interpreter.get_input_details()
        self._outputs = [details["index"] for details in interpreter.get_output_details()]
        self._shapes = [tuple(details["shape"]) for details in self._inputs]

    def _identify(self) -> tuple[int, int] | None:
        """What differs when another file takes the place of the one that was opened first."""
        if self._path is None or not self._path.exists():
            return None
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[Any]:
        with self._lock:
            try:
                self._resize(inputs)
                for details, array in zip(self._inputs, inputs, strict=True):
                    self._interpreter.set_tensor(details["index"], array)
                self._interpreter.invoke()
                return [np.asarray(self._interpreter.get_tensor(index)) for index in self._outputs]
            except (RuntimeError, ValueError) as error:
                raise EngineError(f"{self._name}: LiteRT failed: {str(error).splitlines()[0]}") from error

    def _resize(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Fit dynamic inputs; only when a shape changed, because allocating anew clears variable tensors."""
        shapes = [array.shape for array in inputs]
        if shapes == self._shapes:
            return
        for details, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(details["index"], shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def reset(self) -> None:
        with self._lock:
            self._open()  # reset_all_variables() leaves resource variables as they are


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    return LitertEngine(file, options)
