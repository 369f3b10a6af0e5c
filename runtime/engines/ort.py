"""ONNX segments on onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from irsplit.errors import EngineError
from irsplit.runtime.engines import Engine, EngineOptions


class OrtEngine:
    def __init__(self, path: Path, options: EngineOptions) -> None:
        self.optimized = options.optimize
        self._path = path
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = options.threads
        self._options.log_severity_level = 4  # what it would log arrives as an exception
        if not options.optimize:
            self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = self._open()
        self._inputs = [value.name for value in self._session.get_inputs()]

    def _open(self) -> Any:
        # onnxruntime's errors share no base class below Exception.
        try:
            return onnxruntime.InferenceSession(str(self._path), self._options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(f"{self._path.name}: onnxruntime refuses it: {_first_line(error)}") from error

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[Any]:
        try:
            outputs = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        except Exception as error:
            raise EngineError(f"{self._path.name}: onnxruntime failed: {_first_line(error)}") from error
        return [np.asarray(output) if isinstance(output, np.generic) else output for output in outputs]

    def reset(self) -> None:
        """onnxruntime keeps no state between calls."""


def open_engine(path: Path, options: EngineOptions) -> Engine:
    return OrtEngine(path, options)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
