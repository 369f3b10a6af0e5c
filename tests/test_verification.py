"""What `verify` answers: nothing to compare, random models, maps; requirements as a gate."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import corpus
import irsplit
from irsplit.base.errors import EngineError
from irsplit.cli import main
from irsplit.compilation.differences import compare
from irsplit.compilation.input_words import input_sizes
from irsplit.compilation.randomness import statistics
from irsplit.compilation.verification import Requirements
from irsplit.runtime.bundle.manifest import Manifest

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
CASES = corpus.DEFAULT.parent / "cases"


def saved(
    path: Path,
    nodes: Sequence[Any],
    outputs: Sequence[Any],
    constants: dict[str, Any] | None = None,
    rows: Any = 1,
) -> Path:
    """An ONNX model from x f32[rows, 8] to these outputs."""
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 8])],
        outputs,
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in (constants or {}).items()
        ],
    )
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def tensor(name: str, shape: Sequence[Any], element: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def verified(path: Path, cut: str, **options: Any) -> irsplit.Verification:
    irsplit.compile_model(path, path.parent / "bundle", cut)
    return irsplit.verify_bundle(path.parent / "bundle", engine_defaults=False, **options)


# -- nothing compared ------------------------------------------------------------------------------


def of_nothing(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Slice", ["h", "zero", "zero", "one"], ["y"]),
    ]
    constants = {"zero": np.zeros(1, np.int64), "one": np.ones(1, np.int64)}
    return saved(tmp_path / "empty.onnx", nodes, [tensor("y", ["n", 8])], constants)


def test_nothing_compared_is_no_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["compile", str(of_nothing(tmp_path)), "-o", str(tmp_path / "b"), "--cut", "h"]) == 0
    )
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "b")]) == 1
    told = capsys.readouterr().out
    assert "optimisations off: nothing could be compared" in told
    assert "FAILED: nothing could be compared: all outputs are empty" in told
    assert "bit-equal" not in told
    outcome = irsplit.verify_bundle(tmp_path / "b", engine_defaults=False, allow_nothing=True)
    assert (outcome.holds, outcome.elements) == (True, 0)


# -- random models ---------------------------------------------------------------------------------


def noisy(tmp_path: Path, *, alone: bool = False) -> Path:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("RandomNormalLike", ["h"], ["noise"]),
        helper.make_node("Add", ["h", "noise"], ["drawn"]),
        helper.make_node("Sqrt", ["h"], ["settled"]),
    ]
    outputs = [tensor("drawn", [64, 8]), tensor("settled", [64, 8])]
    return saved(
        tmp_path / "noisy.onnx",
        nodes[:3] if alone else nodes,
        outputs[:1] if alone else outputs,
        rows=64,
    )


def test_random_outputs_are_compared_by_statistics_and_the_others_bit_by_bit(
    tmp_path: Path,
) -> None:
    outcome = verified(noisy(tmp_path), "h")
    assert outcome.holds
    assert not outcome.bit_equal
    (drawn,) = outcome.random
    assert (drawn.name, drawn.statistics.agree) == ("drawn", True)
    assert drawn.whole_difference.max_error > 0
    assert drawn.statistics.whole == pytest.approx((0.5, 1.04), abs=0.05)
    assert [(output.name, output.bit_equal) for output in outcome.exact] == [("settled", True)]
    json.dumps(outcome.to_json(), allow_nan=False)


def test_a_requirement_of_noise_alone_cannot_be_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    irsplit.compile_model(noisy(tmp_path, alone=True), tmp_path / "bundle", "h")
    assert main(["verify", str(tmp_path / "bundle"), "--min-agreement", "0.5"]) == 1
    told = capsys.readouterr().out
    assert (
        "the model is random: two runs of the whole differ in %drawn, which are compared by "
        "statistics"
    ) in told
    assert "FAILED: every output is random, and no requirement can be measured" in told
    assert "bit-equal" not in told


def runs(rng: np.random.Generator, scale: float = 1.0, shift: float = 0.0, size: int = 400) -> Any:
    return [[{"y": (shift + scale * rng.normal(size=size)).astype(np.float32)}] for _ in range(16)]


def test_other_statistics_are_no_chance() -> None:
    rng = np.random.default_rng(7)
    assert statistics("y", runs(rng), runs(rng), 1e-3).agree
    assert not statistics("y", runs(rng), runs(rng, scale=1.3), 1e-3).agree
    assert not statistics("y", runs(rng), runs(rng, shift=0.3), 1e-3).agree
    assert not statistics("y", runs(rng), runs(rng, size=300), 1e-3).agree
    other_type = [[{"y": call["y"].astype(np.float64)} for call in run] for run in runs(rng)]
    assert not statistics("y", runs(rng), other_type, 1e-3).agree


@pytest.mark.parametrize(("name", "cut"), [("random_vae", "hr"), ("piper_vits", "103")])
def test_real_random_models_verify(name: str, cut: str, tmp_path: Path) -> None:
    if not (CASES / f"{name}.onnx").is_file():
        pytest.skip(f"NO CORPUS: {CASES} does not exist")
    irsplit.compile_model(CASES / f"{name}.onnx", tmp_path / "bundle", cut)
    outcome = irsplit.verify_bundle(tmp_path / "bundle", engine_defaults=False)
    assert outcome.holds, outcome.failures
    assert outcome.random


# -- maps and sequences ----------------------------------------------------------------------------


def test_maps_and_sequences_are_compared_by_their_numbers(tmp_path: Path) -> None:
    ints = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, tensor("_", []).type)
    )
    floats = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node(
            "ZipMap", ["h"], ["classes"], domain="ai.onnx.ml", classlabels_int64s=list(range(8))
        ),
        helper.make_node("SequenceConstruct", ["h", "h"], ["parts"]),
    ]
    outputs = [helper.make_value_info("classes", ints), helper.make_value_info("parts", floats)]
    outcome = verified(saved(tmp_path / "maps.onnx", nodes, outputs), "h")
    assert outcome.holds, outcome.failures
    assert outcome.bit_equal
    assert [output.elements for output in outcome.exact] == [24, 48]
    assert outcome.exact[0].agreement == 1.0


def test_differences_in_maps_and_sequences() -> None:
    expected = [{0: 0.25, 1: 0.75}]
    close = compare("y", [expected], [[{0: 0.375, 1: 0.625}]])
    assert (close.max_error, close.bit_equal, close.agreement) == (0.125, False, 1.0)
    assert compare("y", [expected], [[{0: 0.25, 2: 0.75}]]).max_error == np.inf
    assert compare("y", [expected], [expected + expected]).max_error == np.inf
    parts = [np.zeros((2, 3), np.float32), np.ones(4, np.float32)]
    assert compare("y", [parts], [[parts[0], parts[1] + 1]]).max_error == 1.0
    assert compare("y", [parts], [[parts[0], parts[1][:2]]]).max_error == np.inf
    assert compare("y", [None], [None]).bit_equal
    assert compare("y", [None], [parts]).max_error == np.inf
    assert compare("y", [["a"]], [["a"]]).bit_equal
    assert compare("y", [["a"]], [["bc"]]).max_error == np.inf


def test_signal_to_noise() -> None:
    signal = np.full(10, 10.0)
    assert compare("y", [signal], [signal + 1]).snr_db == pytest.approx(20)
    assert compare("y", [signal], [signal]).snr_db == np.inf
    assert compare("y", [signal], [signal * np.inf]).snr_db == -np.inf


# -- requirements ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "bundle"
    words = ["--cut", "down/relu", "--quantize", "int4", "--calibration", str(DIGITS / "pictures")]
    assert main(["compile", str(DIGITS / "digits.onnx"), "-o", str(folder), *words]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),
        (["--min-agreement", "0.5", "--max-error", "1e6", "--min-snr", "0"], ""),
        (
            ["--max-error", "1e-9"],
            r"FAILED: %logits has an error of [\d.]+, and at most 1e-09 is asked for",
        ),
        (["--min-snr", "120"], r"FAILED: %logits has [\d.]+ dB, and at least 120 dB are asked for"),
    ],
)
def test_requirements_make_a_gate(
    words: list[str], said: str, quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["verify", str(quantized), "--inputs", str(DIGITS / "pictures"), *words])
    told = capsys.readouterr().out
    assert "agreement " in told
    assert "by top1 of %logits" in told
    if not said:
        assert (code, "FAILED" in told) == (0, False)
    else:
        assert code == 1
        assert re.search(said, told)


def test_an_agreement_that_is_asked_for(
    quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "measure.py"
    file.write_text("def half(expected, found):\n    return 0.5\n")
    words = ["verify", str(quantized), "--agreement-measure", f"{file}:half", "--min-agreement"]
    assert main([*words, "0.5"]) == 0
    assert main([*words, "0.6"]) == 1
    told = capsys.readouterr().out
    assert f"FAILED: agreement 0.5 by {file}:half of %logits, and at least 0.6 is asked for" in told
    assert main([*words, "60"]) == 2
    assert "a least agreement of 60.0 is no share; give 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [{"min_agreement": -1}, {"max_error": float("nan")}, {"min_snr": float("nan")}]
)
def test_requirements_that_are_none(options: dict[str, float]) -> None:
    with pytest.raises(EngineError):
        Requirements(**options)


# -- sizes -----------------------------------------------------------------------------------------


def test_a_bundle_knows_the_symbols_of_its_dimensions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sqrt", ["h"], ["y"])]
    model = saved(tmp_path / "open.onnx", nodes, [tensor("y", ["batch", 8])], rows="batch")
    irsplit.compile_model(model, tmp_path / "b", "h", codec="raw")
    manifest = Manifest.load(tmp_path / "b")
    for name in ("batch", "x", "x.0"):
        assert input_sizes([f"{name}=3"], manifest.inputs, manifest) == {"x.0": 3}
    assert main(["verify", str(tmp_path / "b"), "--dim", "batch=3"]) == 0
    assert "with x [3, 8]" in capsys.readouterr().out
    headers: list[str] = []
    for word in ("3", "batch=3", "h=3", "h.0=3"):
        assert main(["header", str(tmp_path / "b"), "--dim", word]) == 0
        headers.append(capsys.readouterr().out)
    assert len(set(headers)) == 1
    assert "h: f32[3, 8]" in headers[0]
    assert main(["header", str(tmp_path / "b"), "--dim", "depth=3"]) == 2
    assert "those that vary: h, h.0, batch" in capsys.readouterr().err


def test_one_key_of_the_manifest_has_the_symbols_of_inputs_outputs_and_what_crosses(
    tmp_path: Path,
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sqrt", ["h"], ["y"])]
    model = saved(tmp_path / "open.onnx", nodes, [tensor("y", ["batch", 8])], rows="batch")
    irsplit.compile_model(model, tmp_path / "b", "h", codec="raw")
    manifest = Manifest.load(tmp_path / "b")
    assert manifest.raw["symbols"] == {"x.0": "batch", "y.0": "batch", "h.0": "batch"}
    assert all("symbols" not in item for item in manifest.raw["inputs"] + manifest.raw["outputs"])
    assert [info.symbols for info in (*manifest.inputs, *manifest.outputs)] == [{0: "batch"}] * 2
