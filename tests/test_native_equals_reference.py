"""The C core and the numpy reference: same bytes, same tensors; exact unless quantized."""

import numpy as np
import pytest
from hypothesis import given

from framing import FRAMABLE, Array, array_of_bytes, boundaries_with_arrays, decoded, engines
from irsplit.runtime.frame import frame
from irsplit.runtime.frame.descriptor import FrameSchema, QuantizationSpec, TensorSpec


def test_the_extension_is_built() -> None:
    assert frame.native_available(), (
        "irsplit.runtime.c._native is missing: its build failed (it is optional for users)"
    )


@given(boundaries_with_arrays())
def test_same_bytes_and_same_tensors(case: tuple[FrameSchema, list[Array]]) -> None:
    boundary, arrays = case
    native, reference = engines(boundary)
    coded = native.encode(arrays)
    assert coded == reference.encode(arrays)
    tensors = decoded(native, boundary, coded)
    assert tensors == decoded(reference, boundary, coded)
    assert isinstance(tensors, list)
    for spec, array, data in zip(boundary.tensors, arrays, tensors, strict=True):
        if spec.quantization is None:
            assert data == array.tobytes()


@given(boundaries_with_arrays())
def test_descriptor_round_trip(case: tuple[FrameSchema, list[Array]]) -> None:
    boundary, _ = case
    assert FrameSchema.from_bytes(boundary.to_bytes()) == boundary


@pytest.mark.parametrize("dtype", FRAMABLE)
@pytest.mark.parametrize("codec", ["raw", "zstandard"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (1, 2, 1, 2, 1, 2, 1, 2), (33, 65)])
def test_every_type_and_shape(dtype: str, codec: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec("x", dtype, shape, codec=codec)
    size = int(np.prod(shape)) * spec.storage.itemsize
    data = np.random.default_rng(7).integers(0, 256, size, np.uint8).tobytes()
    array = array_of_bytes(data, spec, shape)
    boundary = FrameSchema(0, "b", (spec,))
    (back,) = frame.decode(boundary, frame.encode(boundary, [array]))
    assert back.tobytes() == array.tobytes()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize("engine", [0, 1])
@pytest.mark.parametrize("outliers", [False, True])
def test_quantization_of_special_values(engine: int, outliers: bool) -> None:
    values = np.array(
        [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, 126.5, 127.5, -128.5, 1e30, np.inf, -np.inf, np.nan],
        np.float32,
    )
    q = QuantizationSpec((1.0,), (0,), outliers=outliers)
    boundary = FrameSchema(0, "b", (TensorSpec("x", "f32", (13,), q),))
    codec = engines(boundary)[engine]
    (back,) = [np.empty(13, np.float32)]
    codec.decode(memoryview(codec.encode([values])), [back])
    clipped = [0, 0, 0, 2, 2, 0, 126, 127, -128, 127, 127, -128, 0]
    exact = [0, 0, 0, 2, 2, 0, 126, 127.5, -128, 1e30, np.inf, -np.inf, np.nan]
    np.testing.assert_array_equal(back, np.array(exact if outliers else clipped, np.float32))


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_quantization_error_is_at_most_half_a_step(dtype: str) -> None:
    rng = np.random.default_rng(3)
    spec = TensorSpec(
        "x", dtype, (None, 8), QuantizationSpec((0.05,) * 8, (-20,) * 8, axis=1), "zstandard"
    )
    values = rng.uniform(-5, 7, (1000, 8)).astype(spec.storage)
    boundary = FrameSchema(0, "b", (spec,))
    (back,) = frame.decode(boundary, frame.encode(boundary, [values]))
    assert np.abs(back.astype(np.float32) - values).max() <= 0.0251 + (
        0.004 if dtype == "f16" else 0
    )


@pytest.mark.parametrize(("dtype", "zero"), [("u8", -128), ("i8", 0)])
def test_every_integer_comes_back_within_half_a_step(dtype: str, zero: int) -> None:
    integers = np.arange(256, dtype=np.uint8).view(TensorSpec("x", dtype, ()).storage)
    for scale in (1.0, 1.3, 2.0, 2.5, 17.0, 128.0, 500.0):
        boundary = FrameSchema(
            0, "b", (TensorSpec("x", dtype, (256,), QuantizationSpec((scale,), (zero,))),)
        )
        native, reference = engines(boundary)
        coded = native.encode([integers])
        assert coded == reference.encode([integers])
        found, twin = np.empty_like(integers), np.empty_like(integers)
        native.decode(memoryview(coded), [found])
        reference.decode(memoryview(coded), [twin])
        np.testing.assert_array_equal(found, twin)
        assert np.abs(found.astype(int) - integers).max() <= (scale + 1) / 2
        assert scale > 1 or np.array_equal(found, integers)
