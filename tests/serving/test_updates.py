"""A device asks its server for an update: nothing, a patch or the build; links break."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import irsplit.runtime
from benchmarks.link import Proxy
from irsplit.base.errors import BundleError, DeadlineError, RemoteError
from irsplit.cli import main
from irsplit.compilation.delta import write_delta
from irsplit.compilation.old_names import pack_bundle
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.serving.client import update as update_module
from irsplit.runtime.serving.client.transport import HttpTransport
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving
from test_delta import MODEL, build, contents, retrained

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("builds")
    moved = retrained(folder / "digits.onnx", 1e-3)
    (folder / "elsewhere").mkdir()
    other = retrained(folder / "elsewhere" / "digits.onnx", 0.5)
    return {
        "old": build(MODEL, folder / "old"),
        "new": build(moved, folder / "new"),
        "other": build(other, folder / "other"),
    }


@pytest.fixture(scope="module")
def server(builds: dict[str, Path]) -> Iterator[Server]:
    words = [f"digits={builds[name]}" for name in ("old", "new")]
    with serving(words, ServerOptions(port=0, http_port=0, token=TOKEN), write_delta) as server:
        yield server


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.http_port}"


def device_side(bundle: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(bundle).items() if not name.startswith("server/")}


def device_with(bundle: Path, folder: Path) -> Path:
    """A device that has its side of a bundle."""
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("server"))
    return folder


def test_old_build_gets_a_patch_and_then_nothing(server, builds, tmp_path):
    device = device_with(builds["old"], tmp_path / "device")
    done = irsplit.runtime.update(url(server), device, token=TOKEN)
    assert (done.changed, done.new) == (True, Manifest.load(builds["new"]).digest)
    assert contents(device) == device_side(builds["new"])
    assert irsplit.runtime.update(url(server), device, token=TOKEN) == irsplit.runtime.Update(
        done.new, done.new, 0
    )
    assert [path.name for path in tmp_path.iterdir()] == ["device"]


def test_a_packed_side_stays_one(server, builds, tmp_path):
    device, _ = pack_bundle(builds["old"], tmp_path / "old")
    expected, _ = pack_bundle(builds["new"], tmp_path / "new")
    done = irsplit.runtime.update(url(server), device, token=TOKEN)
    assert device.read_bytes() == expected.read_bytes()
    assert irsplit.runtime.update(url(server), device, token=TOKEN) == irsplit.runtime.Update(
        done.new, done.new, 0
    )
    irsplit.runtime.update(url(server), tmp_path / "first.irsb", name="digits", token=TOKEN)
    assert (tmp_path / "first.irsb").read_bytes() == expected.read_bytes()


def test_a_file_that_is_no_bundle_is_refused(server, tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(BundleError, match="neither the folder of a bundle nor a packed side"):
        irsplit.runtime.update(url(server), tmp_path / "model.onnx", name="digits", token=TOKEN)


@pytest.mark.parametrize("has", ["nothing", "a build that the server has not"])
def test_others_get_the_whole_build(has, server, builds, tmp_path):
    device = (
        tmp_path / "device"
        if has == "nothing"
        else device_with(builds["other"], tmp_path / "device")
    )
    done = irsplit.runtime.update(url(server), device, name="digits", token=TOKEN)
    assert contents(device) == device_side(builds["new"])
    patch = irsplit.runtime.update(
        url(server), device_with(builds["old"], tmp_path / "second"), token=TOKEN
    )
    assert patch.received_bytes < done.received_bytes


def test_both_sides_when_both_are_there(server, builds, tmp_path):
    shutil.copytree(builds["old"], tmp_path / "bundle")
    irsplit.runtime.update(url(server), tmp_path / "bundle", token=TOKEN)
    assert contents(tmp_path / "bundle") == contents(builds["new"])


def test_link_that_breaks_costs_only_the_piece_under_way(server, builds, tmp_path, monkeypatch):
    monkeypatch.setattr(update_module, "_PIECE_BYTES", 4096)
    monkeypatch.setattr(update_module, "_FIRST_PAUSE_S", 0.01)
    device = device_with(builds["old"], tmp_path / "device")
    pieces: list[int] = []
    plain = HttpTransport.get

    def get(self: HttpTransport, path: str, headers: dict[str, str], timeout_s: float) -> Any:
        pieces.append(int(headers["range"].removeprefix("bytes=").partition("-")[0]))
        if len(pieces) in (3, 9):
            proxy.cut()
        if len(pieces) in (5, 11):
            proxy.mend()
        status, given, body = plain(self, path, headers, timeout_s)
        damaged = bytes([body[0] ^ 1]) + body[1:] if len(pieces) % 4 == 0 else body
        return status, given, damaged

    monkeypatch.setattr(HttpTransport, "get", get)
    with Proxy(server.http_port).running() as proxy:
        done = irsplit.runtime.update(
            f"http://127.0.0.1:{proxy.port}", device, token=TOKEN, timeout_s=60
        )
    assert done.changed
    assert contents(device) == device_side(builds["new"])
    assert pieces == sorted(pieces)
    assert len(pieces) > len(set(pieces)) + 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"token": "guess"}, RemoteError, "token is missing or wrong"),
        ({"name": "nobody"}, RemoteError, "update: no bundle 'nobody'"),
        ({"place": "moon"}, RemoteError, "no place 'moon'"),
        ({"url": "grpc://127.0.0.1:1"}, RemoteError, "over HTTP"),
        (
            {"url": "http://127.0.0.1:9", "timeout_s": 0.3},
            DeadlineError,
            "in time .*refused; nobody listens there",
        ),
    ],
)
def test_refusals_leave_the_old_build(changes, error, message, server, builds, tmp_path):
    device = device_with(builds["old"], tmp_path / "device")
    asked: dict[str, Any] = {"url": url(server), "bundle": device, "token": TOKEN, **changes}
    with pytest.raises(error, match=message):
        irsplit.runtime.update(**asked)
    assert contents(device) == device_side(builds["old"])
    assert [path.name for path in tmp_path.iterdir()] == ["device"]


def test_new_device_must_say_what_it_wants(server, tmp_path):
    with pytest.raises(BundleError, match="give the name"):
        irsplit.runtime.update(url(server), tmp_path / "device")


def test_a_place_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        BundleError, match=r"cannot be written: .*; give a place with room, that you may write"
    ):
        irsplit.runtime.update(
            url(server), tmp_path / "file" / "device", name="digits", token=TOKEN
        )


def test_server_with_its_own_side_alone_hands_out_nothing(builds, tmp_path):
    shutil.copytree(builds["new"], tmp_path / "new", ignore=shutil.ignore_patterns("device"))
    options = ServerOptions(port=0, http_port=0)
    with (
        serving([f"digits={tmp_path / 'new'}"], options, write_delta) as server,
        pytest.raises(RemoteError, match="cannot be handed out"),
    ):
        irsplit.runtime.update(url(server), tmp_path / "device", name="digits")


def test_patch_that_could_not_be_made_is_made_for_the_next_device(builds, tmp_path):
    failures = [RuntimeError("the disk of the server is full")]

    def make(*arguments: Any) -> object:
        if failures:
            raise failures.pop()
        return write_delta(*arguments)

    device = device_with(builds["old"], tmp_path / "device")
    with serving([f"digits={builds['new']}"], ServerOptions(port=0, http_port=0), make) as server:
        with pytest.raises(RemoteError, match="hands out no update"):
            irsplit.runtime.update(url(server), device)
        assert irsplit.runtime.update(url(server), device).changed


def test_command(server, builds, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IRSPLIT_TOKEN", TOKEN)
    device = device_with(builds["old"], tmp_path / "device")
    words = ["update", str(device), "--from", url(server)]
    assert main(words) == 0
    assert f"-> {Manifest.load(builds['new']).digest[:16]}" in capsys.readouterr().out
    assert main(words) == 0
    assert "is the latest" in capsys.readouterr().out


def test_command_says_at_once_that_nobody_answers(builds, capsys):
    assert (
        main(["update", str(builds["old"]), "--from", "http://127.0.0.1:9", "--timeout", "0.6"])
        == 2
    )
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("note: http://127.0.0.1:9: ConnectionRefusedError")
    assert "nobody listens there" in note
    assert note.endswith("; asking again for 1 s (--timeout)")
    assert error.startswith("error: the update did not arrive in time")


NOT_NEEDED = """
import sys
import irsplit.runtime
irsplit.runtime.update
unwanted = {"onnx", "tflite", "flatbuffers", "grpc", "prometheus_client", "google"}
print(sorted(unwanted & set(sys.modules)))
"""


def test_device_needs_neither_dialects_nor_grpc():
    done = subprocess.run(
        [sys.executable, "-c", NOT_NEEDED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
