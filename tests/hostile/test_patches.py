"""Patches of strangers: the old bundle still runs, nothing outside is read or written."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import irsplit.runtime.bundle.patch
from hostile.patches import ATTACKS, apply_in_place, apply_to_packed, device_mutants, mutants, scene
from irsplit.base.atomic_files import MANIFEST
from irsplit.base.errors import BundleError
from irsplit.cli import main
from irsplit.compilation.delta import write_delta
from irsplit.compilation.old_names import pack_bundle
from irsplit.runtime.bundle.manifest import Manifest, manifest_text
from irsplit.runtime.bundle.patch import apply_delta
from irsplit.runtime.bundle.signature import SIGNATURE
from irsplit.runtime.bundle.store import PackedSide, check_name
from irsplit.runtime.run.session import LocalSession
from test_delta import contents


def run(bundle: Path) -> list[np.ndarray]:
    session = LocalSession(bundle)
    info = session.manifest.inputs[0]
    picture = np.zeros([size or 1 for size in info.shape or ()], np.float32)
    return list(session.run({info.name: picture}).values())


def test_the_patch_that_the_attacks_change_is_a_good_one(tmp_path):
    (tmp_path / "both").mkdir()
    (tmp_path / "one").mkdir()
    apply_in_place(scene().patch.together(), tmp_path / "both")
    apply_to_packed(scene().device_patch.together(), tmp_path / "one")
    assert contents(tmp_path / "both" / "bundle") == contents(scene().new)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_in_one_line(name, tmp_path, capsys):
    bundle, patch = tmp_path / "bundle", tmp_path / "patch"
    shutil.copytree(scene().old, bundle)
    patch.write_bytes(ATTACKS[name](scene().patch).together())
    assert main(["apply", str(bundle), str(patch), "-o", str(bundle)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert len(line) < 600
    assert contents(bundle) == contents(scene().old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "patch"]


def test_old_bundle_runs_after_all_attacks(tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(scene().old, bundle)
    before = run(bundle)
    for name, attack in ATTACKS.items():
        (tmp_path / "patch").write_bytes(attack(scene().patch).together())
        with pytest.raises(BundleError):
            apply_delta(bundle, tmp_path / "patch", bundle)
        assert (bundle / MANIFEST).read_bytes() == (scene().old / MANIFEST).read_bytes(), name
    for output, expected in zip(run(bundle), before, strict=True):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize(
    "name", ["format version 99", "a header of 40 MB", "a block that announces 2^45 bytes"]
)
def test_packed_side_stays_as_it_was(name, tmp_path):
    with pytest.raises(BundleError):
        apply_to_packed(ATTACKS[name](scene().device_patch).together(), tmp_path)


@pytest.mark.parametrize("name", ["format version 99", "no segments"])
def test_new_folder_is_not_made(name, tmp_path):
    (tmp_path / "patch").write_bytes(ATTACKS[name](scene().patch).together())
    with pytest.raises(BundleError, match=r"makes no bundle that runs here .*new/manifest\.json"):
        apply_delta(scene().old, tmp_path / "patch", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["patch"]


@pytest.mark.parametrize("seed", [1, 2])
def test_some_mutants(seed, tmp_path):
    """A short run of what `python -m benchmarks.fuzz_readers` does at length."""
    refused = 0
    for number, mutant in enumerate(mutants(seed, 40)):
        refused += is_refused(apply_in_place, mutant, tmp_path / f"both{number}")
    for number, mutant in enumerate(device_mutants(seed, 40)):
        refused += is_refused(apply_to_packed, mutant, tmp_path / f"one{number}")
    assert refused > 40


def is_refused(read: Callable[[bytes, Path], object], mutant: bytes, folder: Path) -> bool:
    folder.mkdir()
    try:
        read(mutant, folder)
    except BundleError:
        return True
    return False


def limited(limit: str, size: int, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    """The command line in a process that may not have more than `size` bytes of a resource."""
    program = (
        "import resource, sys; from irsplit.cli import main;"
        f"resource.setrlimit(resource.{limit}, ({size}, {size})); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "name", ["a header of 40 MB", "a block that announces 2^45 bytes", "a file of 2^60 bytes"]
)
def test_attacks_take_little_memory(name, tmp_path):
    bundle, patch = tmp_path / "bundle", tmp_path / "patch"
    shutil.copytree(scene().old, bundle)
    patch.write_bytes(ATTACKS[name](scene().patch).together())
    done = limited("RLIMIT_DATA", 512 << 20, "apply", bundle, patch, "-o", bundle)
    assert done.returncode == 2, done.stderr
    assert "impossible contents (" in done.stderr
    assert "Memory" not in done.stderr


def old_with(tmp_path: Path, make: Callable[[Path], object]) -> Path:
    """The old bundle, with something else instead of the device's model, which a patch copies."""
    bundle = tmp_path / "old"
    shutil.copytree(scene().old, bundle)
    model = bundle / "device" / "model.onnx"
    model.unlink()
    make(model)
    return bundle


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "outside of the bundle"),
        (lambda path: path.symlink_to(path.name), "model.onnx"),
        (os.mkfifo, "missing from the bundle"),
        (Path.mkdir, "missing from the bundle"),
        (lambda path: path.symlink_to("/dev/zero"), "outside of the bundle"),
        (
            lambda path: path.symlink_to("../server/model.onnx"),
            "differs from what the patch was made for",
        ),
    ],
    ids=[
        "link outside",
        "link in a circle",
        "pipe",
        "folder",
        "endless device",
        "link to another file",
    ],
)
def test_only_regular_files_of_the_old_bundle_are_read(make, message, tmp_path):
    bundle = old_with(tmp_path, make)
    (tmp_path / "patch").write_bytes(scene().patch.together())
    with pytest.raises(BundleError, match=message):
        apply_delta(bundle, tmp_path / "patch", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "patch"]


def test_room_is_looked_for_before_the_first_byte(tmp_path, monkeypatch):
    def run_never(*_: object) -> None:
        raise AssertionError("a file was begun")

    (tmp_path / "patch").write_bytes(scene().patch.together())
    usage = shutil.disk_usage(tmp_path)
    needed = sum(len(data) for name, data in contents(scene().new).items() if name != MANIFEST)
    monkeypatch.setattr(irsplit.runtime.bundle.patch._Rebuild, "run", run_never)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=(1 << 20) + needed - 1))
    with pytest.raises(
        BundleError, match=rf"needs {needed} bytes of room and \d+ are free; make room for it"
    ):
        apply_delta(scene().old, tmp_path / "patch", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["patch"]


def test_disk_that_is_full_all_the_same_leaves_the_old_build(tmp_path):
    """The limit on the size of files stands for a disk that somebody else fills meanwhile."""
    bundle, patch = tmp_path / "bundle", tmp_path / "patch"
    shutil.copytree(scene().old, bundle)
    patch.write_bytes(scene().patch.together())
    done = limited("RLIMIT_FSIZE", 2048, "apply", bundle, patch, "-o", bundle)
    assert done.returncode == 2
    assert "cannot be written: File too large" in done.stderr
    assert contents(bundle) == contents(scene().old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "patch"]


def test_patch_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "patch")
    with pytest.raises(BundleError, match="is no file; give a patch"):
        apply_delta(scene().old, tmp_path / "patch", tmp_path / "new")
    with pytest.raises(BundleError, match="No such file"):
        apply_delta(scene().old, tmp_path / "nothing", tmp_path / "new")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\0",
        "a\n",
        "x" * 256,
        "x/" * 600 + "x",
        7,
        None,
    ],
)
def test_names_that_leave_a_bundle(name):
    with pytest.raises(ValueError):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["device/model.onnx", "server/model.onnx.data", "a b/ä.onnx", "..a/b..", "x" * 255]
)
def test_names_that_do_not(name):
    assert check_name(name) == name


def changed_manifest(tmp_path: Path, change: Callable[[dict[str, object]], object]) -> Path:
    bundle = tmp_path / "bundle"
    shutil.copytree(scene().old, bundle)
    data = dict(Manifest.load(bundle).raw)
    change(data)
    (bundle / MANIFEST).write_text(manifest_text(data), encoding="utf-8")
    return bundle


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(name=7),
        lambda data: data.update(digest="../../x"),
        lambda data: data["files"].update({"/etc/passwd": "0" * 64}),
        lambda data: data["files"].update({"device/x": None}),
        lambda data: data["files"].update({f"device/{number}": "0" * 64 for number in range(5000)}),
        lambda data: data["segments"][0].update(file="../../etc/passwd"),
        lambda data: data["segments"][0].update(file=["device/model.onnx"]),
        lambda data: data["segments"][0].update(copies={"server": "/etc/passwd"}),
        lambda data: data["boundaries"][0]["descriptor"].update(device="/etc/passwd"),
    ],
)
def test_manifest_names_files_of_its_bundle_alone(change, tmp_path):
    bundle = changed_manifest(tmp_path, change)
    with pytest.raises(BundleError, match="damaged manifest"):
        Manifest.load(bundle)


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/b", "a\nb", ""])
def test_packed_files_stay_in_their_folder(name, tmp_path):
    bundle = changed_manifest(tmp_path, lambda data: data.update(name=name))
    with pytest.raises(BundleError, match="is none of a file"):
        pack_bundle(bundle, tmp_path / "folder" / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def repacked(path: Path, change: Callable[[zipfile.ZipInfo], object]) -> Path:
    """The packed side again, the heads of its members changed."""
    with zipfile.ZipFile(scene().packed) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            change(info)
            target.writestr(info, data)
    return path


def test_packed_side_that_unpacks_to_links_is_refused(tmp_path):
    def as_link(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o120777 << 16 if info.filename != MANIFEST else info.external_attr

    with pytest.raises(BundleError, match="is a link or a device"):
        PackedSide(repacked(tmp_path / "side.irsb", as_link))


def test_packed_side_whose_members_overlap_is_refused(tmp_path):
    """1 000 entries for the same bytes: who sums digests would read them 1 000 times."""
    data = scene().packed.read_bytes()
    with zipfile.ZipFile(scene().packed) as archive:
        start, infos = archive.start_dir, archive.infolist()
    end = data.rindex(b"PK\5\6")
    directory, again = data[start:end], 1000
    tail = bytearray(data[end:])
    tail[8:12] = (len(infos) * again).to_bytes(2, "little") * 2
    tail[12:16] = (len(directory) * again).to_bytes(4, "little")
    (tmp_path / "side.irsb").write_bytes(data[:start] + directory * again + tail)
    with pytest.raises(BundleError, match="overlap"):
        PackedSide(tmp_path / "side.irsb")


def test_packed_side_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "side.irsb")
    with pytest.raises(BundleError, match="is no file"):
        PackedSide(tmp_path / "side.irsb")


def test_delta_keeps_the_limits_of_apply(tmp_path, monkeypatch):
    monkeypatch.setattr(irsplit.compilation.delta, "LARGEST_FILE", 10_000)
    with pytest.raises(BundleError, match="too large for a patch"):
        write_delta(scene().old, scene().new, tmp_path / "patch")
    monkeypatch.setattr(irsplit.compilation.delta, "LARGEST_FILE", 1 << 30)
    monkeypatch.setattr(irsplit.compilation.delta, "LARGEST_HEADER", 100)
    with pytest.raises(BundleError, match=r"manifest\.json: too large for a patch"):
        write_delta(scene().old, scene().new, tmp_path / "patch")
    assert not list(tmp_path.iterdir())
    assert not (scene().new / SIGNATURE).exists()
