"""A flat list of tensors and operators to the bytes of a .tflite file, by LiteRT's schema."""

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SCHEMA_VERSION = 3
ALIGNMENT = 16
# Field of the metadata buffer, from TensorFlow's converter: 16 bytes, padded with zeros.
MIN_RUNTIME_SIZE = 16

TENSOR_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point); several scales belong to the slices along axis 0."""

    scale: NDArray[np.float32]
    zero_point: int = 0


class AlignedBuffer(schema.BufferT):
    """A buffer whose bytes start at a multiple of 16, as the schema demands."""

    def Pack(self, builder: Any) -> Any:
        if self.data is not None:
            # The Python builder ignores `force_align`; padding up to the end aligns the start.
            builder.Prep(ALIGNMENT, len(self.data))
        return super().Pack(builder)


@dataclass
class TfliteModel:
    """A subgraph in the making; `activation` and `constant` give the indices of tensors."""

    name: str
    tensors: list[Any] = field(default_factory=list[Any])
    buffers: list[Any] = field(default_factory=lambda: [AlignedBuffer()])
    codes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    operators: list[Any] = field(default_factory=list[Any])

    def activation(
        self,
        name: str,
        dtype: type[np.generic],
        shape: tuple[int, ...],
        quantization: Quantization | None = None,
    ) -> int:
        """A tensor computed at run time. `shape` is without the batch: 1 until it is resized."""
        tensor = _tensor(name, np.dtype(dtype), (1, *shape), quantization)
        tensor.shapeSignature = np.array((-1, *shape), np.int32)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(
        self, name: str, value: NDArray[np.generic], quantization: Quantization | None = None
    ) -> int:
        tensor = _tensor(name, value.dtype, value.shape, quantization)
        tensor.buffer = self._buffer(value.tobytes())
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(
        self, operator: str, version: int, inputs: list[int], output: int, **options: Any
    ) -> None:
        """Append a builtin operator by its name (CONV_2D); `options` go to its options table."""
        code = (getattr(schema.BuiltinOperator, operator), version)
        if code not in self.codes:
            self.codes.append(code)
        table = OPTIONS[operator]
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=self.codes.index(code),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                builtinOptionsType=getattr(schema.BuiltinOptions, table),
                builtinOptions=getattr(schema, f"{table}T")(**options),
            )
        )

    def finish(self, inputs: dict[str, int], outputs: dict[str, int], min_runtime: str) -> bytes:
        """The file; `inputs` and `outputs` name tensors in the signature `serving_default`."""
        subgraph = schema.SubGraphT(
            name="main",
            tensors=self.tensors,
            operators=self.operators,
            inputs=np.array(list(inputs.values()), np.int32),
            outputs=np.array(list(outputs.values()), np.int32),
        )
        signature = schema.SignatureDefT(
            signatureKey="serving_default",
            subgraphIndex=0,
            inputs=[
                schema.TensorMapT(name=name, tensorIndex=index) for name, index in inputs.items()
            ],
            outputs=[
                schema.TensorMapT(name=name, tensorIndex=index) for name, index in outputs.items()
            ],
        )
        runtime = self._buffer(min_runtime.encode().ljust(MIN_RUNTIME_SIZE, b"\0"))
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            description=self.name,
            operatorCodes=[
                schema.OperatorCodeT(
                    deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version
                )
                for code, version in self.codes
            ],
            subgraphs=[subgraph],
            buffers=self.buffers,
            signatureDefs=[signature],
            metadata=[schema.MetadataT(name="min_runtime_version", buffer=runtime)],
        )
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _buffer(self, data: bytes) -> int:
        self.buffers.append(AlignedBuffer(data=np.frombuffer(data, np.uint8)))
        return len(self.buffers) - 1


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "ADD": "AddOptions",
    "RESHAPE": "ReshapeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
}


def _tensor(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], quantization: Quantization | None
) -> Any:
    return schema.TensorT(
        name=name,
        type=TENSOR_TYPES[dtype],
        shape=np.array(shape, np.int32),
        hasRank=True,
        quantization=schema.QuantizationParametersT()
        if quantization is None
        else _quantization(quantization),
    )


def _quantization(quantization: Quantization) -> Any:
    scale = quantization.scale.reshape(-1)
    return schema.QuantizationParametersT(
        scale=scale.astype(np.float32),
        zeroPoint=np.full(scale.size, quantization.zero_point, np.int64),
    )
