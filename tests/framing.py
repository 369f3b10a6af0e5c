"""What frame tests share: strategies for boundaries with arrays, both engines side by side."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from irsplit.base import dtypes
from irsplit.runtime.frame.descriptor import (
    FrameSchema,
    QuantizationSpec,
    TensorSpec,
    zstandard_parameters,
)
from irsplit.runtime.frame.frame import Codec, open_codec
from irsplit.runtime.frame.status import Status, StatusError

Array = NDArray[np.generic]
FRAMABLE = tuple(dtype.name for dtype in dtypes.ALL if dtype.framable)
FLOATS = ("f32", "f16", "bf16")
QUANTIZABLE = (*FLOATS, "i8", "u8")


def engines(boundary: FrameSchema) -> tuple[Codec, Codec]:
    return open_codec(boundary, "native"), open_codec(boundary, "reference")


def outcome(call: Callable[[], object]) -> object:
    """The result, or the status it was refused with."""
    try:
        return call()
    except StatusError as error:
        return error.status


def decoded(codec: Codec, boundary: FrameSchema, frame: bytes) -> Status | list[bytes]:
    """Bytes of every tensor, or the status."""

    def call() -> list[bytes]:
        shapes = codec.shapes(memoryview(frame))
        assert sum(math.prod(shape) for shape in shapes) < 1 << 24
        arrays: list[Array] = [
            np.zeros(shape, spec.storage)
            for spec, shape in zip(boundary.tensors, shapes, strict=True)
        ]
        codec.decode(memoryview(frame), arrays)
        return [array.tobytes() for array in arrays]

    result = outcome(call)
    assert isinstance(result, Status | list)
    return result


def array_of_bytes(data: bytes, spec: TensorSpec, shape: Sequence[int]) -> Array:
    """Any bit pattern (NaN payloads, -0.0, subnormals), except for bool, which has two."""
    raw = np.frombuffer(data, np.uint8)
    if spec.dtype == "bool":
        raw = raw & 1
    return raw.view(spec.storage).reshape(shape).copy()


@st.composite
def quantizations(draw: st.DrawFn, shape: tuple[int | None, ...]) -> QuantizationSpec:
    static = [axis for axis, dim in enumerate(shape) if dim]
    axis = draw(st.sampled_from([None, *static]))
    count = 1 if axis is None else shape[axis] or 1
    dtype, bits = draw(st.sampled_from(["i8", "u8"])), draw(st.integers(2, 8))
    low = -(1 << (bits - 1)) if dtype == "i8" else 0
    scales = st.floats(2.0**-20, 2.0**20, width=32)
    zeros = st.integers(low, low + (1 << bits) - 1)
    return QuantizationSpec(
        tuple(draw(st.lists(scales, min_size=count, max_size=count))),
        tuple(draw(st.lists(zeros, min_size=count, max_size=count))),
        dtype, bits, axis, draw(st.booleans()),
    )  # fmt: skip


@st.composite
def specs_with_arrays(draw: st.DrawFn, index: int) -> tuple[TensorSpec, Array]:
    dtype = draw(st.sampled_from(QUANTIZABLE if draw(st.booleans()) else FRAMABLE))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=8 if draw(st.booleans()) else 3)))
    if math.prod(shape) > 2000:
        shape = shape[:3]
    symbolic = tuple(None if draw(st.booleans()) else dim for dim in shape)
    quantization = (
        draw(quantizations(symbolic)) if dtype in QUANTIZABLE and draw(st.booleans()) else None
    )
    codec = draw(st.sampled_from(["raw", "zstandard"]))
    parameters, chunk = b"", 0
    if codec == "zstandard":
        parameters, chunk = (
            zstandard_parameters(draw(st.sampled_from([-1, 1, 3]))),
            draw(st.sampled_from([1, 7, 1000])),
        )
    spec = TensorSpec(f"t{index}", dtype, symbolic, quantization, codec, parameters, chunk)
    size = math.prod(shape) * spec.storage.itemsize
    if dtype in FLOATS and draw(st.booleans()):
        values = draw(st.lists(st.floats(width=16), min_size=1, max_size=20))
        numbers = np.resize(np.array(values, np.float16), shape)
        array = (numbers.astype(np.float32).view(np.uint32) >> 16) if dtype == "bf16" else numbers
        return spec, array.astype(spec.storage)
    pattern = draw(st.binary(min_size=1, max_size=64))
    return spec, array_of_bytes((pattern * (size // len(pattern) + 1))[:size], spec, shape)


@st.composite
def boundaries_with_arrays(draw: st.DrawFn) -> tuple[FrameSchema, list[Array]]:
    pairs = [draw(specs_with_arrays(index)) for index in range(draw(st.integers(1, 3)))]
    boundary = FrameSchema(
        draw(st.integers(0, 5)),
        draw(st.text(max_size=9)),
        tuple(spec for spec, _ in pairs),
        draw(st.binary(min_size=32, max_size=32)),
    )
    return boundary, [array for _, array in pairs]
