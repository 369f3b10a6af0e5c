"""Runs TFLite segments on LiteRT."""

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
    """An interpreter of LiteRT, which serves one call at a time.

    A few kernels exist only in the default delegate, and a few models open only without it. A model
    that does not open as the options ask is opened the other way, and `optimized` says which it
    was. A model may open neither way because it cannot run with the sizes that its file has for
    open dimensions. Such a model is prepared by the first call, with that call's sizes.

    LiteRT maps a file. A mapped model is copied, because LiteRT accepts only `bytes`.
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

        # Shapes of the inputs that the interpreter is prepared for; None before it is prepared.
        self._shapes: list[tuple[int, ...]] | None = None
        try:
            self._prepare_either_way()
        except EngineError:
            self.optimized = options.optimize
            self._interpreter = self._new_interpreter()
            if not self._has_open_dimension():
                raise
            self._read_signature()

    def _prepare_either_way(self) -> None:
        """Prepare the interpreter as asked; if that fails, with the default delegate toggled."""
        try:
            self._prepare()
        except EngineError:
            self.optimized = not self.optimized
            self._prepare()

    def _prepare(self) -> None:
        self._interpreter = self._new_interpreter()
        try:
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise self._refusal(error) from error

        self._read_signature()
        self._shapes = [tuple(details["shape"]) for details in self._inputs]

    def _has_open_dimension(self) -> bool:
        return any(-1 in details["shape_signature"] for details in self._input_details())

    def _input_details(self) -> list[dict[str, Any]]:
        return self._interpreter.get_input_details()

    def _new_interpreter(self) -> Interpreter:
        if self._identify() != self._identity:
            raise EngineError(
                f"{self._path}: was replaced while it was in use; open the bundle again"
            )

        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        resolver = OpResolverType.BUILTIN if self.optimized else plain
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

    def _read_signature(self) -> None:
        """Remember the model's inputs and the indices of its outputs."""
        try:
            self._inputs = self._input_details()
            self._outputs = [details["index"] for details in self._interpreter.get_output_details()]
        except ValueError as error:
            # A name is no UTF-8.
            raise self._refusal(error) from error

    def _identify(self) -> tuple[int, int] | None:
        """Device and inode of the file, which change when another file takes its place."""
        if self._path is None or not self._path.exists():
            return None
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        """Run one inference, as `Engine.run`."""
        with self._lock:
            try:
                self._resize(inputs)
                for details, array in zip(self._inputs, inputs, strict=True):
                    self._interpreter.set_tensor(details["index"], array)
                self._interpreter.invoke()

                outputs = [
                    np.asarray(self._interpreter.get_tensor(index)) for index in self._outputs
                ]

                # The arena of an interpreter only grows.
                if large:
                    self._replace_interpreter()
                return outputs
            except (RuntimeError, ValueError) as error:
                raise EngineError(
                    f"{self._name}: LiteRT failed: {str(error).splitlines()[0]}"
                ) from error

    def _resize(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Fit the tensors to the shapes of the inputs.

        Only where a shape changed, because allocating again clears variable tensors.
        """
        shapes = [array.shape for array in inputs]
        if shapes == self._shapes:
            return

        self._shapes = None
        for details, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(details["index"], shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def reset(self) -> None:
        """Forget the state of the model."""
        # reset_all_variables() would leave resource variables as they are.
        with self._lock:
            self._replace_interpreter()

    def _replace_interpreter(self) -> None:
        self._interpreter, self._shapes = self._new_interpreter(), None


def prepared(path: Path, shapes: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Shapes of the tensors of a model's main subgraph. Nothing is run.

    Args:
        path: The model file.
        shapes: Shapes of the model's inputs.

    Returns:
        Shapes by the tensor's number; empty when LiteRT refuses the inputs.
    """
    try:
        interpreter = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            num_threads=1,
        )

        # Only those that differ from the file's.
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
        # Looked up first: LiteRT's own object for a library without this function complains on
        # standard error when it is destroyed.
        _ = ctypes.PyDLL(accelerator.name).tflite_plugin_create_delegate
        return load_delegate(accelerator.name, dict(accelerator.options))
    except (AttributeError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EngineError(
            f"LiteRT cannot load the delegate '{accelerator.name}': {reason}; give its library"
        ) from error


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    """TFLite files on LiteRT."""
    return LitertEngine(file, options)
