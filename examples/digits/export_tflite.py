"""The network as TFLite, NHWC with dynamic batch and fused activations: float32 and 8 bits.

Both files come from one walk over the layers; `Float32` and `Int8` say how a tensor is stored.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, Padding
from numpy.typing import NDArray

from network import IMAGE_SIZE, LAYERS, Array, Conv, Dense, Parameters, Residual, activations
from tflite_writer import Quantization, TfliteModel

# What a tensor stores, and how to read it as real numbers.
Stored = tuple[NDArray[np.generic], Quantization | None]
Versions = dict[str, int]

ACTIVATION = {False: ActivationFunctionType.NONE, True: ActivationFunctionType.RELU}
INT8_LIMIT = 127
RANGE_STEP = 1 / 16


class Storage(Protocol):
    """How a model stores its tensors; `versions` and `min_runtime` say which engines it needs."""

    dtype: ClassVar[type[np.generic]]
    min_runtime: ClassVar[str]
    versions: ClassVar[Versions]

    def activation(self, name: str) -> Quantization | None: ...

    def weights(self, layer: Conv | Dense) -> Stored: ...

    def bias(self, layer: Conv | Dense, reads: str) -> Stored:
        """The bias of a layer whose input is the tensor `reads`."""
        ...


@dataclass(frozen=True)
class Float32:
    dtype: ClassVar[type[np.generic]] = np.float32
    min_runtime: ClassVar[str] = "1.5.0"
    versions: ClassVar[Versions] = {"CONV_2D": 1, "ADD": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}

    parameters: Parameters

    def activation(self, name: str) -> None:
        return None

    def weights(self, layer: Conv | Dense) -> Stored:
        return self.parameters[f"{layer.name}/weights"], None

    def bias(self, layer: Conv | Dense, reads: str) -> Stored:
        return self.parameters[f"{layer.name}/bias"], None


@dataclass(frozen=True)
class Int8:
    """TFLite's 8-bit scheme: affine activations, symmetric kernels by channel, biases of int32."""

    dtype: ClassVar[type[np.generic]] = np.int8
    min_runtime: ClassVar[str] = "1.14.0"
    versions: ClassVar[Versions] = {"CONV_2D": 3, "ADD": 2, "RESHAPE": 1, "FULLY_CONNECTED": 4}

    parameters: Parameters
    ranges: dict[str, Quantization]

    def activation(self, name: str) -> Quantization:
        return self.ranges[name]

    def weights(self, layer: Conv | Dense) -> Stored:
        weights = self.parameters[f"{layer.name}/weights"]
        scale = self._weight_scale(layer)
        stored = np.rint(weights / scale.reshape(-1, *[1] * (weights.ndim - 1)))
        return stored.clip(-INT8_LIMIT, INT8_LIMIT).astype(np.int8), Quantization(scale)

    def bias(self, layer: Conv | Dense, reads: str) -> Stored:
        scale = self.ranges[reads].scale * self._weight_scale(layer)
        return np.rint(self.parameters[f"{layer.name}/bias"] / scale).astype(
            np.int32
        ), Quantization(scale)

    def _weight_scale(self, layer: Conv | Dense) -> Array:
        """One scale per output channel; one for a dense layer, as older engines demand."""
        magnitude = np.abs(self.parameters[f"{layer.name}/weights"])
        axes = None if isinstance(layer, Dense) else tuple(range(1, magnitude.ndim))
        return (magnitude.max(axis=axes) / np.float32(INT8_LIMIT)).astype(np.float32).reshape(-1)


def tflite_bytes(parameters: Parameters) -> bytes:
    """The float32 file; the same parameters give the same bytes."""
    return _write(Float32(parameters))


def tflite_int8_bytes(parameters: Parameters, calibration: Array) -> bytes:
    """The 8-bit file, activation ranges taken from the images [N, 16, 16, 1] in `calibration`."""
    values = activations(parameters, calibration)
    ranges = {name: _affine(value) for name, value in values.items()}
    ranges["image"] = _affine(np.array([0, 1], np.float32))
    return _write(Int8(parameters, ranges))


def _affine(value: Array) -> Quantization:
    """The range of `value`, stretched to hold zero, on -128..127.

    Its ends go outward to multiples of RANGE_STEP: the last bits of a sum differ between machines,
    the file must not.
    """
    low = min(np.floor(float(value.min()) / RANGE_STEP) * RANGE_STEP, 0.0)
    high = max(np.ceil(float(value.max()) / RANGE_STEP) * RANGE_STEP, 0.0)
    scale = (high - low) / 255
    return Quantization(np.array([scale], np.float32), round(-128 - low / scale))


@dataclass(frozen=True)
class _Tensor:
    """An activation already in the model."""

    name: str
    index: int
    shape: tuple[int, ...]


def _write(storage: Storage) -> bytes:
    model = TfliteModel("handwritten digits")
    image = tensor = _activation(model, storage, "image", (IMAGE_SIZE, IMAGE_SIZE, 1))
    for layer in LAYERS:
        match layer:
            case Conv():
                tensor = _conv(model, storage, layer, tensor)
            case Residual():
                tensor = _residual(model, storage, layer, tensor)
            case Dense():
                tensor = _dense(model, storage, layer, tensor)
    return model.finish({"image": image.index}, {"logits": tensor.index}, storage.min_runtime)


def _conv(model: TfliteModel, storage: Storage, layer: Conv, source: _Tensor) -> _Tensor:
    size = source.shape[0] // layer.stride
    result = _activation(model, storage, layer.result, (size, size, layer.outputs))
    model.operator(
        "CONV_2D",
        storage.versions["CONV_2D"],
        [source.index, *_constants(model, storage, layer, source)],
        result.index,
        padding=Padding.SAME,
        strideH=layer.stride,
        strideW=layer.stride,
        fusedActivationFunction=ACTIVATION[layer.relu],
    )
    return result


def _residual(model: TfliteModel, storage: Storage, block: Residual, source: _Tensor) -> _Tensor:
    first, second = block.convolutions
    branch = _conv(model, storage, second, _conv(model, storage, first, source))
    result = _activation(model, storage, block.result, source.shape)
    model.operator(
        "ADD",
        storage.versions["ADD"],
        [source.index, branch.index],
        result.index,
        fusedActivationFunction=ACTIVATION[True],
    )
    return result


def _dense(model: TfliteModel, storage: Storage, layer: Dense, source: _Tensor) -> _Tensor:
    flat = _activation(model, storage, "flatten", (layer.inputs,))
    shape = np.array([-1, layer.inputs], np.int32)
    reshape_inputs = [source.index, model.constant("flatten/shape", shape)]
    model.operator(
        "RESHAPE", storage.versions["RESHAPE"], reshape_inputs, flat.index, newShape=shape
    )
    logits = _activation(model, storage, "logits", (layer.outputs,))
    dense_inputs = [flat.index, *_constants(model, storage, layer, flat)]
    model.operator(
        "FULLY_CONNECTED", storage.versions["FULLY_CONNECTED"], dense_inputs, logits.index
    )
    return logits


def _activation(model: TfliteModel, storage: Storage, name: str, shape: tuple[int, ...]) -> _Tensor:
    return _Tensor(
        name, model.activation(name, storage.dtype, shape, storage.activation(name)), shape
    )


def _constants(
    model: TfliteModel, storage: Storage, layer: Conv | Dense, source: _Tensor
) -> list[int]:
    """Weights and bias."""
    return [
        model.constant(f"{layer.name}/weights", *storage.weights(layer)),
        model.constant(f"{layer.name}/bias", *storage.bias(layer, source.name)),
    ]
