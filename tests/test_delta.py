"""Patches between builds: exact, small, refused when damaged, and never half applied."""

import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import irsplit
import irsplit.compilation.delta
import irsplit.compilation.weights
import irsplit.runtime.bundle.patch
import irsplit.runtime.bundle.patch_format
from irsplit.base.atomic_files import MANIFEST
from irsplit.base.errors import BundleError
from irsplit.cli import main
from irsplit.compilation.delta import compress_against, write_delta
from irsplit.compilation.old_names import pack_bundle
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite import TFLITE
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.patch import apply_delta
from irsplit.runtime.bundle.patch_format import (
    CODINGS,
    WeightSpan,
    coded,
    packed,
    restored,
    unpacked,
)

TESTS = Path(__file__).parent
MODEL = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"


def retrained(path: Path, change: float, only: str = "") -> Path:
    """The example with weights moved by a share `change` each: of the layer `only`, or all."""
    model = onnx.load(MODEL)
    generator = np.random.default_rng(3)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and only in tensor.name:
            moved = values * (
                1 + change * generator.standard_normal(values.shape).astype(np.float32)
            )
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def build(model: Path, folder: Path) -> Path:
    irsplit.compile_model(model, folder, ["bottleneck/relu"])
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(MODEL, tmp_path_factory.mktemp("builds") / "old")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("builds")
    return build(retrained(folder / "digits.onnx", 1e-3), folder / "new")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def plain_patch_size(old: Path, new: Path) -> int:
    """What zstandard needs with the old files as its dictionaries."""
    files = [name for name in contents(new) if contents(new)[name] != contents(old).get(name)]
    return sum(
        len(compress_against(contents(new)[name], contents(old).get(name, b""))) for name in files
    )


def test_patched_bundle_is_the_new_one_byte_for_byte(old, new, tmp_path):
    report = write_delta(old, new, tmp_path / "patch")
    apply_delta(old, tmp_path / "patch", tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(new)
    assert report.patch_bytes == (tmp_path / "patch").stat().st_size
    assert report.patch_bytes < 0.85 * plain_patch_size(old, new)


def test_unchanged_weights_cost_nothing(old, tmp_path):
    new = build(retrained(tmp_path / "digits.onnx", 0.5, only="head/"), tmp_path / "new")
    report = write_delta(old, new, tmp_path / "patch")
    changed = 4 * (512 * 10 + 10)
    assert report.patch_bytes < changed + 3000
    apply_delta(old, tmp_path / "patch", tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(new)


def test_whole_build_as_a_patch_against_nothing(new, tmp_path):
    report = write_delta(None, new, tmp_path / "patch", "device")
    assert report.unchanged_files == 0
    apply_delta(None, tmp_path / "patch", tmp_path / "applied")
    assert contents(tmp_path / "applied") == {
        n: d for n, d in contents(new).items() if not n.startswith("server/")
    }


def test_patch_wants_an_old_bundle(old, new, tmp_path):
    write_delta(old, new, tmp_path / "patch")
    with pytest.raises(BundleError, match="is none; get another patch"):
        apply_delta(None, tmp_path / "patch", tmp_path / "applied")


def retrained_tflite(path: Path, change: float) -> Path:
    """The TFLite example with its float weights moved by a share of each, in place."""
    source = MODEL.with_suffix(".tflite")
    model, data = TFLITE.read(source), bytearray(source.read_bytes())
    generator = np.random.default_rng(5)
    for constant in (value.constant for graph in model.graphs for value in graph.constants):
        if constant is not None and constant.length > 1000:
            weights = np.frombuffer(data, np.float32, constant.length // 4, constant.offset)
            weights *= 1 + change * generator.standard_normal(weights.size).astype(np.float32)
    path.write_bytes(data)
    return path


def test_tflite_weights_are_coded_against_the_old_ones(tmp_path):
    old = build(MODEL.with_suffix(".tflite"), tmp_path / "old")
    (tmp_path / "source").mkdir()
    new = build(retrained_tflite(tmp_path / "source" / "digits.tflite", 1e-3), tmp_path / "new")
    report = write_delta(old, new, tmp_path / "patch")
    apply_delta(old, tmp_path / "patch", tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(new)
    assert report.patch_bytes < 0.85 * plain_patch_size(old, new)


def test_weights_beside_the_model_are_coded_against_the_old_ones(tmp_path):
    (tmp_path / "source").mkdir()
    models = [MODEL, retrained(tmp_path / "source" / "digits.onnx", 1e-3)]
    bundles = [tmp_path / "old", tmp_path / "new"]
    for model, folder in zip(models, bundles, strict=True):
        irsplit.compile_model(
            model, folder, ["bottleneck/relu"], options=WriteOptions(external_over=1)
        )
    assert "server/model.onnx.data" in contents(bundles[1])
    report = write_delta(*bundles, tmp_path / "patch")
    apply_delta(bundles[0], tmp_path / "patch", tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(bundles[1])
    assert report.patch_bytes < 0.85 * plain_patch_size(*bundles)


def test_one_side_alone(old, new, tmp_path):
    write_delta(old, new, tmp_path / "patch", "device")
    device = tmp_path / "on-the-device"
    for name, data in contents(old).items():
        if not name.startswith("server/"):
            (device / name).parent.mkdir(parents=True, exist_ok=True)
            (device / name).write_bytes(data)
    apply_delta(device, tmp_path / "patch", device)
    assert contents(device) == {
        name: data for name, data in contents(new).items() if not name.startswith("server/")
    }


def test_commands(old, new, tmp_path, capsys):
    assert main(["delta", str(old), str(new), "-o", str(tmp_path / "patch")]) == 0
    assert main(["apply", str(old), str(tmp_path / "patch"), "-o", str(tmp_path / "applied")]) == 0
    assert Manifest.load(new).digest[:16] in capsys.readouterr().out
    assert contents(tmp_path / "applied") == contents(new)


def test_patch_for_another_build_is_refused(old, new, tmp_path):
    write_delta(old, new, tmp_path / "patch")
    with pytest.raises(BundleError, match="is for build"):
        apply_delta(new, tmp_path / "patch", tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


def test_damaged_patches_are_refused_and_leave_nothing(old, new, tmp_path):
    write_delta(old, new, tmp_path / "patch")
    data = (tmp_path / "patch").read_bytes()
    for index in [*range(48), *range(48, len(data), 997)]:
        (tmp_path / "damaged").write_bytes(
            data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :]
        )
        with pytest.raises(BundleError):
            apply_delta(old, tmp_path / "damaged", tmp_path / "applied")
        (tmp_path / "damaged").write_bytes(data[:index])
        with pytest.raises(BundleError):
            apply_delta(old, tmp_path / "damaged", tmp_path / "applied")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "patch"]


def test_old_bundle_that_was_changed_is_found_out(old, new, tmp_path):
    write_delta(old, new, tmp_path / "patch")
    touched = tmp_path / "touched"
    for name, data in contents(old).items():
        (touched / name).parent.mkdir(parents=True, exist_ok=True)
        (touched / name).write_bytes(data)
    weights = touched / "device" / "model.onnx"
    data = weights.read_bytes()
    weights.write_bytes(data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:])
    with pytest.raises(BundleError):
        apply_delta(touched, tmp_path / "patch", tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


def update(folder: str) -> None:
    """What the dying process does: the patch beside the folder's bundle, over it."""
    apply_delta(Path(folder) / "bundle", Path(folder).parent / "patch", Path(folder) / "bundle")


def test_killed_at_every_write_of_apply(old, new, tmp_path):
    write_delta(old, new, tmp_path / "patch")
    for number in range(1, 40):
        shutil.copytree(old, tmp_path / f"run{number}" / "bundle")
    command = [sys.executable, TESTS / "dying.py", "test_delta:update", f"{tmp_path}/run{{}}", "{}"]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [
        contents(tmp_path / f"run{line.split()[0]}" / "bundle") for line in done.stdout.splitlines()
    ]
    assert len(found) > 8
    assert all(bundle in (contents(old), contents(new)) for bundle in found)
    assert found[0] == contents(old)
    assert found[-1] == contents(new)


def test_patch_is_deterministic(old, new, tmp_path):
    for name in ("one", "two"):
        write_delta(old, new, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes()[:5] == b"IRSP" + struct.pack("B", 2)
    assert MANIFEST in contents(new)


@given(
    st.integers(1, 40),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["xor", "integers", "floats"]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200)
def test_coded_weights_restore_any_bits(count, width, coding, random):
    old, new = (np.frombuffer(random.randbytes(count * width), f"<u{width}") for _ in range(2))
    np.testing.assert_array_equal(restored(coding, old, coded(coding, old, new)), new)


def test_patch_of_an_earlier_release_is_refused_by_its_version(old, tmp_path):
    (tmp_path / "patch").write_bytes(b"IRSP" + struct.pack("B", 1) + bytes(100))
    with pytest.raises(BundleError, match="is of version 1, this release reads 2"):
        apply_delta(old, tmp_path / "patch", tmp_path / "applied")


def test_memory_does_not_grow_with_the_files(tmp_path, monkeypatch):
    """Blocks of 64 kB against weights of 4 MB: both ways hold a few blocks at a time."""
    for module in (
        irsplit.compilation.delta,
        irsplit.compilation.weights,
        irsplit.runtime.bundle.patch,
        irsplit.runtime.bundle.patch_format,
    ):
        monkeypatch.setattr(module, "BLOCK", 1 << 16)
        monkeypatch.setattr(module, "REST_BLOCK", 1 << 16, raising=False)
    monkeypatch.setattr(irsplit.runtime.bundle.patch_format, "REST_AROUND", 1 << 15)
    for name, seed in (("old", 0), ("new", 1)):
        (tmp_path / "source" / name).mkdir(parents=True)
        model = layers(tmp_path / "source" / name / "dense.onnx", seed)
        irsplit.compile_model(model, tmp_path / name, ["h1"], remember=False)
    _, made = peak_bytes(
        lambda: write_delta(tmp_path / "old", tmp_path / "new", tmp_path / "patch")
    )
    _, applied = peak_bytes(
        lambda: apply_delta(tmp_path / "old", tmp_path / "patch", tmp_path / "applied")
    )
    assert contents(tmp_path / "applied") == contents(tmp_path / "new")
    assert max(made, applied) < 3 << 20


def layers(path: Path, seed: int) -> Path:
    """Three dense layers of 4 MB: one stays, one moves a little, one is renamed by `seed`."""
    base = np.random.default_rng(0).standard_normal((3, 1024, 1024), np.float32)
    base[1] *= 1 + 1e-4 * seed
    names = ["w0", "w1", f"w2-{seed}"]
    weights = [
        numpy_helper.from_array(values, name) for values, name in zip(base, names, strict=True)
    ]
    nodes = [
        onnx.helper.make_node("MatMul", [f"h{i}", name], [f"h{i + 1}"])
        for i, name in enumerate(names)
    ]
    edges = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1024])
        for name in ("h0", "h3")
    ]
    graph = onnx.helper.make_graph(nodes, "dense", edges[:1], edges[1:], weights)
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
        ),
        path,
    )
    return path


def peak_bytes(call: Callable[[], object]) -> tuple[object, int]:
    """What a call gives, and the most memory that Python and numpy held for it at a time."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_packed_side_can_be_patched(old, new, tmp_path):
    device, _ = pack_bundle(old, tmp_path)
    write_delta(old, new, tmp_path / "patch", "device")
    apply_delta(device, tmp_path / "patch", tmp_path / "applied")
    assert contents(tmp_path / "applied") == {
        n: d for n, d in contents(new).items() if not n.startswith("server/")
    }


def test_a_patched_side_can_be_packed_and_is_the_packed_new_one(old, new, tmp_path):
    device, _ = pack_bundle(old, tmp_path / "old")
    packed, _ = pack_bundle(new, tmp_path / "new")
    write_delta(old, new, tmp_path / "patch", "device")
    write_delta(old, new, tmp_path / "both")
    with pytest.raises(BundleError, match="makes both sides"):
        apply_delta(old, tmp_path / "both", device)
    apply_delta(device, tmp_path / "patch", device)
    assert device.read_bytes() == packed.read_bytes()
    assert sorted(path.name for path in device.parent.iterdir()) == [
        "digits.device.irsb",
        "digits.server.irsb",
    ]


def update_packed(folder: str) -> None:
    """What the dying process does: the patch beside the folder's packed side, over it."""
    packed = Path(folder) / "side.irsb"
    apply_delta(packed, Path(folder).parent / "patch", packed)


def test_killed_at_every_write_of_apply_to_a_packed_side(old, new, tmp_path):
    device, _ = pack_bundle(old, tmp_path / "old")
    packed, _ = pack_bundle(new, tmp_path / "new")
    write_delta(old, new, tmp_path / "patch", "device")
    for number in range(1, 40):
        (tmp_path / f"run{number}").mkdir()
        shutil.copy(device, tmp_path / f"run{number}" / "side.irsb")
    command = [
        sys.executable,
        TESTS / "dying.py",
        "test_delta:update_packed",
        f"{tmp_path}/run{{}}",
        "{}",
    ]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [
        (tmp_path / f"run{line.split()[0]}" / "side.irsb").read_bytes()
        for line in done.stdout.splitlines()
    ]
    assert len(found) > 8
    assert set(found) == {device.read_bytes(), packed.read_bytes()}
    assert (found[0], found[-1]) == (device.read_bytes(), packed.read_bytes())


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 9)), max_size=9))
def test_spans_come_back_from_their_numbers(rows):
    spans: list[WeightSpan] = []
    for gap, old, length in rows:
        end = spans[-1].new + spans[-1].length if spans else 0
        spans.append(WeightSpan(old, end + gap, length, 1, CODINGS[length % 4]))
    assert unpacked(packed(spans)) == spans
