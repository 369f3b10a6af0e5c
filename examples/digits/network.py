"""The digit classifier in numpy: what it is (`LAYERS`), what it computes, and its gradients.

Arrays are NHWC and kernels OHWI, as in TFLite. Padding is "same" as TFLite defines it: with stride
2 on an even size the one missing row and column are added at the end. Parameters live in a flat
dictionary, `<layer>/weights` and `<layer>/bias`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float32]
Parameters = dict[str, Array]
Gradients = dict[str, Array]
Backward = Callable[[Array], Array]

IMAGE_SIZE = 16
FINAL_SIZE = 4
CLASSES = 10
KERNEL = 3


@dataclass(frozen=True)
class Conv:
    """3x3 convolution with bias; `relu` clips its result at zero."""

    name: str
    inputs: int
    outputs: int
    stride: int = 1
    relu: bool = True

    @property
    def result(self) -> str:
        """Name of the tensor it ends in."""
        return f"{self.name}/{'relu' if self.relu else 'conv'}"


@dataclass(frozen=True)
class Residual:
    """relu(x + b(relu(a(x)))): x forks to the first convolution and to the addition."""

    name: str
    channels: int

    @property
    def convolutions(self) -> tuple[Conv, Conv]:
        return (
            Conv(f"{self.name}/a", self.channels, self.channels),
            Conv(f"{self.name}/b", self.channels, self.channels, relu=False),
        )

    @property
    def result(self) -> str:
        return f"{self.name}/relu"


@dataclass(frozen=True)
class Dense:
    """Flatten, then a fully connected layer with bias."""

    name: str
    inputs: int
    outputs: int


Layer = Conv | Residual | Dense

# One float32 image is 1024 bytes. `bottleneck` is narrow on purpose, as in networks designed to be
# split: its 4x4x4 result (256 bytes) is the only inner tensor smaller than the image; every other
# one is 2 to 16 times as large.
LAYERS: tuple[Layer, ...] = (
    Conv("stem", 1, 16),
    Conv("down", 16, 24, stride=2),
    Residual("block1", 24),
    Conv("bottleneck", 24, 4, stride=2),
    Conv("expand", 4, 32),
    Residual("block2", 32),
    Dense("head", FINAL_SIZE * FINAL_SIZE * 32, CLASSES),
)


def weighted_layers() -> list[Conv | Dense]:
    """All layers that own parameters, in execution order."""
    layers: list[Conv | Dense] = []
    for layer in LAYERS:
        layers.extend(layer.convolutions if isinstance(layer, Residual) else (layer,))
    return layers


def weights_shape(layer: Conv | Dense) -> tuple[int, ...]:
    if isinstance(layer, Dense):
        return (layer.outputs, layer.inputs)
    return (layer.outputs, KERNEL, KERNEL, layer.inputs)


def same_padding(size: int, stride: int) -> tuple[int, int]:
    """Rows to add before and after `size` rows so that ceil(size / stride) of them come out."""
    missing = max((-(-size // stride) - 1) * stride + KERNEL - size, 0)
    return missing // 2, missing - missing // 2


def initial_parameters(generator: np.random.Generator) -> Parameters:
    """He initialisation; a residual block starts as the identity, its last convolution at zero."""
    parameters: Parameters = {}
    for layer in weighted_layers():
        shape = weights_shape(layer)
        deviation = 0.0 if layer.name.endswith("/b") else np.sqrt(2.0 / np.prod(shape[1:]))
        parameters[f"{layer.name}/weights"] = generator.normal(0.0, deviation, shape).astype(
            np.float32
        )
        parameters[f"{layer.name}/bias"] = np.zeros(layer.outputs, np.float32)
    return parameters


def forward(parameters: Parameters, images: Array) -> Array:
    """Logits [N, 10] of images [N, 16, 16, 1] with values in 0..1."""
    return activations(parameters, images)["logits"]


def activations(parameters: Parameters, images: Array) -> dict[str, Array]:
    """Every named tensor of the exported models in execution order, from `image` to `logits`."""
    return _run(parameters, images)[0]


def loss_and_gradients(
    parameters: Parameters, images: Array, labels: NDArray[np.int64]
) -> tuple[float, Gradients]:
    """Mean cross-entropy over the batch, and its gradient for every parameter."""
    values, tape, gradients = _run(parameters, images)
    logits = values["logits"]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_probabilities)
    gradient[rows, labels] -= 1
    gradient /= np.float32(len(labels))
    for backward in reversed(tape):
        gradient = backward(gradient)
    return float(-log_probabilities[rows, labels].mean()), gradients


def _run(
    parameters: Parameters, images: Array
) -> tuple[dict[str, Array], list[Backward], Gradients]:
    """Tensors by name, one backward step per layer of LAYERS, and what those steps fill."""
    values = {"image": images}
    gradients: Gradients = {}
    tape: list[Backward] = []
    x = images
    for layer in LAYERS:
        match layer:
            case Conv():
                x, backward = _conv(layer, parameters, gradients, x)
                values[layer.result] = x
            case Residual():
                x, backward = _residual(layer, parameters, gradients, x, values)
            case Dense():
                values["flatten"] = x.reshape(len(x), -1)
                x, backward = _dense(layer, parameters, gradients, x)
                values["logits"] = x
        tape.append(backward)
    return values, tape, gradients


def _residual(
    block: Residual,
    parameters: Parameters,
    gradients: Gradients,
    x: Array,
    values: dict[str, Array],
) -> tuple[Array, Backward]:
    first, second = block.convolutions
    hidden, backward_first = _conv(first, parameters, gradients, x)
    branch, backward_second = _conv(second, parameters, gradients, hidden)
    y = np.maximum(x + branch, 0)
    values |= {first.result: hidden, second.result: branch, block.result: y}

    def backward(dy: Array) -> Array:
        dsum = dy * (y > 0)
        return dsum + backward_first(backward_second(dsum))

    return y, backward


def _conv(
    layer: Conv, parameters: Parameters, gradients: Gradients, x: Array
) -> tuple[Array, Backward]:
    weights, bias = parameters[f"{layer.name}/weights"], parameters[f"{layer.name}/bias"]
    stride = layer.stride
    pad_rows, pad_columns = same_padding(x.shape[1], stride), same_padding(x.shape[2], stride)
    padded = np.pad(x, ((0, 0), pad_rows, pad_columns, (0, 0)))
    windows = sliding_window_view(padded, (KERNEL, KERNEL), (1, 2))[
        :, ::stride, ::stride
    ]  # N, H, W, C, KH, KW
    count, height, width = windows.shape[:3]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(count * height * width, -1)
    matrix = weights.reshape(layer.outputs, -1)
    y = (patches @ matrix.T + bias).reshape(count, height, width, layer.outputs)
    if layer.relu:
        y = np.maximum(y, 0)

    def backward(dy: Array) -> Array:
        rows = (dy * (y > 0) if layer.relu else dy).reshape(-1, layer.outputs)
        gradients[f"{layer.name}/weights"] = (rows.T @ patches).reshape(weights.shape)
        gradients[f"{layer.name}/bias"] = rows.sum(axis=0)
        dpatches = (rows @ matrix).reshape(count, height, width, KERNEL, KERNEL, layer.inputs)
        dpadded = np.zeros_like(padded)
        for row in range(KERNEL):
            for column in range(KERNEL):
                stop_row, stop_column = row + stride * height, column + stride * width
                dpadded[:, row:stop_row:stride, column:stop_column:stride] += dpatches[
                    :, :, :, row, column
                ]
        return dpadded[
            :, pad_rows[0] : pad_rows[0] + x.shape[1], pad_columns[0] : pad_columns[0] + x.shape[2]
        ]

    return y, backward


def _dense(
    layer: Dense, parameters: Parameters, gradients: Gradients, x: Array
) -> tuple[Array, Backward]:
    weights, bias = parameters[f"{layer.name}/weights"], parameters[f"{layer.name}/bias"]
    flat = x.reshape(len(x), -1)

    def backward(dy: Array) -> Array:
        gradients[f"{layer.name}/weights"] = dy.T @ flat
        gradients[f"{layer.name}/bias"] = dy.sum(axis=0)
        return (dy @ weights).reshape(x.shape)

    return flat @ weights.T + bias, backward
