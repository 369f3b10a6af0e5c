"""irsplit bench: every figure of every cut, and what has changed since an earlier run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from irsplit.cli import main
from irsplit.measure.bench import PHASES, Bench, CutCost, Timing, Unsplit, load_bench, to_json
from irsplit.measure.comparison import compare

DIGITS = Path(__file__).parent.parent / "examples" / "digits"


def bench(*words: object) -> int:
    return main(["bench", *map(str, words), "--runs", "3", "--warmup", "1"])


def test_a_cut_measured_in_fresh_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "bench.json"
    picture = f"image={DIGITS / 'pictures' / '3.png'}"
    assert bench(DIGITS / "digits.onnx", "--cuts", "11", "--input", picture, "--json", report) == 0
    printed = capsys.readouterr()
    assert "bottleneck/relu" in printed.out
    assert "made up" not in printed.err
    found = load_bench(report)
    (cut,) = found.cuts
    assert (cut.id, cut.kind, cut.boundary, cut.raw_bytes) == (
        "11",
        "strict",
        "bottleneck/relu",
        256,
    )
    assert 40 < cut.frame_bytes < 256 + 64
    assert set(cut.times) == {"whole", *PHASES, "total"}
    assert all(time.median_ns > 0 and time.runs == 3 for time in cut.times.values())
    assert cut.times["total"].median_ns >= max(cut.times[phase].median_ns for phase in PHASES)
    assert min(cut.device_peak_bytes, cut.server_peak_bytes, found.whole_peak_bytes) > 1 << 20
    assert [case.name for case in found.unsplit] == [
        "device only", "server only, raw input", "server only, compressed input",
    ]  # fmt: skip
    assert (
        found.unsplit[0].sent_bytes == 0 < found.unsplit[2].sent_bytes < found.unsplit[1].sent_bytes
    )
    assert found.engine.startswith("onnxruntime 1")


def test_the_json_form_is_read_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = (
        DIGITS / "digits.tflite",
        "--cuts",
        "2,6",
        "--quick",
        "--link",
        "lte,rtt=50ms",
        "--slowdown",
        "4",
    )
    assert (
        bench(*words, "--quantize", "int8", "--calibration", DIGITS / "pictures", "--json", "-")
        == 0
    )
    text = capsys.readouterr().out
    (tmp_path / "bench.json").write_text(text)
    found = load_bench(tmp_path / "bench.json")
    assert to_json(found) == text
    assert json.loads(text)["format"] == "irsplit-bench/1"
    assert [cut.id for cut in found.cuts] == ["2", "6"]
    assert found.cuts[0].device_peak_bytes == 0, "not measured in one process"
    assert all(cut.frame_bytes < cut.raw_bytes / 2 for cut in found.cuts), "int8 on the wire"
    assert all(cut.latency_ns > 50e6 for cut in found.cuts)
    assert found.conditions["boundary"] == "int8"


def test_rejected_positions_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        bench(
            DIGITS / "digits.tflite", "--cuts", "all", "--quick", "--json", tmp_path / "bench.json"
        )
        == 0
    )
    assert "is pending" in capsys.readouterr().out
    assert set(load_bench(tmp_path / "bench.json").rejected) == {"3", "4", "8", "9"}


def made(**figures: float) -> Bench:
    """A bench of one cut; times are 1 ms with a spread of 20 us unless a figure differs."""
    times = {
        name: Timing(round(figures.get(name, 1e6)), 20_000, 15)
        for name in ("whole", *PHASES, "total")
    }
    frame, memory = int(figures.get("frame", 500)), int(figures.get("memory", 1 << 24))
    cut = CutCost("4", "strict", "relu", 1024, frame, times, 0.1, 0.01, memory, memory, 10**7)
    whole = Timing(10**6, 20_000, 15)
    return Bench(
        "1",
        "m.onnx",
        "00",
        "here",
        2,
        "engine 1",
        {},
        whole,
        1 << 20,
        (Unsplit("device only", 0, 1),),
        (cut,),
    )


def test_what_counts_as_a_change() -> None:
    old = made()
    assert compare(old, made(device=1_030_000)).beyond() == ()
    slower = compare(old, made(device=1_050_000, total=1_100_000))
    assert [(change.figure, round(change.percent)) for change in slower.beyond()] == [
        ("device", 5),
        ("total", 10),
    ]
    assert [change.figure for change in slower.worse(9.0)] == ["total"]
    assert slower.worse(10.5) == ()
    assert compare(old, made(total=900_000)).worse(0) == (), "faster is not worse"
    assert [change.figure for change in compare(old, made(frame=501)).worse(0)] == ["frame"]
    assert [c.figure for c in compare(old, made(memory=1 << 25)).beyond()] == [
        "device memory",
        "server memory",
    ]


def test_cuts_are_matched_by_what_crosses() -> None:
    old, new = made(), made()
    moved = replace(
        new, cuts=(replace(new.cuts[0], id="9"), replace(new.cuts[0], boundary="other"))
    )
    found = compare(old, moved)
    assert {change.cut for change in found.changes} == {"9"}
    assert (found.only_new, found.only_old) == (("other",), ())
    assert compare(old, replace(new, machine="there")).conditions == (
        "machine: here then, there now",
    )


def test_a_run_against_an_earlier_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (DIGITS / "digits.onnx", "--cuts", "11", "--quick")
    assert bench(*words, "--json", tmp_path / "old.json") == 0
    data = json.loads((tmp_path / "old.json").read_text())
    for cut in data["cuts"]:
        cut["frame_bytes"] //= 2
    (tmp_path / "old.json").write_text(json.dumps(data))
    capsys.readouterr()
    assert bench(*words, "--baseline", tmp_path / "old.json") == 0
    assert "frame" in capsys.readouterr().out
    assert bench(*words, "--baseline", tmp_path / "old.json", "--fail-above", "90") == 1
    assert "FAILED: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cuts", "5"), "'5' is no legal cut: %down/relu is pending"),
        (("--cuts", "7,nowhere"), "no legal cut"),
        (("--fail-above", "5"), "--fail-above compares with an earlier run"),
        (("--slowdown", "0"), "--slowdown positive"),
        (("--baseline", DIGITS / "digits.onnx"), "damaged"),
        (("--baseline", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_refused(words: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(DIGITS / "digits.onnx", *words) == 2
    assert said in capsys.readouterr().err
