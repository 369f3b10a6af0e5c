"""static-rans: trained models on real-looking tensors; exact, safe, and beating zstandard."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset import Split, load_splits, model_input
from export_onnx import parameters_of
from framing import Array, decoded, engines, outcome
from irsplit.base.errors import BundleError, UnsupportedError
from irsplit.codec_training.codec import SLOWEST, choose_codec, measure, train, with_zstandard
from irsplit.codec_training.ranges import quantization
from irsplit.codec_training.train import train_model
from irsplit.profiles import level_speeds
from irsplit.runtime.c import _native
from irsplit.runtime.frame.descriptor import (
    FrameSchema,
    QuantizationSpec,
    TensorSpec,
    zstandard_parameters,
)
from irsplit.runtime.frame.rans_model import RansModel
from irsplit.runtime.frame.reference.crc32c import crc32c
from irsplit.runtime.frame.reference.frame import HEADER
from irsplit.runtime.frame.status import Status
from network import activations, loss_and_gradients
from test_hostile_frames import with_crc
from train import BATCH, LEARNING_RATE, SEED, Adam, shifted

ROOT = Path(__file__).resolve().parents[1]
TYPES = (
    "u8",
    "i8",
    "bool",
    "f32",
    "f16",
    "bf16",
    "i16",
    "u16",
    "i32",
    "u32",
    "i64",
    "u64",
    "f8e4m3fn",
)


def feature_map(seed: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Smooth along height and width, different by channel, clipped like a ReLU; NHWC."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    for axis in (1, 2):
        noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)) / 1.7
    values = np.maximum(noise * np.linspace(0.3, 2, shape[-1]) + np.linspace(-1, 1, shape[-1]), 0)
    spec = TensorSpec("x", dtype, shape)
    if dtype == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if dtype in ("f32", "f16"):
        return values.astype(spec.storage)
    if dtype == "bool":
        return values > 0.5
    return np.clip(values * 20, 0, 127).astype(spec.storage)


def trained(
    dtype: str, shape: tuple[int, ...], level: int, layout: str = "NHWC", **options: int
) -> TensorSpec:
    samples = [feature_map(seed, shape, dtype) for seed in range(2)]
    if layout == "NCHW":
        samples = [np.ascontiguousarray(sample.transpose(0, 3, 1, 2)) for sample in samples]
    return train(
        samples, TensorSpec("x", dtype, samples[0].shape), layout=layout, level=level, **options
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_both_engines_give_the_same_bytes(dtype: str, layout: str, level: int) -> None:
    spec = replace(trained(dtype, (1, 7, 6, 37), level, layout), chunk=37 * 15)
    array = feature_map(9, (1, 7, 6, 37), dtype)
    if layout == "NCHW":
        array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    boundary = FrameSchema(0, "b", (spec,))
    native, reference = engines(boundary)
    coded = native.encode([array])
    assert coded == reference.encode([array])
    assert (
        decoded(native, boundary, coded) == decoded(reference, boundary, coded) == [array.tobytes()]
    )


MODELS = {
    (dtype, level): trained(dtype, (1, 5, 6, 9), level)
    for dtype in ("u8", "f32", "f16", "i32")
    for level in (0, 1, 2)
}


@given(
    st.sampled_from(sorted(MODELS)),
    st.binary(min_size=1, max_size=40),
    st.integers(0, 7),
    st.integers(1, 8),
)
def test_any_input_decodes_exactly(
    key: tuple[str, int], pattern: bytes, height: int, width: int
) -> None:
    """Nothing like the training data: NaN payloads, -0.0, unknown values, empty, one pixel."""
    spec = replace(MODELS[key], shape=(None, None, None, 9), chunk=9 * 11)
    size = height * width * 9 * spec.storage.itemsize
    array = np.frombuffer((pattern * (size // len(pattern) + 1))[:size], spec.storage).reshape(
        1, height, width, 9
    )
    boundary = FrameSchema(0, "b", (spec,))
    native, reference = engines(boundary)
    coded = native.encode([array])
    assert coded == reference.encode([array])
    assert (
        decoded(native, boundary, coded) == decoded(reference, boundary, coded) == [array.tobytes()]
    )


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 300), (1, 40, 12), (2, 3, 4, 2, 3), (1, 1, 1, 700), (3, 0, 4), (0,)]
)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_any_rank(shape: tuple[int, ...], level: int) -> None:
    rng = np.random.default_rng(5)
    make = [
        rng.binomial(40, 0.3, [max(dim, 1) for dim in shape]).astype(np.uint8) for _ in range(2)
    ]
    symbolic = tuple(None if dim == 0 else dim for dim in shape)
    spec = train(make, TensorSpec("x", "u8", symbolic), level=level)
    array = rng.binomial(40, 0.3, shape).astype(np.uint8)
    boundary = FrameSchema(0, "b", (spec,))
    native, reference = engines(boundary)
    coded = native.encode([np.asarray(array)])
    assert coded == reference.encode([np.asarray(array)])
    assert (
        decoded(native, boundary, coded) == decoded(reference, boundary, coded) == [array.tobytes()]
    )


@pytest.mark.parametrize("level", [0, 1, 2])
def test_quantized_tensors(level: int) -> None:
    shape = (1, 8, 8, 40)
    samples = [feature_map(seed, shape, "f32").astype(np.float32) for seed in range(2)]
    q = QuantizationSpec((0.02,), (-128,), outliers=True)
    spec = train(samples, TensorSpec("x", "f32", shape, q), level=level)
    array = feature_map(8, shape, "f32").astype(np.float32)
    array[0, 0, 0, :3] = np.nan, 1e9, -np.inf
    boundary = FrameSchema(0, "b", (spec,))
    native, reference = engines(boundary)
    coded = native.encode([array])
    assert coded == reference.encode([array])
    (back,) = decoded(native, boundary, coded)
    values = np.frombuffer(back, np.float32).reshape(shape)
    assert decoded(reference, boundary, coded) == [back]
    np.testing.assert_array_equal(values[0, 0, 0, :3], array[0, 0, 0, :3])
    finite = np.isfinite(array)
    assert np.abs(values[finite] - array[finite]).max() <= 0.0101


@pytest.mark.parametrize("dtype", ["u8", "f16"])
def test_damage_within_a_payload(dtype: str) -> None:
    """Every byte of a frame changed, checksums right: refused, or decoded alike by both."""
    boundary = FrameSchema(0, "b", (MODELS[dtype, 2],))
    native, reference = engines(boundary)
    coded = native.encode([feature_map(4, (1, 5, 6, 9), dtype)])
    refused = 0
    for position in range(HEADER.size, len(coded) - 4):
        body = bytearray(coded)
        body[position] ^= 1 << position % 8
        hostile = with_crc(bytes(body))
        result = decoded(native, boundary, hostile)
        assert result == decoded(reference, boundary, hostile)
        refused += isinstance(result, Status)
    assert refused > 0


def opened(descriptor: bytes) -> object:
    return outcome(lambda: _native.open(descriptor, lambda *_: b"", lambda *_: b""))


@pytest.mark.parametrize("level", [1, 2])
def test_hostile_models_are_refused_at_open(level: int) -> None:
    """Every byte of the parameters changed: the C core opens what Python's checks accept."""
    spec = trained("u8", (1, 5, 6, 37), level)
    descriptor = FrameSchema(0, "b", (spec,)).to_bytes()
    start = descriptor.index(spec.parameters)
    step = max(1, len(spec.parameters) // 600)
    refused = 0
    for position in [*range(80), *range(80, len(spec.parameters), step)]:
        for value in {0, 0x7F, 0xFF, spec.parameters[position] ^ 1}:
            body = bytearray(descriptor[:-4])
            body[start + position] = value
            changed = bytes(body[start : start + len(spec.parameters)])
            result = opened(bytes(body) + struct.pack("<I", crc32c(body)))
            try:
                replace(spec, parameters=changed, chunk=spec.chunk)
            except UnsupportedError:
                assert result == Status.DESCRIPTOR, (position, value)
                refused += 1
            else:
                assert not isinstance(result, Status), (position, value)
    assert refused > 20


@pytest.mark.parametrize("size", [0, 1, 15, 31, 32, 33, 200])
def test_models_cut_short(size: int) -> None:
    spec = trained("u8", (1, 5, 6, 37), 2)
    with pytest.raises(UnsupportedError):
        replace(spec, parameters=spec.parameters[:size])
    with pytest.raises(UnsupportedError):
        replace(spec, parameters=spec.parameters + b"\0")


def test_descriptor_round_trip() -> None:
    for spec in MODELS.values():
        boundary = FrameSchema(2, "cut", (spec,))
        assert FrameSchema.from_bytes(boundary.to_bytes()) == boundary
        assert RansModel.from_bytes(spec.parameters).to_bytes() == spec.parameters
    with pytest.raises(BundleError):
        FrameSchema.from_bytes(boundary.to_bytes()[:-1] + b"\0")


@pytest.mark.parametrize("axis", [1, 2])
def test_three_dims_are_positions_where_neighbours_are_alike(axis: int) -> None:
    """[N, C, L] and [N, T, features] of ONNX look the same but for their data."""
    rows = (
        np.cumsum(np.random.default_rng(axis).integers(-2, 3, (9, 240)), axis=1)
        + 30 * np.arange(9)[:, None]
    )
    tensor = np.ascontiguousarray((rows if axis == 1 else rows.T)[None].astype(np.uint8))
    spec = TensorSpec("positions", "u8", tensor.shape)
    assert train_model([tensor], spec, layout="NCHW").channel_axis == axis
    boundary = FrameSchema(0, "b", (train([tensor], spec, layout="NCHW"),))
    native, reference = engines(boundary)
    frame = native.encode([tensor])
    assert frame == reference.encode([tensor])
    assert (
        decoded(native, boundary, frame)
        == decoded(reference, boundary, frame)
        == [tensor.tobytes()]
    )


def test_training_is_deterministic() -> None:
    samples = [feature_map(seed, (1, 12, 12, 70), "u8") for seed in range(3)]
    spec = TensorSpec("x", "u8", (1, 12, 12, 70))
    assert (
        train_model(samples, spec, level=2).to_bytes()
        == train_model(samples, spec, level=2).to_bytes()
    )


def test_smaller_than_zstandard_on_feature_maps() -> None:
    shape = (1, 24, 24, 32)
    samples = [feature_map(seed, shape, "u8") for seed in range(4)]
    held = [feature_map(seed, shape, "u8") for seed in range(10, 12)]
    spec = TensorSpec("x", "u8", shape)
    ours = [
        measure(str(level), train(samples, spec, level=level), held).size_bytes
        for level in (0, 1, 2)
    ]
    assert ours[1] < 0.85 * measure("z", with_zstandard(samples, spec, level=19), held).size_bytes
    assert ours[2] <= ours[1] * 1.01 < ours[0]


def test_tables_survive_more_training() -> None:
    """The example trained on at full rate: old tables are within 3 % of its own."""
    before = parameters_of(onnx.load(ROOT / "examples" / "digits" / "digits.onnx"))
    train_split, held_out = load_splits(SEED)
    after = {name: value.copy() for name, value in before.items()}
    optimizer, generator = Adam(after), np.random.default_rng(5)
    for chosen in np.array_split(generator.permutation(512), 512 // BATCH):
        images = model_input(shifted(train_split.images[chosen], generator))
        optimizer.step(
            after, loss_and_gradients(after, images, train_split.labels[chosen])[1], LEARNING_RATE
        )

    def maps(parameters: dict[str, Any], split: Split, count: int) -> list[Array]:
        return [
            activations(parameters, model_input(split.images[i : i + 1]))["down/relu"]
            for i in range(count)
        ]

    old, own, held = (
        maps(before, train_split, 32),
        maps(after, train_split, 32),
        maps(after, held_out, 32),
    )
    assert (
        np.mean([np.abs(a - b).mean() / np.abs(a).mean() for a, b in zip(old, own, strict=True)])
        > 0.03
    )
    spec = TensorSpec("x", "f32", old[0].shape, quantization(old, 256))
    sizes = [
        measure(name, train(samples, spec), held).size_bytes
        for name, samples in (("old", old), ("own", own))
    ]
    assert sizes[1] >= 0.97 * sizes[0]


def test_choice_of_a_codec() -> None:
    shape = (1, 24, 24, 32)
    samples = [feature_map(seed, shape, "u8") for seed in range(4)]
    choice = choose_codec(samples, TensorSpec("x", "u8", shape))
    assert choice.name in ("static-rans-L1", "static-rans-L2")
    assert choice.spec.codec == "static-rans"
    assert min(choice.measured, key=lambda one: one.size_bytes).name == choice.name
    fast = choose_codec(samples, TensorSpec("x", "u8", shape), rate_bit_s=1e15)
    assert fast.name == min(fast.measured, key=lambda one: one.encode_s + one.decode_s).name


def words(seed: int, count: int) -> Array:
    """Few words, repeated at all distances: matches shrink them, tables of symbols do not."""
    rng = np.random.default_rng(seed)
    known = [
        np.random.default_rng(word).integers(0, 256, 3 + word % 7, np.uint8) for word in range(60)
    ]
    return np.concatenate([known[word] for word in rng.integers(0, 60, count)])[
        : 3 * count
    ].reshape(1, -1)


def test_the_slowest_codec_is_chosen_where_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [words(seed, 1000) for seed in range(4)]
    spec = TensorSpec("x", "u8", samples[0].shape)
    speeds = {"zstandard": (200_000_000, 600_000_000), SLOWEST: (4_000_000, 500_000_000)}
    for rate, level in ((None, 19), (1e5, 19), (1e6, 3), (50e6, 3)):
        choice = choose_codec(samples, spec, rate_bit_s=rate, speeds=speeds)
        assert choice.spec.parameters == zstandard_parameters(level), rate
        tried = SLOWEST in {one.name for one in choice.measured}
        assert tried == (rate != 50e6), (
            "encoding alone takes longer than another codec and the link"
        )
    monkeypatch.setattr("irsplit.codec_training.codec.SLOWEST_BYTES", samples[0].nbytes - 1)
    assert choose_codec(samples, spec, speeds=speeds).spec.parameters == zstandard_parameters(3)


def test_levels_have_speeds_of_their_own() -> None:
    samples = [words(seed, 1000) for seed in range(4)]
    speeds = {"zstandard": (100, 200), "zstandard-1": (300, 600)}
    choice = choose_codec(samples, TensorSpec("x", "u8", samples[0].shape), speeds=speeds)
    times = {one.name: (one.encode_s, one.decode_s) for one in choice.measured}
    assert (times["raw"], times["static-rans-L1"]) == ((0, 0), (0, 0))
    assert times["zstandard-3"] == times[SLOWEST] == (30, 15)
    assert times["zstandard-1"] == (10, 5)
    assert set(level_speeds()) < set(times), "published for codecs that are tried"


def test_random_bytes_are_stored() -> None:
    shape = (1, 16, 16, 8)
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    boundary = FrameSchema(0, "b", (trained("u8", shape, 1),))
    native, reference = engines(boundary)
    coded = native.encode([array])
    assert coded == reference.encode([array])
    assert len(coded) == HEADER.size + 4 + array.nbytes + 4
