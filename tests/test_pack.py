"""One file of each side: the same results as the folder, read in place, refused if not ours."""

import contextlib
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irsplit
from irsplit.base.errors import BundleError
from irsplit.cli import main
from irsplit.compilation.old_names import pack_bundle
from irsplit.dialects.base import WriteOptions
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import MappedModel
from tools import needs

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
IMAGE = np.random.default_rng(0).random((1, 1, 16, 16), np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "digits"
    irsplit.compile_model(DIGITS / "digits.onnx", folder, ["bottleneck/relu"])
    return folder


@pytest.fixture(scope="module")
def sides(bundle: Path) -> dict[str, Path]:
    device, server = pack_bundle(bundle, bundle.parent / "packed")
    return {"device": device, "server": server}


@pytest.mark.parametrize("name", ["digits.onnx", "digits.tflite"])
def test_packed_sides_give_what_the_folder_gives(name, tmp_path):
    irsplit.compile_model(DIGITS / name, tmp_path / "bundle", ["bottleneck/relu"])
    device, server = pack_bundle(tmp_path / "bundle", tmp_path)
    shutil.rmtree(tmp_path / "bundle")
    image = IMAGE if name.endswith("onnx") else np.moveaxis(IMAGE, 1, -1)
    frame = irsplit.DeviceSession(device).start({"image": image})
    irsplit.compile_model(DIGITS / name, tmp_path / "bundle", ["bottleneck/relu"])
    assert frame == irsplit.DeviceSession(tmp_path / "bundle").start({"image": image})
    expected = irsplit.LocalSession(tmp_path / "bundle").run({"image": image})
    np.testing.assert_array_equal(
        irsplit.ServerSession(server).resume(frame)["logits"], expected["logits"]
    )


def test_weights_beside_the_model_are_read_where_they_lie(tmp_path):
    weights = numpy_helper.from_array(np.arange(4096, dtype=np.float32).reshape(64, 64), "w")
    nodes = [
        helper.make_node("Neg", ["x"], ["cut"]),
        helper.make_node("MatMul", ["cut", "w"], ["y"]),
    ]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "dense", edges[:1], edges[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "dense.onnx")
    options = WriteOptions(external_over=1)
    irsplit.compile_model(tmp_path / "dense.onnx", tmp_path / "bundle", ["cut"], options=options)
    device, server = pack_bundle(tmp_path / "bundle", tmp_path)
    mapped = Manifest.load(server).store.model("server/model.onnx")
    assert isinstance(mapped, MappedModel)
    assert len(mapped.beside["model.onnx.data"]) >= 4 * 4096
    x = np.ones((1, 64), np.float32)
    outputs = irsplit.ServerSession(server).resume(irsplit.DeviceSession(device).start({"x": x}))
    np.testing.assert_array_equal(outputs["y"], -x @ numpy_helper.to_array(weights))


def test_each_side_holds_its_own_files_and_the_manifest(bundle, sides):
    for place, path in sides.items():
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert names == [
                "manifest.json",
                *(n for n in Manifest.load(bundle).files if n.startswith(place)),
            ]
            for info in archive.infolist():
                assert archive.read(info) == (bundle / info.filename).read_bytes()
        Manifest.load(path).check_files()


def test_members_are_aligned_and_the_same_bundle_gives_the_same_bytes(bundle, sides, tmp_path):
    for again in pack_bundle(bundle, tmp_path):
        assert again.read_bytes() == (bundle.parent / "packed" / again.name).read_bytes()
    data = sides["device"].read_bytes()
    for name in ("manifest.json", "device/model.onnx"):
        assert data.index((bundle / name).read_bytes()) % 64 == 0


def test_members_of_more_than_2_gb_are_aligned_too(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # as if: their heads are longer
    device, _ = pack_bundle(bundle, tmp_path)
    irsplit.DeviceSession(device).start({"image": IMAGE})
    Manifest.load(device).check_files()


def test_unzip_gives_the_folder_of_a_side(bundle, sides, tmp_path):
    needs("unzip")
    subprocess.run(["unzip", "-q", sides["server"], "-d", tmp_path / "server"], check=True)
    frame = irsplit.DeviceSession(bundle).start({"image": IMAGE})
    expected = irsplit.ServerSession(bundle).resume(frame)["logits"]
    np.testing.assert_array_equal(
        irsplit.ServerSession(tmp_path / "server").resume(frame)["logits"], expected
    )


def test_a_bundle_with_one_side_gives_one_file(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "half", ignore=shutil.ignore_patterns("server"))
    assert [path.name for path in pack_bundle(tmp_path / "half", tmp_path)] == [
        "digits.device.irsb"
    ]


def test_a_side_that_is_not_whole_is_not_packed(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "part", ignore=shutil.ignore_patterns("boundary0.irsd"))
    shutil.copy(bundle / "device" / "boundary0.irsd", tmp_path / "part" / "device")
    with pytest.raises(BundleError, match="missing from the bundle"):
        pack_bundle(tmp_path / "part", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*server*"))


def test_a_changed_member_does_not_pass(sides, tmp_path):
    data = bytearray(sides["device"].read_bytes())
    data[data.index(b"bottleneck/conv") + 3] ^= 1
    (tmp_path / "x.irsb").write_bytes(data)
    with pytest.raises(BundleError, match="changed since it was compiled"):
        Manifest.load(tmp_path / "x.irsb").check_files()


def test_the_other_side_is_not_in_it(sides):
    with pytest.raises(BundleError, match=r"'server/model.onnx' is not in this side"):
        irsplit.LocalSession(sides["device"])


def test_an_autonomous_device_side_runs_alone(tmp_path, capsys):
    irsplit.compile_model(
        DIGITS / "digits.onnx", tmp_path / "bundle", ["bottleneck/relu"], autonomous=True
    )
    device, _ = pack_bundle(tmp_path / "bundle", tmp_path)
    expected = irsplit.LocalSession(tmp_path / "bundle").run({"image": IMAGE})["logits"]
    np.testing.assert_array_equal(
        irsplit.LocalSession(device).run({"image": IMAGE})["logits"], expected
    )
    assert main(["run", str(device), "--input", f"image={DIGITS / 'pictures' / '3.png'}"]) == 0
    assert "logits" in capsys.readouterr().out


def test_commands(bundle, sides, tmp_path, capsys):
    assert main(["pack", str(bundle), "-o", str(tmp_path)]) == 0
    assert "digits.server.irsb" in capsys.readouterr().out
    assert main(["inspect", str(sides["device"])]) == 0
    assert "absent" in capsys.readouterr().out
    for words in (["verify", str(sides["device"])], ["report", str(sides["server"])]):
        assert main([*words]) == 2
        assert "is one packed side of a bundle; give the folder" in capsys.readouterr().err


def _renamed(name: str) -> Callable[[bytes], bytes]:
    """Another name of the same length, in the local head and in the directory."""
    old = b"device/model.onnx"
    return lambda data: data.replace(old, name.encode().ljust(len(old), b"x"))


def _zipped(compression: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        path = Path("packed.zip")
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("manifest.json", data)
        return path.read_bytes()

    return change


def _moved(data: bytes) -> bytes:
    """The directory says that the second member lies where the first does."""
    second = data.rindex(b"PK\1\2", 0, data.rindex(b"device/model.onnx")) + 42
    return data[:second] + bytes(4) + data[second + 4 :]


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "no zip": lambda data: b"not a zip at all",
    "truncated": lambda data: data[:-30],
    "cut in half": lambda data: data[: len(data) // 2],
    "compressed": _zipped(zipfile.ZIP_DEFLATED),
    "not aligned": _zipped(zipfile.ZIP_STORED),
    "leaves the folder": _renamed("../../etc/passwd"),
    "absolute": _renamed("/etc/passwd"),
    "wrong offset": _moved,
    "no manifest": lambda data: data.replace(b"manifest.json", b"manifest.txt_"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_one_clear_error(kind, sides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.irsb"
    path.write_bytes(HOSTILE[kind](sides["device"].read_bytes()))
    with pytest.raises(BundleError, match=r"x\.irsb: is no packed side"):
        irsplit.DeviceSession(path)


def test_no_flipped_byte_of_the_directory_is_an_exception_of_another_kind(sides, tmp_path):
    data = sides["device"].read_bytes()
    path = tmp_path / "x.irsb"
    for index in range(data.rindex(b"device/boundary0.irsd"), len(data)):
        for bit in (0, 7):
            path.write_bytes(data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :])
            with contextlib.suppress(BundleError):
                Manifest.load(path).check_files()
