"""The .dense format, networks of dense layers as JSON, and an engine that runs them on numpy.

    {
      "inputs": {"x": 4},
      "layers": [
        {"name": "h", "reads": "x", "activation": "relu", "weight": [[...], ...], "bias": [...]}
      ],
      "outputs": ["h"]
    }

An input has a number of features. A layer computes activation(reads * weight + bias), with a weight
of one row per feature that it reads. All values are f32[1, features].

The engine runs on devices and servers, so this file uses nothing of irsplit but its runtime.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import EngineError, ModelRefusedError
from irsplit.runtime.run.engines import EngineOptions, ModelFile

Array = NDArray[np.float32]

ACTIVATIONS = ("linear", "relu")


@dataclass(frozen=True)
class Layer:
    """One dense layer. Its name is that of the value that it computes."""

    name: str
    reads: str
    activation: str
    weight: Array
    bias: Array


@dataclass(frozen=True)
class Network:
    """The contents of a .dense file."""

    inputs: dict[str, int]
    layers: list[Layer]
    outputs: list[str]


def parse(data: bytes) -> Network:
    """Read a .dense file. The file may come from a stranger, so everything is checked.

    Raises:
        ValueError: It is damaged. The text says where.
    """
    try:
        document: Any = json.loads(data)
        layers = [_layer(item) for item in document["layers"]]
        inputs = {str(name): int(size) for name, size in document["inputs"].items()}
        network = Network(inputs, layers, [str(name) for name in document["outputs"]])
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"it lacks {error}, or holds something else there") from error
    _check(network)
    return network


def _layer(item: Any) -> Layer:
    weight, bias = np.array(item["weight"], np.float32), np.array(item["bias"], np.float32)
    return Layer(str(item["name"]), str(item["reads"]), str(item["activation"]), weight, bias)


def _check(network: Network) -> None:
    """Raise ValueError unless names, sizes and activations fit each other."""
    sizes = dict(network.inputs)
    for layer in network.layers:
        if layer.name in sizes:
            raise ValueError(f"two values are named '{layer.name}'")
        if layer.reads not in sizes:
            raise ValueError(f"layer '{layer.name}' reads '{layer.reads}', which is not computed")
        if layer.activation not in ACTIVATIONS:
            raise ValueError(f"layer '{layer.name}' has the unknown activation {layer.activation}")

        rows, columns = sizes[layer.reads], layer.bias.size
        if layer.weight.shape != (rows, columns) or layer.bias.ndim != 1:
            raise ValueError(f"layer '{layer.name}' needs a weight of {rows} x {columns} numbers")
        sizes[layer.name] = columns

    for name in network.outputs:
        if name not in sizes:
            raise ValueError(f"output '{name}' is not computed")


def text(network: Network) -> str:
    """Write a .dense file. `parse` gives an equal network."""
    layers: list[dict[str, Any]] = []
    for layer in network.layers:
        numbers = {"weight": layer.weight.tolist(), "bias": layer.bias.tolist()}
        words = {"name": layer.name, "reads": layer.reads, "activation": layer.activation}
        layers.append({**words, **numbers})
    document = {"inputs": network.inputs, "layers": layers, "outputs": network.outputs}
    return json.dumps(document) + "\n"


class DenseEngine:
    """Runs a network layer by layer. It has no state and only one way to run."""

    optimized = False

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        """Run one inference. Inputs and outputs are in the order of the file."""
        values: dict[str, NDArray[Any]] = {}
        for (name, size), array in zip(self._network.inputs.items(), inputs, strict=True):
            if array.shape != (1, size):
                raise EngineError(f"input '{name}' has shape {array.shape}, not (1, {size})")
            values[name] = array

        for layer in self._network.layers:
            result = values[layer.reads] @ layer.weight + layer.bias
            values[layer.name] = np.maximum(result, 0) if layer.activation == "relu" else result
        return [values[name] for name in self._network.outputs]

    def reset(self) -> None:
        """Forget the state that is kept between calls: there is none."""


def open_engine(file: ModelFile, options: EngineOptions) -> DenseEngine:
    """Open a .dense file: this is what the entry point `dense` of `irsplit.engines` names.

    Args:
        file: A file, or a file inside of a packed bundle that is mapped already.
        options: Threads and accelerators, which this engine has no use for.

    Raises:
        ModelRefusedError: The file is damaged.
    """
    data = file.read_bytes() if isinstance(file, Path) else bytes(file.data)
    try:
        return DenseEngine(parse(data))
    except ValueError as error:
        raise ModelRefusedError(f"{file.name}: the dense engine refuses it: {error}") from error
