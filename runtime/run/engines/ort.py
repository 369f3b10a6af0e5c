"""ONNX segments on onnxruntime."""

import contextlib
import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from irsplit.base.errors import EngineError, ModelRefusedError
from irsplit.runtime.run.engines import Accelerator, Engine, EngineOptions, MappedModel, ModelFile

_AS_INTEGERS = {
    "tensor(bfloat16)": (16, np.uint16),
    "tensor(float8e4m3fn)": (17, np.uint8),
    "tensor(float8e4m3fnuz)": (18, np.uint8),
    "tensor(float8e5m2)": (19, np.uint8),
    "tensor(float8e5m2fnuz)": (20, np.uint8),
    "tensor(float8e8m0)": (24, np.uint8),
}
"""Types that numpy has not: ONNX's number of the type, and the integers that stand for its elements."""

_SHRINKING = onnxruntime.RunOptions()
"""Of a run after which the arena gives back what it has grown by."""
_SHRINKING.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

_SUFFIX = "ExecutionProvider"
_Providers = list[tuple[str, dict[str, str]]]
"""Names and options, as onnxruntime takes them."""


class OrtEngine:
    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        self.optimized = options.optimize
        self._name = file.name
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = options.threads
        self._options.log_severity_level = 4  # what it would log arrives as an exception
        if not options.optimize:
            self._options.graph_optimization_level = (
                onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            )
        self._session = self._open(file, _providers(options.providers))
        self._has_run = False
        self._inputs = [(value.name, value.type) for value in self._session.get_inputs()]
        self._gives_arrays = all(
            value.type not in _AS_INTEGERS for value in self._session.get_outputs()
        )

    def _open(self, file: ModelFile, providers: _Providers) -> Any:
        # onnxruntime's errors share no base class below Exception.
        try:
            opened = self._mapped(file) if isinstance(file, MappedModel) else str(file)
            session: Any = onnxruntime.InferenceSession(
                opened, self._options, providers=providers, enable_fallback=0
            )
        except Exception as error:
            raise ModelRefusedError(
                f"{self._name}: onnxruntime refuses it: {_first_line(error)}"
            ) from error
        if missing := [name for name, _ in providers if name not in session.get_providers()]:
            named = ", ".join(missing)
            raise EngineError(
                f"{self._name}: onnxruntime cannot start {named}: its libraries or hardware are not here"
            )
        session._model_bytes = (
            None  # kept to fall back on other providers, and as large as the model
        )
        return session

    def _mapped(self, file: MappedModel) -> bytes:
        views = list(file.beside.values())
        if views:
            names, sizes = list(file.beside), [len(view) for view in views]
            self._options.add_external_initializers_from_files_in_memory(names, views, sizes)
        return bytes(file.data)

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        options = _SHRINKING if large else None
        fed = zip(self._inputs, inputs, strict=True)
        try:
            values = {
                name: _typed(array, type) if type in _AS_INTEGERS else array
                for (name, type), array in fed
            }
            if large and not self._has_run:
                self._run_small(values)
            self._has_run = True
            outputs = (
                self._session.run(None, values, options)
                if self._gives_arrays
                else self._run_typed(values, options)
            )
        except Exception as error:
            raise EngineError(f"{self._name}: onnxruntime failed: {_first_line(error)}") from error
        return [
            np.asarray(output) if isinstance(output, np.generic) else output for output in outputs
        ]

    def _run_small(self, values: Mapping[str, Any]) -> None:
        """The arena keeps what its first run took, for ever: let that be as little as the model's inputs allow."""
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        small: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(value, np.ndarray):
                return
            parts = tuple(slice(None) if isinstance(dim, int) else slice(1) for dim in shapes[name])
            small[name] = np.ascontiguousarray(value[parts])
        with contextlib.suppress(
            Exception
        ):  # sizes of 1 may not fit together; then the first run is the large one
            self._session.run(None, small)

    def _run_arrays(self, values: Mapping[str, Any], options: Any) -> list[Any]:
        return self._session.run(None, values, options)

    def _run_typed(self, values: Mapping[str, Any], options: Any) -> list[Any]:
        """As `run` of a session, where arrays come out that numpy has no type for."""
        made = onnxruntime.OrtValue.ortvalue_from_numpy
        typed = {
            name: made(value) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }
        return [_array(value) for value in self._session.run_with_ort_values(None, typed, options)]

    def reset(self) -> None:
        """onnxruntime keeps no state between calls."""


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    return OrtEngine(file, options)


def _providers(wanted: Sequence[Accelerator]) -> _Providers:
    """The wanted ones, and the CPU behind them. Raises EngineError for one that this onnxruntime was built without."""
    known = {
        name.removesuffix(_SUFFIX).lower(): name for name in onnxruntime.get_available_providers()
    }
    found: _Providers = []
    for accelerator in wanted:
        name = known.get(accelerator.name.removesuffix(_SUFFIX).lower())
        if name is None:
            raise EngineError(
                f"this onnxruntime has no provider '{accelerator.name}', only {', '.join(known.values())}; "
                "install the build that has it, such as onnxruntime-gpu, in its place"
            )
        found.append((name, dict(accelerator.options)))
    return [*found, ("CPUExecutionProvider", {})]


def _typed(array: NDArray[Any], type: str) -> Any:
    code, storage = _AS_INTEGERS[type]
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        np.ascontiguousarray(array.view(storage)), code
    )


def _array(value: Any) -> Any:
    if value.data_type() not in _AS_INTEGERS:
        return value.numpy()
    _, storage = _AS_INTEGERS[value.data_type()]
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, storage).reshape(value.shape())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
