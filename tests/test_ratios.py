"""What codecs do to a model's tensors, measured before the cut is chosen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irsplit.cli import main
from irsplit.codec_training.codec import draft, frame_bytes, train
from irsplit.compilation.compiler import whole_model
from irsplit.engines.inputs import load_calls
from irsplit.ir import Model, Value, parse_model
from irsplit.passes.base import Context, Samples
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.planning.ratios import MOST_BYTES, MOST_CALLS, sample_count
from irsplit.runtime.frame.descriptor import TensorSpec
from irsplit.runtime.run.engines import DEFAULT_OPTIONS
from irsplit.runtime.run.session import LocalSession

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
TEXT = """
graph @main(%x: f32[1,4096]) -> (%y) {
  %a = onnx.Conv(%x) : f32[1,1000]
  %b = onnx.Relu(%a) : f32[1,1000]
  %c = onnx.Relu(%b) : f32[1,1000]
  %y = onnx.Relu(%c) : f32[1,10]
}
"""
NOISE = np.random.default_rng(0).standard_normal((1, 4096)).astype(np.float32)
ARRAYS = {"x": NOISE, "a": NOISE[:, :1000], "b": NOISE[:, :1000].clip(0), "c": NOISE[:, :1000]}


class Observed:
    """Samples of which half of %b is zero and all else noise."""

    def __init__(self, seen: list[str] | None = None) -> None:
        self.seen: list[str] = [] if seen is None else seen

    def crossing(self, model: Model) -> Mapping[str, Samples]:
        raise NotImplementedError

    def outputs(self, model: Model) -> Sequence[Mapping[str, Any]]:
        raise NotImplementedError

    def observed(self, model: Model, values: Sequence[Value], most: int) -> Mapping[str, Samples]:
        self.seen.extend(value.name for value in values)
        return {value.name: [ARRAYS[value.name]] * min(most, 3) for value in values}


def observed(seen: list[str] | None = None) -> Context:
    return Context(samples=Observed(seen))


def sent(choice: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """By cut, the codec and bytes of what goes to the server."""
    return {
        row["cut"]: (switch["codec"], switch["size_bytes"])
        for row in choice["ranked"]
        for switch in row["sent"]
        if switch["to"] == "server"
    }


@pytest.mark.parametrize("codec", ["zstandard", "static-rans", "auto"])
def test_the_cut_is_chosen_by_what_the_codec_makes_of_each_tensor(codec: str):
    choose = ChooseCut(link="3g", codec=codec)
    published = choose.choose(parse_model(TEXT), Context()).to_json()
    assert published["measured_ratios"] is None
    assert len({sent(published)[id] for id in "123"}) == 1, (
        "by published ratios all three are alike"
    )
    found = choose.choose(parse_model(TEXT), observed())
    assert [cut.id for cut in found.cuts] == ["2"], "half of it is zero"
    choice = found.to_json()
    assert choice["measured_ratios"] == {"tensors": 4, "calls": 3, "bits": 0}
    assert sent(choice)["2"][1] < 0.8 * sent(choice)["1"][1]
    assert found.notes[-1] == "sizes of 4 tensors are measured on 3 calibration inputs"


def test_widths_count():
    choice = (
        ChooseCut(link="3g", codec="static-rans", bits=4)
        .choose(parse_model(TEXT), observed())
        .to_json()
    )
    assert sent(choice)["1"][1] < 1000 * 4 / 8 * 1.2


def test_tensors_that_are_not_tried_are_corrected_by_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("irsplit.passes.planning.ratios.MOST_CUTS", 1)
    seen: list[str] = []
    choice = (
        ChooseCut(link="3g", codec="zstandard").choose(parse_model(TEXT), observed(seen)).to_json()
    )
    assert seen == ["a", "x"]
    assert sent(choice)["1"] == sent(choice)["2"] == sent(choice)["3"], "all are of one type"
    assert sent(choice)["2"][1] > 1.2 * 4000 / 1.387, (
        "noise does not shrink as the published ratio has it"
    )


def test_samples_stay_within_their_caps():
    values = parse_model(TEXT).entry.inputs
    assert sample_count(values) == MOST_CALLS
    assert (
        sample_count(parse_model(f"graph @main(%x: f32[{MOST_BYTES // 8}]) {{\n}}").entry.inputs)
        == 2
    )
    assert sample_count(parse_model(f"graph @main(%x: f32[{MOST_BYTES}]) {{\n}}").entry.inputs) == 1


def test_a_draft_is_about_what_training_finds():
    rng = np.random.default_rng(1)
    arrays = [
        np.cumsum(rng.standard_normal((1, 8, 24, 24)), -1).clip(0).astype(np.float32)
        for _ in range(3)
    ]
    spec = TensorSpec("t", "f32", arrays[0].shape)
    trained, drafted = (
        frame_bytes(how(arrays[:2], spec, layout="NCHW"), arrays[2:]) for how in (train, draft)
    )
    assert drafted < 1.1 * trained
    assert drafted < frame_bytes(replace(spec, codec="raw"), arrays[2:])


def test_plan_and_compile_measure_on_calibration_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """What the plan says of the cut is what the bundle's frames take."""
    words = ["--device", "pixel-2", "--link", "lte", "--codec", "static-rans", "--quantize", "int8"]
    words += ["--calibration", str(DIGITS / "pictures")]
    assert main(["plan", str(DIGITS / "digits.onnx"), *words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured_ratios"]["calls"] == 5
    assert main(["compile", str(DIGITS / "digits.onnx"), "-o", str(tmp_path / "b"), *words]) == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["choice"] == plan
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report["measured_ratios"] == plan["measured_ratios"]
    session = LocalSession(tmp_path / "b", DEFAULT_OPTIONS)
    pictures = load_calls([DIGITS / "pictures"], whole_model(DIGITS / "digits.onnx")[1])
    frames = [(session.run(picture), *session.frame_bytes)[1] for picture in pictures]
    assert np.mean(frames) == pytest.approx(sent(plan)[plan["cuts"][0]][1], rel=0.3)
