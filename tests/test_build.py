"""Build pipelines: irsplit.toml, cache, logs, depfiles for make and ninja, the same bytes."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irsplit.base.errors import VERSION, ParseError
from irsplit.cli import main
from irsplit.compilation.build import BuildFile
from irsplit.compilation.depfile import read_depfile, write_depfile
from tools import needs

EXAMPLES = Path(__file__).parent.parent / "examples"
DIGITS = EXAMPLES / "digits"
BUILD_FILE = """
[defaults]
codec = "raw"
[targets.one]
model = "digits.onnx"
cut = ["bottleneck/relu"]
[targets.two]
model = "digits.tflite"
quantize = "int8"
calibration = ["calibration.npy"]
"""

VERIFIED = """
[targets.two]
model = "digits.tflite"
quantize = "int8"
calibration = ["calibration.npy"]
verify = {{min-snr = {}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("digits.onnx", "digits.tflite"):
        shutil.copy(DIGITS / name, tmp_path / name)
    np.save(tmp_path / "calibration.npy", np.zeros((2, 16, 16, 1), np.float32))
    (tmp_path / "irsplit.toml").write_text(BUILD_FILE)
    return tmp_path


def build(
    project: Path, capfd: pytest.CaptureFixture[str], *words: object, code: int = 0
) -> dict[str, list[str]]:
    """Events of each target, from the log of a build."""
    assert main(["compile", str(project / "irsplit.toml"), "--log-json", *map(str, words)]) == code
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    events = [
        event for event in events if event["event"] != "remark"
    ]  # what passes say is not the cache's affair
    names = {event["target"] for event in events if "target" in event}
    return {
        name: [event["event"] for event in events if event.get("target") == name] for name in names
    }


MADE, FRESH = ["start", "done"], ["fresh"]


def test_only_what_changed_is_made_again(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert build(project, capfd, "--jobs", 2) == {"one": MADE, "two": MADE}
    assert build(project, capfd) == {"one": FRESH, "two": FRESH}
    os.utime(project / "digits.onnx", ns=(1, 1))
    assert build(project, capfd) == {"one": FRESH, "two": FRESH}, "the same bytes at another time"
    shutil.rmtree(project / "build" / "one")
    np.save(project / "calibration.npy", np.ones((2, 16, 16, 1), np.float32))
    assert build(project, capfd) == {"one": MADE, "two": MADE}
    (project / "irsplit.toml").write_text(BUILD_FILE.replace('"raw"', '"zstandard"', 1))
    assert build(project, capfd, "--target", "one") == {"one": MADE}
    manifest = json.loads((project / "build" / "one" / "manifest.json").read_text())
    assert manifest["boundaries"][0]["codec"] == ["zstandard"]


def test_one_that_fails_does_not_stop_the_others(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "digits.tflite").write_bytes(b"no model")
    assert build(project, capfd, code=2) == {"one": MADE, "two": ["start", "error"]}
    assert not (project / "build" / "two").exists()
    assert main(["compile", str(project / "irsplit.toml"), "--target", "two"]) == 2
    assert re.search(r"^two: error: digits\.tflite: ", capfd.readouterr().err, re.MULTILINE)


def test_a_bundle_that_does_not_hold_leaves_the_old_one(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "irsplit.toml").write_text(VERIFIED.format("-100.0"))
    assert build(project, capfd) == {"two": ["start", "verified", "done"]}
    assert build(project, capfd) == {"two": FRESH}
    old = (project / "build" / "two" / "manifest.json").read_bytes()
    (project / "irsplit.toml").write_text(VERIFIED.format("300.0").replace("int8", "int4"))
    assert build(project, capfd, code=1) == {"two": ["start", "error"]}
    assert (project / "build" / "two" / "manifest.json").read_bytes() == old
    assert sorted(path.name for path in (project / "build").iterdir()) == [".two.stamp", "two"]
    assert main(["compile", str(project / "irsplit.toml")]) == 1
    told = capfd.readouterr().err
    assert re.search(
        r"^two: error: verify: %.* dB, and at least 300 dB are asked for", told, re.MULTILINE
    )


def test_verification_in_a_build_file_is_checked_first(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for options, said in {
        "{min-snr = 'loud'}": "argument --min-snr: invalid float value",
        "{min-snrs = 3}": "no option 'min-snrs' of verify; 'irsplit verify --help' lists them",
        "{model = 'x'}": "'model' of verify is the target's own",
        "3": "verify must be true or a table",
    }.items():
        (project / "irsplit.toml").write_text(VERIFIED.replace("{{min-snr = {}}}", options))
        assert main(["compile", str(project / "irsplit.toml")]) == 2
        assert said in capfd.readouterr().err
        assert not (project / "build").exists()


def test_warnings_are_errors_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "compile",
        str(DIGITS / "digits.onnx"),
        "-o",
        str(tmp_path / "bundle"),
        "--cut",
        "down/relu",
    ]
    assert main([*words, "--werror", "--log-json"]) == 2
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "error"
    assert "check-boundary: segment @device sends" in event["text"]
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--log-json"]) == 0
    remark, done = map(json.loads, capsys.readouterr().err.splitlines())
    assert (remark["event"], remark["warning"]) == ("remark", True)
    assert (done["event"], done["bundle"]) == ("done", str(tmp_path / "bundle"))


def test_the_same_bytes_on_two_paths(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "deeper" / "project"
    shutil.copytree(project, other)
    for folder in (project, other):
        assert main(["compile", str(folder / "irsplit.toml")]) == 0
    names = [path.relative_to(project) for path in (project / "build").rglob("*") if path.is_file()]
    bundled = [name for name in names if not name.name.endswith(".stamp")]
    assert len(bundled) >= 10
    assert all((project / name).read_bytes() == (other / name).read_bytes() for name in bundled)


def test_provenance(tmp_path: Path) -> None:
    assert main(["compile", str(DIGITS / "digits.onnx"), "-o", str(tmp_path / "bundle")]) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    found = manifest["provenance"]
    assert found["tools"]["irsplit"] == VERSION
    assert {"onnxruntime", "numpy", "zstandard"} <= set(found["tools"])
    data = (DIGITS / "digits.onnx").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert found["source_files"] == [{"file": "digits.onnx", "bytes": len(data), "sha256": digest}]
    assert manifest["source"]["sha256"] == digest
    device, server = found["segments"]["device"], found["segments"]["server"]
    assert device["operators"]["Conv"] + server["operators"]["Conv"] == sum(
        "Conv" in line for line in _ir_text(DIGITS / "digits.onnx", tmp_path)
    )
    sizes = [
        (tmp_path / "bundle" / segment["file"]).stat().st_size for segment in manifest["segments"]
    ]
    assert all(
        0.7 * size < each["weights"]["bytes"] < size
        for size, each in zip(sizes, (device, server), strict=True)
    )


def _ir_text(model: Path, folder: Path) -> list[str]:
    assert main(["opt", str(model), "-o", str(folder / "text.irs")]) == 0
    return [
        line for line in (folder / "text.irs").read_text().splitlines() if "= onnx.Conv" in line
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets = 3", "has no target"),
        ("defaults = 3\ntargets.a.model = 'x'", "defaults a table of options"),
        ("[targets.a]\ncut = ['1']", "target 'a': has no model"),
        ("[target.a]\nmodel = 'x'", "unknown key 'target'; known keys: output, defaults, targets"),
        ("[targets.a]\nmodel = 'x'\noutput = 'y'", "'output' is not for a target"),
        ("[targets.'a/b']\nmodel = 'x'", "the name is a folder's"),
        (
            "[targets.a]\nmodel = 'x'\nlimit = {memory = 1}",
            "limit must be text, a number, true or a list",
        ),
        ("[targets.a", "is no TOML"),
    ],
)
def test_what_is_no_build_file(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "irsplit.toml").write_text(text)
    with pytest.raises(ParseError, match=re.escape(said)):
        BuildFile.load(tmp_path / "irsplit.toml")


def test_an_option_that_compile_does_not_have(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "irsplit.toml").write_text("[targets.a]\nmodel = 'x.onnx'\ncolour = 'red'\n")
    assert main(["compile", str(tmp_path / "irsplit.toml")]) == 2
    said = (
        f"error: {tmp_path / 'irsplit.toml'}: target 'a': no option 'colour'; 'irsplit compile "
        "--help' lists them\n"
    )
    assert capfd.readouterr().err == said
    (tmp_path / "irsplit.toml").write_text("[targets.a]\nmodel = 'x.onnx'\nmax-tensors = 'two'\n")
    assert main(["compile", str(tmp_path / "irsplit.toml")]) == 2
    assert (
        "target 'a': argument --max-tensors: 'two' is no whole number above 0"
        in capfd.readouterr().err
    )


def test_depfiles_escape(tmp_path: Path) -> None:
    files = [Path("a b.onnx"), Path("cost$.npy"), Path("#1")]
    write_depfile(tmp_path / "x.d", Path("out dir/manifest.json"), files)
    assert (
        tmp_path / "x.d"
    ).read_text() == "out\\ dir/manifest.json: \\\n a\\ b.onnx \\\n cost$$.npy \\\n \\#1\n"
    assert read_depfile(tmp_path / "x.d") == files


@pytest.mark.parametrize("tool", ["make", "ninja"])
def test_make_and_ninja(tool: str, tmp_path: Path) -> None:
    needs(tool)
    shutil.copytree(EXAMPLES / "ci", tmp_path / "ci")
    model = tmp_path / "ci" / "models" / "digits.onnx"
    script = tmp_path / "irsplit"
    script.write_text(
        f'#!/bin/sh\necho ran >> {tmp_path}/runs\nexec {sys.executable} -m irsplit "$@"\n'
    )
    script.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(EXAMPLES.parent)}

    def run() -> int:
        done = subprocess.run(
            [tool],
            cwd=tmp_path / "ci",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return len((tmp_path / "runs").read_text().splitlines())

    assert [run(), run()] == [1, 1]
    os.utime(model)
    assert run() == 2
    assert (tmp_path / "ci" / "build" / tool / "digits" / "manifest.json").is_file()


def test_the_example_build_file() -> None:
    build = BuildFile.load(EXAMPLES / "ci" / "irsplit.toml")
    assert [target.name for target in build.targets] == ["digits", "digits-int8"]
    assert all((build.folder / target.model).is_file() for target in build.targets)
