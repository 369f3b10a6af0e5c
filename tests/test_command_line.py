"""The command line as a user meets it: what it prints, exit codes, nothing half written."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import corpus
from irsplit.cli import main
from tflite_models import Sketch

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"


def irsplit(*words: object) -> int:
    return main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which a command refuses."""
    assert irsplit(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err.removeprefix("error: ").rstrip("\n")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("model", ["digits.onnx", "digits.tflite", "digits_int8.tflite"])
def test_the_main_job(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    assert irsplit("compile", EXAMPLE / model, "-o", bundle) == 0
    assert "bottleneck/relu" in capsys.readouterr().out
    assert irsplit("verify", bundle, "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["bit_equal"]
    assert all(0 < size < 1024 for size in outcome["frame_bytes"])
    assert irsplit("inspect", bundle) == 0
    assert "partition{cut=" in capsys.readouterr().out
    picture = f"image={EXAMPLE / 'pictures' / '3.png'}"
    assert irsplit("run", bundle, "--input", picture, "-o", tmp_path / "out.npz") == 0
    assert int(np.load(tmp_path / "out.npz")["logits"].argmax()) == 3
    assert entries(tmp_path) == ["bundle", "out.npz"]


def test_extracted_signature_is_a_model_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, alone = tmp_path / "two.tflite", tmp_path / "alone.tflite"
    sketch = Sketch()
    for name in ("encode", "decode"):
        sketch.subgraph(name)
        sketch.chain(f"{name}_near", f"{name}_far")
    sketch.save(source)
    assert irsplit("extract", source, "decode", "-o", alone) == 0
    assert capsys.readouterr().out.startswith(f"{alone}  ")
    assert irsplit("cuts", alone, "--json") == 0
    assert [cut["tensors"][0]["name"] for cut in json.loads(capsys.readouterr().out)] == [
        "decode_near"
    ]
    assert irsplit("compile", alone, "-o", tmp_path / "bundle", "--cut", "decode_near") == 0
    assert irsplit("verify", tmp_path / "bundle") == 0
    capsys.readouterr()
    assert "known: encode, decode" in refused(
        capsys, "extract", source, "train", "-o", tmp_path / "none.tflite"
    )
    assert "an ONNX model has one graph" in refused(
        capsys, "extract", EXAMPLE / "digits.onnx", "x", "-o", alone
    )


def test_cuts_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert irsplit("cuts", EXAMPLE / "digits.onnx", "--json") == 0
    cuts = json.loads(capsys.readouterr().out)
    keys = {
        "id",
        "after",
        "legal",
        "kind",
        "reason",
        "forwards",
        "early_outputs",
        "tensors",
        "bytes",
    }
    assert all(keys | {"device_weight_bytes", "device_macs_share"} <= set(cut) for cut in cuts)
    strict = [cut["tensors"][0]["name"] for cut in cuts if cut["kind"] == "strict"]
    assert "bottleneck/relu" in strict
    pending = next(cut for cut in cuts if cut["after"] == "block1/a/relu")
    assert not pending["legal"]
    assert all(name in pending["reason"] for name in ("%down/relu", "'down/relu'", "'block1/add'"))


def test_near_shares_grow_with_the_position(capsys: pytest.CaptureFixture[str]) -> None:
    assert irsplit("cuts", EXAMPLE / "digits.tflite", "--json") == 0
    cuts = json.loads(capsys.readouterr().out)
    weights = [cut["device_weight_bytes"] for cut in cuts]
    assert weights == sorted(weights)
    shares = [cut["device_macs_share"] for cut in cuts]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1


@pytest.mark.parametrize("cut", ["bottleneck/relu", "%bottleneck/relu"])
def test_a_cut_is_chosen_by_tensor_name(cut: str, tmp_path: Path) -> None:
    assert irsplit("compile", EXAMPLE / "digits.onnx", "-o", tmp_path / "bundle", "--cut", cut) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert [segment["place"] for segment in manifest["segments"]] == ["device", "server"]
    assert manifest["segments"][0]["outputs"] == ["bottleneck/relu"]


def test_three_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "compile",
        EXAMPLE / "digits.tflite",
        "-o",
        tmp_path / "bundle",
        "--cut",
        "down/relu",
        "--cut",
        "expand/relu",
    )
    assert irsplit(*words, "--place", "device", "--place", "server", "--place", "device") == 0
    assert irsplit("verify", tmp_path / "bundle") == 0
    assert "bit-equal" in capsys.readouterr().out


def test_int8_needs_calibration_and_keeps_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("compile", EXAMPLE / "digits.onnx", "-o", tmp_path / "bundle", "--quantize", "int8")
    assert "no calibration data for %bottleneck/relu" in refused(capsys, *words)
    assert entries(tmp_path) == []
    assert irsplit(*words, "--calibration", EXAMPLE / "pictures") == 0
    capsys.readouterr()
    inputs = [f"image={EXAMPLE / 'pictures' / '7.png'}"]
    assert irsplit("verify", tmp_path / "bundle", "--input", "image=0.5") == 0
    assert "quantized" in capsys.readouterr().out.split("}\n")[-1]
    assert irsplit("verify", tmp_path / "bundle", "--input", *inputs, "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert not outcome["bit_equal"]
    assert outcome["exact"][0]["agreement"] == 1.0


def test_an_integer_boundary_in_coarser_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--cut", "down/relu", "--quantize", "int4", "--calibration", EXAMPLE / "pictures")
    assert (
        irsplit("compile", EXAMPLE / "digits_int8.tflite", "-o", tmp_path / "bundle", *words) == 0
    )
    assert irsplit("verify", tmp_path / "bundle", "--inputs", EXAMPLE / "pictures") == 0
    assert "quantized" in capsys.readouterr().out
    assert irsplit("inspect", tmp_path / "bundle") == 0
    assert "i8[?,8,8,24], zstandard level 3, 8 bits, scale 16" in capsys.readouterr().out


def test_the_same_bytes_from_two_places(tmp_path: Path) -> None:
    for folder in ("one", "elsewhere/two"):
        assert irsplit("compile", EXAMPLE / "digits.onnx", "-o", tmp_path / folder) == 0
    one, two = tmp_path / "one", tmp_path / "elsewhere" / "two"
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(two) for path in sorted(two.rglob("*")) if path.is_file()]
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cut", "block1/a/relu"), "is not legal: %down/relu is pending"),
        (("--cut", "99"), "there is no cut '99'; legal cuts by id:"),
        (("--cut", "4", "--place", "device"), "2 segments need 2 places, but 1 are given"),
        (("--cut", "4", "--codec", "lz5"), "unknown codec 'lz5'; known codecs:"),
    ],
)
def test_what_cannot_be_compiled(
    words: Sequence[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(
        capsys, "compile", EXAMPLE / "digits.onnx", "-o", tmp_path / "bundle", *words
    )
    assert entries(tmp_path) == []


def test_files_that_are_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("this is a text, not a model\n")
    for suffix in ("onnx", "tflite"):
        whole = (EXAMPLE / f"digits.{suffix}").read_bytes()
        (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
        (tmp_path / f"empty.{suffix}").write_bytes(b"")
    (tmp_path / "model.pb").write_bytes(b"x")
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "missing.onnx", tmp_path):
        for command in (
            ("cuts", path),
            ("inspect", path),
            ("compile", path, "-o", tmp_path / "bundle"),
        ):
            if command[0] == "inspect" and path == tmp_path:
                continue
            assert str(path) in refused(capsys, *command)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc").exists(), reason="root may write everywhere but /proc"
)
def test_folders_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo").write_text("not ours")
    model = EXAMPLE / "digits.onnx"
    assert "cannot be written" in refused(capsys, "compile", model, "-o", "/proc/bundle")
    assert "is a file" in refused(capsys, "compile", model, "-o", tmp_path / "file")
    assert "no manifest.json" in refused(capsys, "compile", model, "-o", tmp_path / "notes")
    assert entries(tmp_path) == ["file", "notes"]
    assert entries(tmp_path / "notes") == ["todo"]


def test_a_failed_compile_leaves_the_older_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("compile", EXAMPLE / "digits.onnx", "-o", tmp_path / "bundle")
    assert irsplit(*words) == 0
    before = (tmp_path / "bundle" / "manifest.json").read_bytes()
    assert irsplit(*words, "--cut", "block1/a/relu") == 2
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before
    assert irsplit(*words, "--cut", "down/relu") == 0
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() != before
    assert entries(tmp_path) == ["bundle"]


def test_damaged_bundles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    assert irsplit("compile", EXAMPLE / "digits.onnx", "-o", bundle) == 0
    capsys.readouterr()
    model = bundle / "device" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    assert "changed since it was compiled" in refused(capsys, "verify", bundle)
    (bundle / "manifest.json").write_text("{}")
    assert "damaged manifest" in refused(capsys, "inspect", bundle)
    (bundle / "manifest.json").unlink()
    assert "not a bundle" in refused(capsys, "run", bundle)


def test_inputs_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    assert irsplit("compile", EXAMPLE / "digits.onnx", "-o", bundle) == 0
    capsys.readouterr()
    np.save(tmp_path / "wide.npy", np.zeros((1, 1, 16, 17), np.float32))
    np.save(tmp_path / "double.npy", np.zeros((1, 1, 16, 16)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for file, said in (
        ("wide.npy", "input 'image' is float32[1, 1, 16, 17]; give f32[?, 1, 16, 16]"),
        ("double.npy", "input 'image' is float64"),
        ("broken.png", "cannot be read as an image"),
        ("missing.npy", "no such file, given for input 'image', nor numbers of f32"),
    ):
        assert said in refused(capsys, "run", bundle, "--input", f"image={tmp_path / file}")
    assert "input 'image' is missing" in refused(capsys, "run", bundle)
    assert "give NAME=FILE with one of the inputs image" in refused(
        capsys, "run", bundle, "--input", "picture=x.png"
    )


@pytest.mark.parametrize("model", corpus.cases(corpus.load("hostile")))
def test_hostile_models_are_refused_or_carried(model: corpus.CorpusModel, tmp_path: Path) -> None:
    """In a process of its own: exit code 0 or 2, no traceback, whatever the file holds."""
    for words in (["cuts", model.path], ["compile", model.path, "-o", tmp_path / "bundle"]):
        command = [sys.executable, "-m", "irsplit", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode == 2:
            assert done.stderr.splitlines()[-1].startswith(
                "error: "
            )  # the line before may say what the engine thinks
            assert not (tmp_path / "bundle").exists()


HEAVY = {
    "PIL",
    "ai_edge_litert",
    "flatbuffers",
    "numpy",
    "onnx",
    "onnxruntime",
    "rich",
    "scipy",
    "tflite",
    "zstandard",
}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("--help", ""),
        ("cuts digits.tflite", ""),
        ("compile digits.tflite -o bundle", "numpy zstandard"),
        ("cuts digits.onnx", ""),
        ("cuts typed.onnx", ""),
        ("compile typed.onnx -o bundle", "numpy zstandard"),
    ],
)
def test_a_command_loads_what_it_needs(words: str, needed: str, tmp_path: Path) -> None:
    """Start-up is imports: numpy is for elements, which no list of cuts looks at, Pillow for
    pictures, numpy's random numbers for inputs that are made up. Of onnx, which infers types that a
    model leaves out, an extension will do."""
    for name in ("digits.onnx", "digits.tflite"):
        shutil.copy(EXAMPLE / name, tmp_path)
    save_typed(tmp_path)
    modules = loaded("from irsplit.cli import main; main()", words, tmp_path)
    assert HEAVY & modules == set(needed.split())
    assert "numpy.random" not in modules


def test_a_split_loads_little(tmp_path: Path) -> None:
    """Reading, finding cuts, partition and writing, without commands and bundles: no library, and
    of Python's own nothing that waits for an engine or looks for plugins."""
    shutil.copy(EXAMPLE / "digits.onnx", tmp_path)
    modules = loaded(
        "from onnx_split import main; main()", "digits.onnx . bottleneck/relu", tmp_path
    )
    assert not HEAVY & modules
    assert not {"email", "importlib.metadata", "shutil", "subprocess", "tempfile"} & modules


def save_typed(folder: Path) -> None:
    """digits.onnx with all its types inside, as typed.onnx."""
    onnx.save(
        onnx.shape_inference.infer_shapes(onnx.load(EXAMPLE / "digits.onnx")), folder / "typed.onnx"
    )


def loaded(code: str, words: str, folder: Path) -> set[str]:
    """The modules that a process has at its end after running code with these arguments."""
    probe = f"import sys\ntry: {code}\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", probe, *words.split()]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent / "benchmarks")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


def test_the_default_cut_may_leave_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = EXAMPLE / "digits.onnx"
    assert irsplit("compile", weights, "-o", tmp_path / "early") == 0
    assert "multiply-accumulates" not in capsys.readouterr().err
    model = onnx.load(weights)
    model.graph.node.add(op_type="Softmax", input=["logits"], output=["shares"])
    model.graph.output[0].name = "shares"
    onnx.save(model, tmp_path / "classifier.onnx")
    assert irsplit("compile", tmp_path / "classifier.onnx", "-o", tmp_path / "late") == 0
    assert (
        "100.0 % of the multiply-accumulates come before it; choose another"
        in capsys.readouterr().err
    )


def test_passes_on_ir_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "model.irs"
    assert irsplit("opt", EXAMPLE / "digits.onnx", "-o", text) == 0
    assert irsplit("opt", text, "--pipeline", "partition{cut=bottleneck/relu},check-boundary") == 0
    printed = capsys.readouterr().out
    assert 'irsplit.send 0 %"bottleneck/relu"' in printed
    assert "graph @server()" in printed
    assert "known passes: " in refused(capsys, "opt", text, "--pipeline", "partition{cut=4},dce")
    text.write_text("graph @main(")
    assert "line 1" in refused(capsys, "opt", text)


def test_passes_that_learn_take_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = "partition{cut=bottleneck/relu},quantize-boundary{bits=4}"
    opt = ("opt", EXAMPLE / "digits.onnx", "--pipeline", pipeline)
    assert "--calibration" in refused(capsys, *opt)
    assert irsplit(*opt, "--calibration", EXAMPLE / "pictures") == 0
    assert '["i8", 4,' in capsys.readouterr().out

    missing = tmp_path / "missing.npz"
    text = tmp_path / "text.irs"
    text.write_text("graph @main(%x: f32[4]) -> (%y) { %y = test.op(%x) : f32[4] }")
    assert "missing.npz" in refused(capsys, "opt", text, "--calibration", missing)


def test_a_pipeline_stands_for_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compile", EXAMPLE / "digits.onnx", "-o", tmp_path / "bundle", "--pipeline")
    assert "leaves the model whole; put partition{cut=ID} into it" in refused(
        capsys, *words, "remove-unused"
    )
    assert "--cut would too" in refused(capsys, *words, "partition{cut=4}", "--cut", "4")
    assert (
        irsplit(*words, "partition{cut=4},remove-unused,prune-buffers,check-boundary", "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out)["boundaries"][0]["codec"] == ["raw"]


def test_a_program_without_standard_streams(tmp_path: Path) -> None:
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        assert (
            main(["report", str(EXAMPLE / "digits.onnx"), "-o", str(tmp_path / "page.html")]) == 0
        )
    assert (tmp_path / "page.html").is_file()
