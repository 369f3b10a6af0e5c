"""Passes, dialects and codecs of other packages: the template, installed; and clashes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"
Process = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the template package, built and installed."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(ROOT / "examples" / "plugin", folder / "source")
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        folder / "site",
        folder / "source",
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=600)
    return folder / "site"


def run(sites: Sequence[Path], *words: object) -> Process:
    path = os.pathsep.join([*map(str, sites), str(ROOT)])
    command = [sys.executable, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def irsplit(sites: Sequence[Path], *words: object) -> Process:
    return run(sites, "-m", "irsplit", *words)


def package(folder: Path, name: str, module: str, entry_points: str) -> Path:
    """A folder that looks like one in which a package was installed."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}.py").write_text(module)
    return folder


def test_the_template_passes_its_own_tests(site: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "plugin" / "tests", tmp_path / "tests")
    done = run(
        [site],
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path / "tests",
    )
    assert done.returncode == 0, done.stdout
    assert "15 passed" in done.stdout


def test_the_list_names_origins(site: Path) -> None:
    done = irsplit([site], "plugins", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {(entry["kind"], entry["name"]): entry for entry in json.loads(done.stdout)}
    assert listed["pass", "limit-boundary"]["origin"] == "irsplit-budget 1.0"
    assert listed["codec", "xz"]["origin"] == "irsplit-budget 1.0"
    assert listed["dialect", "dense"]["origin"] == "irsplit-budget 1.0"
    assert listed["policy", "half"]["origin"] == "irsplit-budget 1.0"
    assert listed["pass", "partition"]["origin"].startswith("irsplit ")
    assert listed["dialect", "onnx"]["origin"].startswith("irsplit ")
    assert {name for kind, name in listed if kind == "codec"} == {
        "raw",
        "zstandard",
        "static-rans",
        "xz",
    }


def test_a_policy_of_a_package_chooses_the_cut(site: Path) -> None:
    model = DIGITS / "digits.onnx"
    done = irsplit([site], "plan", model, "--rule", "half", "--json")
    assert done.returncode == 0, done.stderr
    choice = json.loads(done.stdout)
    assert choice["rule"] == "half"
    assert choice["places"] == ["device", "server"]

    done = irsplit([site], "plan", model, "--rule", "half", "--limit", "memory=1MB")
    assert (done.returncode, "rule half has no limits" in done.stderr) == (2, True)
    assert irsplit([], "plan", model, "--rule", "half").returncode == 2


def test_a_bundle_made_and_run_with_a_foreign_pass_and_codec(site: Path, tmp_path: Path) -> None:
    pipeline = (
        "partition{cut=bottleneck/relu},remove-unused,limit-boundary,compress-boundary{codec=xz},"
        "check-boundary"
    )
    bundle = tmp_path / "bundle"
    done = irsplit([site], "compile", DIGITS / "digits.onnx", "-o", bundle, "--pipeline", pipeline)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["pipeline"] == pipeline
    assert manifest["boundaries"][0]["codec"] == ["xz"]
    done = irsplit([site], "verify", bundle)
    assert done.stdout.startswith("optimisations off: bit-equal"), done.stdout + done.stderr
    done = irsplit([], "verify", bundle)
    assert done.returncode == 2
    assert "unknown codec 128" in done.stderr


def test_a_foreign_pass_refuses(site: Path) -> None:
    pipeline = "partition{cut=bottleneck/relu},limit-boundary{size-bytes=100}"
    done = irsplit([site], "opt", DIGITS / "digits.onnx", "--pipeline", pipeline)
    assert (done.returncode, done.stdout) == (2, "")
    assert "segment @device sends 256 bytes, 100 are allowed" in done.stderr


def test_a_foreign_dialect(tmp_path: Path) -> None:
    module = (
        "from irsplit.dialects.onnx import OnnxDialect\n"
        "class Renamed(OnnxDialect):\n    '''ONNX by another name.'''\n"
        "    name = 'renamed'\n    extensions = ('.network',)\n"
        "RENAMED = Renamed()\n"
    )
    entry_points = "[irsplit.dialects]\nrenamed = renaming:RENAMED\n"
    site = package(tmp_path / "site", "renaming", module, entry_points)
    shutil.copy(DIGITS / "digits.onnx", tmp_path / "digits.network")
    done = irsplit([site], "compile", tmp_path / "digits.network", "-o", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle" / "device" / "model.network").is_file()
    done = irsplit([site], "verify", tmp_path / "bundle")
    assert done.stdout.startswith("optimisations off: bit-equal"), done.stdout + done.stderr
    assert "irsplit reads onnx, tflite" in irsplit([], "cuts", tmp_path / "digits.network").stderr


def dense_file(path: Path) -> Path:
    """A .dense file with a bottleneck of 3 features between two wide layers."""

    def layer(name: str, reads: str, rows: int, columns: int) -> dict[str, object]:
        numbers = [
            [(row * columns + column) % 7 - 3 for column in range(columns)] for row in range(rows)
        ]
        words = {"name": name, "reads": reads, "activation": "relu"}
        return {**words, "weight": numbers, "bias": [1] * columns}

    layers = [
        layer("narrow", "x", 16, 3),
        layer("wide", "narrow", 3, 32),
        layer("y", "wide", 32, 4),
    ]
    path.write_text(json.dumps({"inputs": {"x": 16}, "layers": layers, "outputs": ["y"]}))
    return path


def test_a_dialect_and_an_engine_of_another_package(site: Path, tmp_path: Path) -> None:
    model, bundle = dense_file(tmp_path / "model.dense"), tmp_path / "bundle"
    done = irsplit([site], "cuts", model, "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert [(cut["after"], cut["legal"]) for cut in listed] == [("narrow", True), ("wide", True)]
    assert listed[0]["device_macs_share"] == 48 / 272

    done = irsplit([site], "compile", model, "-o", bundle, "--cut", "narrow")
    assert done.returncode == 0, done.stderr
    device = json.loads((bundle / "device" / "model.dense").read_text())
    assert (list(device["inputs"]), device["outputs"]) == (["x"], ["narrow"])

    done = irsplit([site], "verify", bundle)
    assert done.stdout.startswith("optimisations off: bit-equal"), done.stdout + done.stderr

    done = irsplit([], "run", bundle, "--input", f"x={[[1] * 16]}")
    assert done.returncode == 2
    assert "no engine for format 'dense'" in done.stderr


def test_a_damaged_file_of_another_package(site: Path, tmp_path: Path) -> None:
    model = dense_file(tmp_path / "model.dense")
    model.write_text(model.read_text().replace("narrow", "other", 1))
    done = irsplit([site], "cuts", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert "layer 'wide' reads 'narrow', which is not computed" in done.stderr


def test_conflicts_are_named(site: Path, tmp_path: Path) -> None:
    module = (
        "class Pass:\n    name = 'limit-boundary'\n"
        "class Codec:\n    name = 'zip'\n    code = 128\n"
        "    def open(self, parameters): return self\n"
        "CODEC = Codec()\n"
    )
    entry_points = (
        "[irsplit.passes]\nlimit-boundary = rival:Pass\nbroken = rival:missing\n"
        "[irsplit.codecs]\nzip = rival:CODEC\n"
    )
    rival = package(tmp_path, "rival", module, entry_points)
    done = irsplit([site, rival], "plugins", "--json")
    assert done.returncode == 1
    problems = {
        entry["name"]: entry["problem"] for entry in json.loads(done.stdout) if entry["problem"]
    }
    assert set(problems) == {"limit-boundary", "broken", "zip", "xz"}
    assert problems["xz"] == "conflicts with 'zip' of rival 1.0; uninstall one"
    assert problems["broken"].startswith("cannot be loaded: AttributeError")
    done = irsplit(
        [site, rival], "compile", DIGITS / "digits.onnx", "-o", tmp_path / "bundle", "--codec", "xz"
    )
    assert done.returncode == 2
    assert (
        "two codecs have the name or code '128': irsplit_budget.xz:XZ and rival:CODEC"
        in done.stderr
    )
    done = irsplit([site, rival], "opt", DIGITS / "digits.onnx", "--pipeline", "limit-boundary")
    assert done.returncode == 2
    assert done.stderr.startswith(
        ("error: the pass 'broken' of rival:missing", "error: two passes are named 'limit-")
    )


def test_a_measure_of_another_package(tmp_path: Path) -> None:
    module = 'def never(expected, found):\n    """Nothing ever agrees."""\n    return 0\n'
    site = package(
        tmp_path / "site", "strict", module, "[irsplit.measures]\nnever = strict:never\n"
    )
    listed = {
        (each["kind"], each["name"]): each
        for each in json.loads(irsplit([site], "plugins", "--json").stdout)
    }
    assert listed["measure", "never"]["summary"] == "Nothing ever agrees."
    assert {name for kind, name in listed if kind == "measure"} == {"top1", "iou", "f1", "never"}
    words = [
        "--quantize",
        "agreement=0.5",
        "--calibration",
        DIGITS / "pictures",
        "--agreement-measure",
        "never",
    ]
    done = irsplit(
        [site],
        "compile",
        DIGITS / "digits.onnx",
        "-o",
        tmp_path / "bundle",
        "--cut",
        "down/relu",
        *words,
    )
    assert done.returncode == 2
    assert "at best the worst output has 0 by never of %logits" in done.stderr
