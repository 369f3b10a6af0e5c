"""A bundle is replaced whole or not at all, wherever the process that writes it dies."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import irsplit
from irsplit.base import atomic_files as folders
from irsplit.base.atomic_files import exchange
from irsplit.base.errors import BundleError, EngineError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import DEFAULT_OPTIONS
from irsplit.runtime.run.segments import open_segment_of

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
TESTS = Path(__file__).parent


def recompile(folder: str) -> None:
    """What the dying process does: another bundle over the one in `folder`."""
    irsplit.compile_model(
        EXAMPLE / "digits.onnx", Path(folder) / "bundle", ["down/relu"], remember=False
    )


def first_compile(folder: str) -> None:
    irsplit.compile_model(
        EXAMPLE / "digits.onnx", Path(folder) / "bundle", ["expand/relu"], remember=False
    )


def attempts(function: str, tmp_path: Path, *, prepared: bool) -> list[Path]:
    """The folders of an attempt for each operation on files, and of one that came through."""
    for number in range(1, 60):
        (tmp_path / f"run{number}").mkdir()
        if prepared:
            shutil.copytree(tmp_path / "old", tmp_path / f"run{number}" / "bundle")
    command = [
        sys.executable,
        TESTS / "dying.py",
        f"test_bundle_replace:{function}",
        f"{tmp_path}/run{{}}",
        "{}",
    ]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return [tmp_path / f"run{line.split()[0]}" for line in done.stdout.splitlines()]


def left_by_a_later_run(folder: Path) -> list[str]:
    """What lies in a folder after another compilation, long after the one that was killed there."""
    first_compile(str(folder))
    return sorted(path.name for path in folder.iterdir())


def test_killed_at_every_step_of_a_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = irsplit.compile_model(
        EXAMPLE / "digits.onnx", tmp_path / "old", ["bottleneck/relu"]
    ).manifest.digest
    new = irsplit.compile_model(
        EXAMPLE / "digits.onnx", tmp_path / "new", ["down/relu"]
    ).manifest.digest
    found: list[str] = []
    for folder in attempts("recompile", tmp_path, prepared=True):
        manifest = Manifest.load(folder / "bundle")
        manifest.check_files()
        assert all((manifest.folder / file).is_file() for file in manifest.files)
        found.append(manifest.digest)
    assert len(found) > 12
    assert set(found) == {old, new}
    assert found == sorted(found, key=[old, new].index), "an old bundle after a new one"
    left = [folder for folder in tmp_path.glob("run*") if len(list(folder.iterdir())) > 1]
    assert len(left) > 5, "killed processes leave unfinished folders"
    assert all(len(left_by_a_later_run(folder)) > 1 for folder in left[:1]), (
        "which may still be in use"
    )
    monkeypatch.setattr(folders, "_STALE_S", 0.0)
    assert all(left_by_a_later_run(folder) == ["bundle"] for folder in left[:4])


def test_what_another_process_is_writing_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_STALE_S", 0.0)
    (tmp_path / ".bundle.settings").mkdir()
    (tmp_path / ".bundle.settings" / "of-the-user").touch()
    with folders.new_folder(tmp_path / "bundle") as building:
        first_compile(str(tmp_path))
        assert building.is_dir()
        shutil.copytree(tmp_path / "bundle", building, dirs_exist_ok=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bundle.settings", "bundle"]


def test_unfinished_files_are_cleared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".patch.irsplit-abcdefgh").write_bytes(b"half")
    for stale_s, names in ((60.0, [".patch.irsplit-abcdefgh", "patch"]), (0.0, ["patch"])):
        monkeypatch.setattr(folders, "_STALE_S", stale_s)
        folders.write_file(tmp_path / "patch", lambda file: file.write(b"whole"))
        assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_killed_at_every_step_of_a_first_bundle(tmp_path: Path) -> None:
    found = attempts("first_compile", tmp_path, prepared=False)
    whole = [folder for folder in found if (folder / "bundle").exists()]
    assert found[-1] in whole
    assert len(found) > 10
    for folder in whole:
        Manifest.load(folder / "bundle").check_files()


def test_without_an_exchange_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    first_compile(str(tmp_path))
    recompile(str(tmp_path))
    assert Manifest.load(tmp_path / "bundle").boundaries[0].name == "down/relu"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_exchange(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text(name)
    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip(
            "THIS FILE SYSTEM CANNOT EXCHANGE FOLDERS: bundles are replaced in two steps here"
        )
    assert (tmp_path / "one" / "text").read_text() == "other"
    assert (tmp_path / "other" / "text").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "missing")


@pytest.mark.parametrize("name", ["digits.onnx", "digits.tflite"])
def test_a_bundle_that_is_replaced_while_it_is_open_is_not_mixed(name, tmp_path):
    irsplit.compile_model(EXAMPLE / name, tmp_path / "bundle", ["bottleneck/relu"])
    session = irsplit.DeviceSession(tmp_path / "bundle")
    irsplit.compile_model(EXAMPLE / name, tmp_path / "bundle", ["down/relu"])
    with pytest.raises(BundleError, match="was replaced while it was in use"):
        open_segment_of(session.manifest, 0, DEFAULT_OPTIONS)
    if name.endswith("tflite"):
        with pytest.raises(EngineError, match="was replaced while it was in use"):
            session.reset()
