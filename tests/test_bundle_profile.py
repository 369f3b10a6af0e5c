"""A profile of a bundle, measured without its model, and planned with where the model is."""

import json
import re
import shutil
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from irsplit.base.errors import PlanError
from irsplit.cli import main
from irsplit.compilation.old_names import compile_model
from irsplit.ir import parse_model
from irsplit.measure.bundle_profiling import profile_bundle, tensors_to_feed
from irsplit.measure.measurement import Effort
from irsplit.passes.analysis.cuts import find_cuts
from irsplit.passes.planning.segment_times import segment_times
from irsplit.passes.planning.stages import Stages, chains
from irsplit.profiles import CodecSpeed
from irsplit.profiles.measured import BundleProfile, Load, MeasuredTransfer, load_profile, to_json
from irsplit.runtime.bundle.manifest import Manifest

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
QUICK = Effort(runs=2, warmup=1, fresh=False)

TEXT = """
graph @main(%x: f32[1,4]) -> (%y) {
  %a = test.op(%x) : f32[1,4]
  %b = test.op(%a) : f32[1,4]
  %c = test.op(%b) : f32[1,4]
  %y = test.op(%c) : f32[1,4]
}
"""


def profile(
    *times: int | None, boundaries: tuple[tuple[str, ...], ...], **changes: object
) -> BundleProfile:
    common = {
        "model": "m",
        "digest": "",
        "machine": "here",
        "engine": "e",
        "threads": 1,
        "runs": 1,
        "bundle": "",
    }
    segments = tuple(None if time is None else Load(time, time, 0, 0) for time in times)
    return BundleProfile(**{**common, **changes}, boundaries=boundaries, segments=segments)


def parts() -> Stages:
    return chains(find_cuts(parse_model(TEXT).entry))[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four segments, of which the device has three."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    compile_model(DIGITS, folder, ["4", "8", "11"], adaptive=True, remember=False)
    return folder


def side_of(bundle: Path, place: str, folder: Path) -> Path:
    """A copy of what one side has."""
    shutil.copytree(bundle / place, folder / place)
    shutil.copy(bundle / "manifest.json", folder)
    return folder


def test_times_are_measured_at_the_bundles_cuts_and_shared_out_between():
    found = segment_times(parts(), profile(1_000, 500, boundaries=(("c",),)), lambda node: 9)
    assert found == [333, 333, 334, 500]
    assert segment_times(parts(), profile(700, boundaries=()), lambda node: 0) == [175] * 4


def test_what_was_not_measured_is_as_slow_as_what_was():
    found = segment_times(
        parts(), profile(None, 300, None, boundaries=(("a",), ("b",))), lambda node: 0
    )
    assert found == [300, 300, 300, 300]


def test_a_profile_of_other_cuts_is_refused():
    with pytest.raises(
        PlanError, match=r"a bundle of 'm': no legal cut of this model sends z; give the model"
    ):
        segment_times(parts(), profile(1, 1, boundaries=(("z",),)), lambda node: 0)


def test_codecs_keep_their_speed_on_tensors_that_were_not_measured():
    ways = (
        MeasuredTransfer("raw", 1_000, 1, 1),
        MeasuredTransfer("zstandard", 100, 500, 250),
        MeasuredTransfer("static-rans", 9, 50, 20, bits=8),
    )
    found = profile(1, boundaries=(), tensors={"a": ways, "b": ways})
    assert found.speeds(0)["zstandard"] == CodecSpeed(2 * 10**9, 4 * 10**9)
    assert found.speeds(8) == {"static-rans": CodecSpeed(20 * 10**9, 50 * 10**9)}


def test_json_round_trip(tmp_path: Path):
    found = profile(
        5, None, boundaries=(("a", "b"),), tensors={"a": (MeasuredTransfer("raw", 1, 2, 3),)}
    )
    path = tmp_path / "p.json"
    path.write_text(to_json(found))
    assert load_profile(str(path)) == found
    slow = load_profile(f"{path},slowdown=3")
    assert isinstance(slow, BundleProfile)
    assert slow.segments == (Load(15, 15, 0, 0), None)
    path.write_text(to_json(replace(found, segments=(None, None))))
    with pytest.raises(PlanError, match=r"damaged profile .no segment was measured"):
        load_profile(str(path))


def test_a_device_measures_its_side_and_the_build_machine_plans_with_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    side, path = side_of(bundle, "device", tmp_path / "side"), tmp_path / "device.json"
    assert main(["profile", str(side), "-o", str(path), "--quick", "--runs", "2"]) == 0
    said = capsys.readouterr().out
    assert "segment3: not here" in said
    assert "3 of 4 segments of digits.onnx measured" in said
    found = load_profile(str(path))
    assert isinstance(found, BundleProfile)
    assert found.message.exchange_ns == 0
    assert {way.codec for way in found.tensors["block1/add"]} == {"raw", "zstandard"}
    assert main(["plan", str(DIGITS), "--device", str(path), "--link", "lte", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (
        "measured at the bundle's cuts (4, 8, 11) and estimated between them; segment 3"
        in planned["notes"][-1]
    )
    times = {row["cut"]: row["terms"]["device_ns"] for row in planned["ranked"]}
    sums = accumulate(load.wall_ns for load in found.segments if load is not None)
    assert [times["4"], times["8"], times["11"]] == list(sums)
    assert times["4"] < times["9"] < times["11"] < times["13"]


def test_a_server_is_fed_what_comes_in_a_frame(bundle: Path, tmp_path: Path):
    side = side_of(bundle, "server", tmp_path / "side")
    assert [info.name for info in tensors_to_feed(Manifest.load(side))] == ["down/relu"]
    found = profile_bundle(side, dims={"down/relu": 2}, effort=QUICK)
    assert [load is None for load in found.segments] == [True, False, False, False]
    assert found.tensors["block1/add"][0].size_bytes > 2 * 24 * 8 * 8 * 4


def test_operators_at_a_boundary_are_looked_through(tmp_path: Path):
    calls = [{"image": np.ones((1, 1, 16, 16), np.float32)}]
    compile_model(
        DIGITS,
        tmp_path / "b",
        ["11"],
        boundary="int8",
        boundary_ops=True,
        calibration=calls,
        remember=False,
    )
    assert profile_bundle(tmp_path / "b", effort=QUICK).boundaries == (("bottleneck/relu",),)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--fit", "x.toml"], "--fit: only for a model, and .* is a bundle"),
        (
            ["--max-tensors", "2", "--no-rematerialise"],
            "--max-tensors, --no-rematerialise: only for a model",
        ),
        (["--dim", "picture=2"], "no input has that dimension; those that vary: image"),
    ],
)
def test_what_only_a_model_has_is_refused(
    bundle: Path, tmp_path: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["profile", str(bundle), "-o", str(tmp_path / "p.json"), *words]) == 2
    assert re.search(text, capsys.readouterr().err)
