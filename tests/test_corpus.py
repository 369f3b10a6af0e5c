"""The corpus, end to end: the manifest's legal cuts, halves equal to the whole, hostile files."""

from pathlib import Path

import pytest

import corpus
from corpus import CorpusModel
from every_cut import failures, legal_cuts, sample
from irsplit.cli import main

# Strict cuts behind shape paths, as the manifest counts them without these paths.
HIDDEN = "n_cuts_ignoring_shape_paths"
# Half a second a call and more: one cut of these tells as much as three.
SLOW = {
    "candy_style.onnx",
    "super_resolution_10.onnx",
    "deeplabv3_dm05_uint8.tflite",
    "basic_pitch.tflite",
}

# An operator that no engine has, and a type that only an engine finds wrong: split, not run.
ENGINE_REFUSES = ("custom_bsign.tflite", "bad_graph.onnx")


@pytest.mark.parametrize("model", corpus.cases(corpus.models("models", "micro")))
def test_halves_equal_the_whole_at_first_middle_and_last_cut(model: CorpusModel):
    cuts = legal_cuts(model).rematerialised
    chosen = cuts[len(cuts) // 2 :][:1] if model.name in SLOW else sample(cuts, 3)
    assert failures(model, chosen) == []


@pytest.mark.parametrize(
    "model", corpus.cases(model for model in corpus.load("models") if HIDDEN in model.entry)
)
def test_rematerialisation_shows_the_cuts_behind_shape_paths(model: CorpusModel):
    strict = {cut.tensors for cut in legal_cuts(model).rematerialised if cut.kind == "strict"}
    assert len(strict) >= model.entry[HIDDEN]


@pytest.mark.parametrize(
    "model", corpus.cases(m for m in corpus.load("hostile") if m.name not in ENGINE_REFUSES)
)
def test_hostile_files_give_one_clear_line(
    model: CorpusModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = main(["compile", str(model.path), "-o", str(tmp_path / "bundle")])
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert code == 2
    assert list(tmp_path.iterdir()) == []
