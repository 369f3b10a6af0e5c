"""Damaged, odd or hostile files: a reader refuses them in one line, or its result holds."""

import io
import json
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
from hostile import bundles, inputs, profiles, texts
from hostile.asking import DIGITS
from hostile.target import Target
from irsplit.base import entry_points as offers
from irsplit.base import reading
from irsplit.base.digests import Digests
from irsplit.base.errors import BundleError, EngineError, IrsplitError, PlanError
from irsplit.cli import main
from irsplit.commands.progress import progress
from irsplit.commands.terminal import escaped, message, one_line
from irsplit.runtime import connect
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.state import StateInfo, StateValues
from irsplit.runtime.serving.server.hosted import HostedBundle
from irsplit.runtime.serving.server.server import ServerOptions, load_bundles
from test_progress import terminal

TARGETS = [target for module in (bundles, inputs, profiles, texts) for target in module.TARGETS]
IMAGE = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutants_are_refused_or_hold(target: Target, tmp_path: Path) -> None:
    refused = 0
    for index, mutant in enumerate(target.mutants(7, 12)):
        folder = tmp_path / str(index)
        folder.mkdir()
        try:
            target.read(mutant, folder)
        except target.refusals:
            refused += 1
    assert refused, "some of a dozen mutants are wrong"


# -- damaged weights -------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The digits; `damaged` makes other weights of it."""
    return Path(shutil.copytree(bundles.bundle(), tmp_path / "bundle"))


def flip_weights(file: Path, model: Path) -> None:
    """Change 400 bytes of the largest weights of `model`, which lies in `file` as it is."""
    constants = [
        value.constant
        for value in irsplit.read_model(model).entry.constants
        if value.constant is not None
    ]
    largest = max(constants, key=lambda constant: constant.length)
    data = bytearray(file.read_bytes())
    start = bytes(data).find(model.read_bytes()) + largest.offset
    for position in random.Random(1).sample(range(start, start + largest.length), 400):
        data[position] ^= 0x55
    file.write_bytes(data)


def test_damaged_weights_do_not_run(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bundle / "server" / "model.onnx"
    flip_weights(model, model)
    np.save(bundle / "image.npy", IMAGE)
    assert main(["run", str(bundle), "--input", f"image={bundle / 'image.npy'}"]) == 2
    printed = capsys.readouterr()
    assert (
        printed.err
        == f"error: {model}: changed since it was compiled; copy or compile the bundle again\n"
    )
    assert printed.out == ""
    for opened in (irsplit.ServerSession, irsplit.LocalSession):
        with pytest.raises(BundleError, match="changed since it was compiled"):
            opened(bundle)


def test_a_side_answers_for_its_own_files_alone(bundle: Path) -> None:
    flip_weights(bundle / "server" / "model.onnx", bundle / "server" / "model.onnx")
    frame = irsplit.DeviceSession(bundle).start({"image": IMAGE})
    right = irsplit.ServerSession(bundles.bundle()).resume(frame)["logits"]
    trusting = irsplit.ServerSession(bundle, verify_digests=False)
    assert not np.array_equal(trusting.resume(frame)["logits"], right)


def test_servers_do_not_open_damaged_weights(bundle: Path) -> None:
    flip_weights(bundle / "server" / "model.onnx", bundle / "server" / "model.onnx")
    with pytest.raises(BundleError, match="changed since it was compiled"):
        load_bundles([str(bundle)], ServerOptions())
    with pytest.raises(BundleError, match="changed since it was compiled"):
        HostedBundle(bundle, "digits")


def test_clients_do_not_open_damaged_weights(bundle: Path) -> None:
    flip_weights(bundle / "device" / "model.onnx", bundle / "device" / "model.onnx")
    with pytest.raises(BundleError, match="changed since it was compiled"):
        connect("http://127.0.0.1:9", bundle)
    connect("http://127.0.0.1:9", bundle, verify_digests=False).close()


def test_damaged_packed_sides_do_not_run(bundle: Path, tmp_path: Path) -> None:
    packed = next(path for path in irsplit.pack_bundle(bundle, tmp_path) if "server" in path.name)
    flip_weights(packed, bundle / "server" / "model.onnx")
    with pytest.raises(
        BundleError, match=r"server.irsb/server/model.onnx: changed since it was compiled"
    ):
        irsplit.ServerSession(packed)
    irsplit.ServerSession(packed, verify_digests=False)


def test_a_file_without_a_digest_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["server/model.onnx"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"no digest of server/model.onnx"):
        irsplit.LocalSession(bundle)


def test_linked_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    plain: Callable[[Digests, Path], str] = Digests._digest_of_file
    monkeypatch.setattr(
        Digests, "_digest_of_file", lambda self, path: read.append(path) or plain(self, path)
    )
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with Digests() as digests:
        first, second, third = digests.of([tmp_path / "a", tmp_path / "b", memoryview(b"weights")])
    assert first == second == third
    assert len(read) == 1


def test_a_manifest_whose_segments_do_not_fit_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["segments"][1]["inputs"] = ["nowhere"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        BundleError, match="segment 'server' reads 'nowhere', which nothing before it gives"
    ):
        Manifest.load(bundle)


def test_a_manifest_names_nothing_outside(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    for name in (
        "/etc/passwd",
        "../x",
        "device/../../x",
        "device/\\u0000",
        "device/" + "x" * 300,
        "",
    ):
        (bundle / "manifest.json").write_text(text.replace("server/model.onnx", name))
        with pytest.raises(BundleError, match="is no name of a file in a bundle"):
            Manifest.load(bundle)


def test_a_state_larger_than_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"state 'h' of shape \[1152921504606846976, 16\] is too large"
    ):
        StateValues([StateInfo("h", "g", "f32", (1 << 60, 16))])


# -- one line --------------------------------------------------------------------------------------


def archive(tmp_path: Path) -> bytes:
    np.savez_compressed(tmp_path / "whole.npz", image=IMAGE)
    return (tmp_path / "whole.npz").read_bytes()


FILES: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "cut.npy": (
        "run BUNDLE --input image=FILE",
        lambda _: b"\x93NUMPY\1\0\x76\0{'descr'",
        "numpy arrays",
    ),
    "cut.npz": (
        "compile MODEL -o OUT --calibration FILE",
        lambda at: archive(at)[:-30],
        "numpy arrays",
    ),
    "half.npz": (
        "compile MODEL -o OUT --calibration FILE",
        lambda at: archive(at)[:90] + bytes(20) + archive(at)[110:],
        "numpy arrays",
    ),
    "endless.toml": (
        "plan MODEL --device FILE",
        lambda _: b"x" * (reading.LARGEST_TEXT + 2),
        "more than 67108864",
    ),
    "deep.toml": ("plan MODEL --link FILE", lambda _: b"a = " + b"[" * 5000, "nested too deeply"),
    "number.toml": (
        "compile FILE",
        lambda _: b"[targets.a]\nmodel = " + b"9" * 5000,
        "Exceeds the limit",
    ),
    "zero.toml": (
        "compile FILE",
        lambda _: b'[targets.a]\nmodel = "a\\u0000b"',
        "character of code 0",
    ),
    "deep.json": ("plan MODEL --device FILE", lambda _: b"[" * 200_000, "nested too deeply"),
    "binary.json": ("plan MODEL --device FILE", lambda _: b"\xff\xfe\0", "no UTF-8 text at byte 0"),
    "nan.json": (
        "bench MODEL --cuts 4 --baseline FILE",
        lambda _: b'{"format": NaN}',
        "this is not irsplit-bench/1",
    ),
    "deep.irs": (
        "opt FILE",
        lambda _: b"graph @g() { test.a()" + b" with { graph @b() { test.a()" * 5000,
        "nested deeper than 100",
    ),
    "string.irs": (
        "opt FILE",
        lambda _: b'graph @"\\q"() {}',
        "line 1, column 8: not a string",
    ),
    "cut.wav": (
        "run BUNDLE --input image=FILE",
        lambda _: b"RIFF\x24\0\0\0WAVEfmt \x10",
        "a wave file",
    ),
    "cut.png": (
        "run BUNDLE --input image=FILE",
        lambda _: b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13),
        "an image",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, make, text = FILES[name]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    known = {"MODEL": DIGITS, "BUNDLE": bundles.bundle(), "OUT": tmp_path / "out"}
    words = [str(known.get(word, word)).replace("FILE", str(path)) for word in command.split()]
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {path}: ")
    assert text in lines[0]
    assert not (tmp_path / "out").exists()


def test_calibration_without_a_range_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "nan.npy", np.full((2, 1, 16, 16), np.nan, np.float32))
    words = [
        "compile",
        DIGITS,
        "-o",
        tmp_path / "out",
        "--quantize",
        "int8",
        "--calibration",
        tmp_path / "nan.npy",
    ]
    assert main([str(word) for word in words]) == 2
    assert "make %bottleneck/relu NaN or infinite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--link wifi,up=1e999999999Mbit/s",
        "--limit memory=1e300MB",
        "--load 99999999999999999999",
    ],
)
def test_numbers_beyond_reason_are_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(DIGITS), *words.split()]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_inputs_beyond_memory_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for size in ("999999999999", "99999999999999999999"):
        assert (
            main(
                [
                    "verify",
                    str(bundles.bundle()),
                    "--model",
                    str(DIGITS),
                    "--dim",
                    f"image.0={size}",
                ]
            )
            == 2
        )
        assert capsys.readouterr().err.startswith("error: inputs are too large to be made up")


def test_a_plugin_that_cannot_be_imported_is_named() -> None:
    class Point:
        name, value = "mine", "package:Pass"

        def load(self) -> Any:
            raise ZeroDivisionError("in\nits module")

    point: Any = Point()
    with pytest.raises(
        IrsplitError, match="the pass 'mine' of package:Pass cannot be loaded: in its module"
    ):
        offers.load(point, "pass")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RecursionError("maximum recursion depth"), "x: broken (nested too deeply); mend it"),
        (MemoryError(), "x: broken (needs more memory than there is); mend it"),
        (OverflowError("too\nlarge"), "x: broken (too large); mend it"),
        (PermissionError(13, "Permission denied"), "x: cannot be read: Permission denied; mend it"),
        (
            UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "bad"),
            "x: broken (no UTF-8 text at byte 1); mend it",
        ),
        (struct.error("short"), "x: broken (short); mend it"),
        (KeyError("name"), "x: broken (no 'name'); mend it"),
        (EOFError(), "x: broken (EOFError); mend it"),
    ],
)
def test_a_boundary_says_what_it_met(error: Exception, text: str) -> None:
    with pytest.raises(PlanError) as caught, reading.reading("x", "broken", "mend it", PlanError):
        raise error
    assert str(caught.value) == text


def test_a_boundary_leaves_defects_and_our_own_errors_alone() -> None:
    with (
        pytest.raises(EngineError, match="as it is"),
        reading.reading("x", "broken", "mend it", PlanError),
    ):
        raise EngineError("as it is")
    with pytest.raises(AssertionError), reading.reading("x", "broken", "mend it", PlanError):
        raise AssertionError


# -- control characters ----------------------------------------------------------------------------


def test_nothing_in_a_bundle_steers_a_terminal(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["name"] = "\x1b[2J\x9b\u202e\x7f"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert main(["inspect", str(bundle)]) == 0
    assert "bundle \\u001b[2J\\u009b\\u202e\\u007f (" in capsys.readouterr().out
    assert main(["inspect", str(bundle), "--json"]) == 0
    printed = capsys.readouterr().out
    assert "\x9b" not in printed
    assert json.loads(printed) == manifest, "JSON says the same"


def test_an_error_is_one_line_that_steers_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\x1b]0;x\x07\nerror: b.onnx"
    assert main(["cuts", str(path)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/a\\u001b]0;x\\u0007\\nerror: b.onnx: no such file\n"
    )


def test_lines_above_a_bar_steer_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with progress() as told:
        told(0, 2, "part \x1b]0;title\x07")
        print("remark \x1b]0;title\x07", file=sys.stderr)
    drawn = screen.getvalue()
    assert "part \\u001b]0;title\\u0007" in drawn
    assert "remark \\u001b]0;title\\u0007" in drawn
    assert "\x1b]0;" not in drawn


def test_escapes() -> None:
    assert escaped("a\tb\nc\r\ud800é") == "a\tb\nc\\u000d\\ud800é"
    assert one_line("a\tb\nc") == "a\\tb\\nc"
    assert message("a\nb\n  in graph @g") == "a\\nb\n  in graph @g"
    assert escaped(io.StringIO("plain").read()) == "plain"
