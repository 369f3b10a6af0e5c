"""Quantization and codec of a boundary as passes choose them, on real activations."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
from irsplit.base.errors import IrsplitError
from irsplit.cli import main
from irsplit.codec_training.agreement.top1 import is_comparable, top1
from irsplit.codec_training.ranges import METHODS, quantization, requantization, signal_to_noise_db
from irsplit.runtime.frame import frame
from irsplit.runtime.frame.descriptor import FrameSchema, QuantizationSpec, TensorSpec

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"


def calls(file: str, count: int) -> list[dict[str, Any]]:
    images = np.load(EXAMPLE / file)["images"][:count].astype(np.float32) / 255
    return [{"image": image[None, None]} for image in images]


def integer_calls(file: str, count: int) -> list[dict[str, Any]]:
    images = np.load(EXAMPLE / file)["images"][:count].astype(np.int16) - 128
    return [{"image": image.astype(np.int8)[None, :, :, None]} for image in images]


def compiled(folder: Path, **options: Any) -> dict[str, Any]:
    irsplit.compile_model(
        EXAMPLE / "digits.onnx",
        folder,
        ["down/relu"],
        calibration=calls("calibration_images.npz", 8),
        **options,
    )
    return json.loads((folder / "manifest.json").read_text())["boundaries"][0]


def frames(folder: Path) -> tuple[float, list[dict[str, Any]]]:
    """Mean frame size on images that calibration has not seen, and the outputs."""
    session = irsplit.LocalSession(folder)
    outputs, sizes = [], []
    for call in calls("test_images.npz", 40):
        outputs.append(session.run(call))
        sizes.append(session.frame_bytes[0])
    return float(np.mean(sizes)), outputs


def logits(outputs: list[dict[str, Any]]) -> list[Any]:
    return [call["logits"] for call in outputs]


def test_a_trained_codec_beats_the_general_one(tmp_path: Path) -> None:
    sizes: dict[str, float] = {}
    for codec in ("raw", "zstandard", "static-rans", "auto"):
        boundary = compiled(tmp_path / codec, codec=codec)
        assert boundary["codec"] == ["static-rans" if codec == "auto" else codec]
        sizes[codec], outputs = frames(tmp_path / codec)
        if codec != "raw":
            assert top1(logits(frames(tmp_path / "raw")[1]), logits(outputs)).share == 1.0
    assert sizes["static-rans"] < sizes["zstandard"] < sizes["raw"]
    assert sizes["auto"] <= sizes["static-rans"]


def test_auto_says_what_it_chose_and_inspect_the_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"codec": "auto", "calibration": calls("calibration_images.npz", 4)}
    found = irsplit.compile_model(
        EXAMPLE / "digits.onnx", tmp_path / "auto", ["down/relu"], **options
    )
    (told,) = (remark.text for remark in found.remarks if remark.pass_name == "compress-boundary")
    assert re.fullmatch(r"%down/relu: codec static-rans-L\d, [\d.]+ kB a frame, raw 6\.18 kB", told)
    compiled(tmp_path / "plain")
    assert main(["inspect", str(tmp_path / "plain")]) == 0
    assert ", zstandard level 3, not quantized" in capsys.readouterr().out


def test_training_is_deterministic(tmp_path: Path) -> None:
    for name in ("one", "two"):
        compiled(tmp_path / name, codec="static-rans", boundary="int8")
    one, two = (
        (tmp_path / name / "device" / "boundary0.irsd").read_bytes() for name in ("one", "two")
    )
    assert one == two


def test_fewer_bits_for_a_lower_target(tmp_path: Path) -> None:
    bits = {
        target: compiled(tmp_path / target, boundary=target)["quantization"][0]["bits"]
        for target in ("snr=40", "snr=20", "agreement=0.9")
    }
    assert bits["snr=40"] > bits["snr=20"] >= 2
    assert frames(tmp_path / "snr=40")[0] > frames(tmp_path / "snr=20")[0]
    whole = frames(tmp_path / "snr=40")[1]
    assert top1(logits(whole), logits(frames(tmp_path / "agreement=0.9")[1])).share >= 0.8


def test_a_floor_where_calibration_is_easy(tmp_path: Path) -> None:
    """For an agreement of 0 any answer will do, and the floor decides; else the finer one."""
    bits = {
        boundary: compiled(tmp_path / boundary, boundary=boundary)["quantization"][0]["bits"]
        for boundary in (
            "agreement=0.01",
            "snr=30",
            "agreement=0.01,snr=30",
            "snr=5,agreement=0.99",
            "agreement=0.99",
        )
    }
    assert bits["agreement=0.01"] == 2 < bits["snr=30"] == bits["agreement=0.01,snr=30"]
    assert bits["snr=5,agreement=0.99"] == bits["agreement=0.99"]


def of_integers(folder: Path, **options: Any) -> tuple[TensorSpec, float, float]:
    """What crosses in the 8-bit network, the mean frame, and the agreement on unseen images."""
    model = EXAMPLE / "digits_int8.tflite"
    calibration = integer_calls("calibration_images.npz", 12)
    irsplit.compile_model(
        model, folder, ["down/relu"], codec="static-rans", calibration=calibration, **options
    )
    session, sizes, outputs = irsplit.LocalSession(folder), list[int](), list[dict[str, Any]]()
    for call in integer_calls("test_images.npz", 20):
        outputs.append(session.run(call))
        sizes.append(session.frame_bytes[0])
    whole = irsplit.LocalSession(folder.with_name("lossless")) if options else session
    expected = [whole.run(call) for call in integer_calls("test_images.npz", 20)]
    share = top1([call["logits"] for call in expected], [call["logits"] for call in outputs]).share
    return session.boundaries[0].tensors[0], float(np.mean(sizes)), share


def test_integers_cross_in_coarser_steps(tmp_path: Path) -> None:
    """Zero stays exact and other integers within half a step."""
    plain, most, _ = of_integers(tmp_path / "lossless")
    assert plain.quantization is None
    spec, size, share = of_integers(tmp_path / "target", boundary="agreement=0.95")
    assert spec.quantization is not None
    assert (spec.dtype, spec.quantization.outliers) == ("i8", False)
    assert size < 0.8 * most
    assert share >= 0.9
    integers = np.arange(-128, 128, dtype=np.int8)
    boundary = FrameSchema(0, "x", (TensorSpec("x", "i8", (256,), spec.quantization),))
    (found,) = frame.decode(boundary, frame.encode(boundary, [integers]))
    assert found[0] == -128
    assert np.abs(found.astype(int) - integers).max() <= spec.quantization.scales[0] / 2 + 0.5


@pytest.mark.parametrize("zero", [0, 119, 255])
@pytest.mark.parametrize("levels", [91, 64, 10])
def test_steps_of_integers_go_through_zero(zero: int, levels: int) -> None:
    array = np.clip(np.random.default_rng(4).normal(zero, 60, (1, 9, 9, 4)), 0, 255).astype(
        np.uint8
    )
    q = requantization([array], levels, zero, axis=3)
    assert q is not None
    assert len(q.scales) == 4
    boundary = FrameSchema(0, "x", (TensorSpec("x", "u8", array.shape, q),))
    array[0, 0] = zero
    (found,) = frame.decode(boundary, frame.encode(boundary, [array]))
    assert (found[0, 0] == zero).all()
    assert (np.abs(found.astype(int) - array) <= np.array(q.scales) / 2 + 0.5).all()


def test_steps_finer_than_those_of_integers_leave_them_alone() -> None:
    array = np.arange(40, 200, dtype=np.uint8)
    assert requantization([array], 161, 100) is None
    q = requantization([array], 108, 100)
    assert q is not None
    assert q.scales[0] == pytest.approx(100 / 67)  # 159 / 107, and a multiple of it is 100


def test_a_target_decides_between_bits(tmp_path: Path) -> None:
    q = compiled(tmp_path / "target", boundary="snr=26")["quantization"][0]
    full = compiled(tmp_path / "int8", boundary="int8")["quantization"][0]
    levels = round(full["scales"][0] * 255 / q["scales"][0]) + 1
    assert (levels, q["bits"]) == (45, 6)


def test_the_same_place_among_equals() -> None:
    expected = np.array([[3, 7, 7, 0], [1, 0, 0, 0], [np.nan, 1, 2, 3]], np.float32)
    found = np.array([[0, 1, 2, 0], [0, 0, 0, 1], [np.nan, 9, 9, 9]], np.float32)
    assert top1([expected[:1]], [found[:1]]).share == 1
    assert top1([expected], [found]).share == pytest.approx(2 / 3)


def test_a_classifier_may_end_in_a_plane_of_one_pixel() -> None:
    expected, found = np.array([[1, 3, 2]]), np.array([[1, 2, 3]])
    assert top1([expected.reshape(1, 3, 1, 1)], [found.reshape(1, 3, 1, 1)]).share == 0
    assert is_comparable(expected[:, :, None])
    assert not is_comparable(expected.reshape(3, 1))
    assert not is_comparable(np.float32(1))
    assert not is_comparable(np.zeros((1, 5, 7, 1)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"boundary": "snr=90"}, "does not reach 90.0 dB in 8 bits"),
        ({"boundary": "agreement=7"}, "agreement 7.0 is a share, 0 to 1"),
        (
            {"boundary": "agreement=0.1,snr=90"},
            "agree in 10.00% of the cases, with 90.0 dB in every tensor in 8 bits",
        ),
        ({"boundary": "int8,snr=20"}, "unknown option 'snr=20' of the boundary"),
        ({"boundary": "int9"}, "unknown boundary 'int9'; give one of lossless, int8"),
        ({"boundary": "snr=loud"}, "unknown boundary 'snr=loud'"),
    ],
)
def test_targets_that_cannot_be_met(options: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(IrsplitError, match=said):
        compiled(tmp_path / "bundle", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["static-rans", "auto"])
def test_codecs_that_learn_need_something_to_learn_from(codec: str, tmp_path: Path) -> None:
    with pytest.raises(IrsplitError, match="learns from calibration data"):
        irsplit.compile_model(EXAMPLE / "digits.onnx", tmp_path / "bundle", codec=codec)


def roundtrip(q: QuantizationSpec, array: np.ndarray) -> tuple[np.ndarray, int]:
    boundary = FrameSchema(0, "x", (TensorSpec("x", "f32", array.shape, q),))
    data = frame.encode(boundary, [array])
    return frame.decode(boundary, data)[0], len(data)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [None, 1])
def test_values_beyond_a_range_cross_exactly(method: str, axis: int | None) -> None:
    rng = np.random.default_rng(1)
    array = rng.normal(size=(1, 4, 40, 40)).astype(np.float32) * np.float32([1, 2, 5, 0.1]).reshape(
        1, 4, 1, 1
    )
    array[0, 2, 3, 3] = 4000
    q = quantization([np.delete(array, 3, axis=2)], 256, method=method, axis=axis)
    assert len(q.scales) == (1 if axis is None else 4)
    found, _ = roundtrip(q, array)
    assert found[0, 2, 3, 3] == 4000
    assert np.abs(found - array).max() <= max(q.scales) / 2 + 1e-6


def test_an_outlier_in_calibration_costs_min_max_its_precision() -> None:
    rng = np.random.default_rng(2)
    array = rng.normal(size=(1, 64, 64)).astype(np.float32)
    array[0, 0, :4] = 300
    errors = {
        m: signal_to_noise_db([array], [roundtrip(quantization([array], 256, method=m), array)[0]])
        for m in METHODS
    }
    assert errors["percentile"] > errors["entropy"] > errors["min-max"] == min(errors.values())


def test_channels_of_different_size_keep_their_precision_apart() -> None:
    rng = np.random.default_rng(3)
    array = rng.normal(size=(1, 2, 64, 64)).astype(np.float32) * np.float32([100, 0.01]).reshape(
        1, 2, 1, 1
    )
    together, _ = roundtrip(quantization([array], 256), array)
    apart, _ = roundtrip(quantization([array], 256, axis=1), array)
    assert (
        signal_to_noise_db([array[:, 1]], [apart[:, 1]])
        > 30
        > signal_to_noise_db([array[:, 1]], [together[:, 1]])
    )
