"""ONNX segments on onnxruntime."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from irsplit.errors import EngineError, ModelRefusedError
from irsplit.runtime.engines import Engine, EngineOptions, MappedModel, ModelFile


class OrtEngine:
    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        self.optimized = options.optimize
        self._name = file.name
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = options.threads
        self._options.log_severity_level = 4  # what it would log arrives as an exception
        if not options.optimize:
            self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = self._open(file)
        self._inputs = [value.name for value in self._session.get_inputs()]

    def _open(self, file: ModelFile) -> Any:
        # onnxruntime's errors share no base class below Exception.
        try:
            if isinstance(file, MappedModel):
                return self._open_mapped(file)
            return onnxruntime.InferenceSession(str(file), self._options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelRefusedError(f"{self._name}: onnxruntime refuses it: {_first_line(error)}") from error

    def _open_mapped(self, file: MappedModel) -> Any:
        views = list(file.beside.values())
        if views:
            names, sizes = list(file.beside), [len(view) for view in views]
            self._options.add_external_initializers_from_files_in_memory(names, views, sizes)
        session: Any = onnxruntime.InferenceSession(bytes(file.data), self._options, providers=["CPUExecutionProvider"])
        session._model_bytes = None  # kept to fall back on other providers, and as large as the model
        return session

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[Any]:
        try:
            outputs = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        except Exception as error:
            raise EngineError(f"{self._name}: onnxruntime failed: {_first_line(error)}") from error
        return [np.asarray(output) if isinstance(output, np.generic) else output for output in outputs]

    def reset(self) -> None:
        """onnxruntime keeps no state between calls."""


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    return OrtEngine(file, options)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
