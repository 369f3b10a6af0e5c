"""Runs ONNX segments on onnxruntime."""

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
"""Types that numpy lacks: ONNX's number of the type, and the integers that store its elements."""

_SHRINKING = onnxruntime.RunOptions()
"""Options of a run after which the arena gives back what it has grown by."""
_SHRINKING.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

_SUFFIX = "ExecutionProvider"
_Providers = list[tuple[str, dict[str, str]]]
"""Names and options, as onnxruntime takes them."""


class OrtEngine:
    """A session of onnxruntime."""

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        self.optimized = options.optimize
        self._name = file.name
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = options.threads
        # What onnxruntime would log arrives as an exception.
        self._options.log_severity_level = 4
        if not options.optimize:
            levels = onnxruntime.GraphOptimizationLevel
            self._options.graph_optimization_level = levels.ORT_DISABLE_ALL

        self._session = self._open(file, _providers(options.providers))
        self._has_run = False
        self._inputs = [(value.name, value.type) for value in self._session.get_inputs()]
        self._gives_arrays = all(
            value.type not in _AS_INTEGERS for value in self._session.get_outputs()
        )

    def _open(self, file: ModelFile, providers: _Providers) -> Any:
        # onnxruntime's errors share no base class below Exception.
        try:
            model = self._mapped(file) if isinstance(file, MappedModel) else str(file)
            session: Any = onnxruntime.InferenceSession(
                model, self._options, providers=providers, enable_fallback=0
            )
        except Exception as error:
            raise ModelRefusedError(
                f"{self._name}: onnxruntime refuses it: {_first_line(error)}"
            ) from error

        # onnxruntime leaves out a provider that does not start, without an error.
        started = session.get_providers()
        missing = [name for name, _ in providers if name not in started]
        if missing:
            raise EngineError(
                f"{self._name}: onnxruntime cannot start {', '.join(missing)}: "
                "its libraries or hardware are not here"
            )

        # Kept to fall back on other providers, and as large as the model.
        session._model_bytes = None
        return session

    def _mapped(self, file: MappedModel) -> bytes:
        """The bytes of a mapped model. Its external weights are handed over as they lie."""
        views = list(file.beside.values())
        if views:
            names, sizes = list(file.beside), [len(view) for view in views]
            self._options.add_external_initializers_from_files_in_memory(names, views, sizes)
        return bytes(file.data)

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        """Run one inference, as `Engine.run`."""
        try:
            values = self._named(inputs)
            if large and not self._has_run:
                self._run_small(values)
            self._has_run = True

            run = self._session.run if self._gives_arrays else self._run_typed
            outputs = run(None, values, _SHRINKING if large else None)
        except Exception as error:
            raise EngineError(f"{self._name}: onnxruntime failed: {_first_line(error)}") from error

        # A scalar may come as a numpy scalar, which is no array.
        return [
            np.asarray(output) if isinstance(output, np.generic) else output for output in outputs
        ]

    def _named(self, inputs: Sequence[NDArray[Any]]) -> dict[str, Any]:
        """The inputs by name, as the session takes them."""
        values: dict[str, Any] = {}
        for (name, type), array in zip(self._inputs, inputs, strict=True):
            values[name] = _typed(array, type) if type in _AS_INTEGERS else array
        return values

    def _run_small(self, values: Mapping[str, Any]) -> None:
        """Run once on inputs whose open dimensions are 1, before the first large run.

        The arena keeps for ever what its first run took, so that run should be a small one.
        """
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        small: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(value, np.ndarray):
                return
            slices = tuple(
                slice(None) if isinstance(dim, int) else slice(1) for dim in shapes[name]
            )
            small[name] = np.ascontiguousarray(value[slices])

        # Sizes of 1 may not fit together. Then the first run is the large one.
        with contextlib.suppress(Exception):
            self._session.run(None, small)

    def _run_typed(self, names: None, values: Mapping[str, Any], options: Any) -> list[Any]:
        """As `run` of a session, for outputs of types that numpy lacks."""
        typed: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value = onnxruntime.OrtValue.ortvalue_from_numpy(value)
            typed[name] = value

        outputs = self._session.run_with_ort_values(names, typed, options)
        return [_array(output) for output in outputs]

    def reset(self) -> None:
        """Do nothing: onnxruntime keeps no state between calls."""


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    """ONNX files on onnxruntime."""
    return OrtEngine(file, options)


def _providers(accelerators: Sequence[Accelerator]) -> _Providers:
    """The providers of these names, and the CPU behind them.

    Raises EngineError for a provider that this onnxruntime was built without.
    """
    available = {
        name.removesuffix(_SUFFIX).lower(): name for name in onnxruntime.get_available_providers()
    }
    providers: _Providers = []
    for accelerator in accelerators:
        name = available.get(accelerator.name.removesuffix(_SUFFIX).lower())
        if name is None:
            raise EngineError(
                f"this onnxruntime has no provider '{accelerator.name}', only "
                f"{', '.join(available.values())}; install the build that has it, such as "
                "onnxruntime-gpu, in its place"
            )
        providers.append((name, dict(accelerator.options)))
    return [*providers, ("CPUExecutionProvider", {})]


def _typed(array: NDArray[Any], type: str) -> Any:
    """An array of integers as a value of the ONNX type that they store."""
    code, storage = _AS_INTEGERS[type]
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        np.ascontiguousarray(array.view(storage)), code
    )


def _array(value: Any) -> Any:
    """A value as an array, of the storing integers where numpy lacks the type."""
    if value.data_type() not in _AS_INTEGERS:
        return value.numpy()

    # numpy has no type for these elements: copy their bytes as integers.
    _, storage = _AS_INTEGERS[value.data_type()]
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, storage).reshape(value.shape())


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
