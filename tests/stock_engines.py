"""Stock onnxruntime and LiteRT, one thread, for tests: judges that use nothing of irsplit.

`open_model` runs in this process. LiteRT may abort the process on a malformed file: `run_isolated`
is for files that are not trusted, in a process of their own (this file, run as a script).
"""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

Array = NDArray[Any]

# Kernels that LiteRT's wheel has in its default delegate only: needed to open such a model.
DELEGATE_ONLY = ("Convolution2DTransposeBias",)


class EngineFailed(Exception):
    """The isolated engine refused the model, died or hung; the text says which."""


class Engine(Protocol):
    """A model in memory, with whatever state it keeps between calls."""

    inputs: list[str]
    outputs: list[str]

    def run(self, values: Sequence[Array]) -> list[Any]:
        """Outputs in model order, for inputs in model order."""
        ...


class OnnxEngine:
    def __init__(self, path: Path, optimized: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
        )
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, values: Sequence[Array]) -> list[Any]:
        return [
            _array(output)
            for output in self._session.run(None, dict(zip(self.inputs, values, strict=True)))
        ]


class TfliteEngine:
    def __init__(self, path: Path, optimized: bool) -> None:
        resolver = (
            OpResolverType.BUILTIN
            if optimized
            else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        self._interpreter = Interpreter(
            str(path), experimental_op_resolver_type=resolver, num_threads=1
        )
        self._interpreter.allocate_tensors()
        self._input_indices = [
            details["index"] for details in self._interpreter.get_input_details()
        ]
        self._output_indices = [
            details["index"] for details in self._interpreter.get_output_details()
        ]
        self.inputs = [details["name"] for details in self._interpreter.get_input_details()]
        self.outputs = [details["name"] for details in self._interpreter.get_output_details()]

    def run(self, values: Sequence[Array]) -> list[Any]:
        self._fit(values)
        for index, value in zip(self._input_indices, values, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return [_array(self._interpreter.get_tensor(index)) for index in self._output_indices]

    def _fit(self, values: Sequence[Array]) -> None:
        """Resize inputs whose shape differs: allocating anew clears variable tensors."""
        details = zip(self._interpreter.get_input_details(), values, strict=True)
        changed = [
            (source["index"], value.shape)
            for source, value in details
            if tuple(source["shape"]) != value.shape
        ]
        for index, shape in changed:
            self._interpreter.resize_tensor_input(index, shape)
        if changed:
            self._interpreter.allocate_tensors()


ENGINES = {".onnx": OnnxEngine, ".tflite": TfliteEngine}


def open_model(path: Path, *, optimized: bool = False) -> Engine:
    """A stock engine; not `optimized` means no graph optimisation and no delegate, so that a node
    computes the same whatever surrounds it. Models with `DELEGATE_ONLY` kernels open only when
    optimized."""
    return ENGINES[path.suffix](path, optimized)


def run_model(path: Path, values: Sequence[Array], *, optimized: bool = False) -> list[Any]:
    """Outputs of one call on a fresh engine."""
    return open_model(path, optimized=optimized).run(values)


def run_isolated(
    path: Path, values: Sequence[Array], *, optimized: bool = False, timeout_s: float = 300
) -> list[Any]:
    """`run_model` in a process of its own. EngineFailed if it refuses, aborts or is too late."""
    command = [sys.executable, __file__, str(path), "optimized" if optimized else "plain"]
    try:
        done = subprocess.run(
            command, input=pickle.dumps(values), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineFailed(f"{path.name}: no result within {timeout_s} s") from error
    if done.returncode < 0:
        raise EngineFailed(f"{path.name}: the engine died of signal {-done.returncode}")
    if done.returncode > 0:
        raise EngineFailed(
            f"{path.name}: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}"
        )
    return pickle.loads(done.stdout)


def same_bits(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Whether outputs are equal bit for bit: NaN equals the same NaN, 0.0 differs from -0.0."""
    return len(left) == len(right) and all(map(_same, left, right))


def _array(output: Any) -> Any:
    """Engines give a tensor without dimensions as a scalar; sequences and None stay."""
    return np.asarray(output) if isinstance(output, np.generic) else output


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return same_bits(left, right)
    if not (isinstance(left, np.ndarray) and isinstance(right, np.ndarray)):
        return left is None and right is None
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return (
        left.tolist() == right.tolist()
        if left.dtype.hasobject
        else left.tobytes() == right.tobytes()
    )


def main() -> None:
    path, mode = sys.argv[1:]
    outputs = run_model(Path(path), pickle.load(sys.stdin.buffer), optimized=mode == "optimized")
    pickle.dump(outputs, sys.stdout.buffer)


if __name__ == "__main__":
    main()
