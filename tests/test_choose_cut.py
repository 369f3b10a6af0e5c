"""choose-cut: stretches and their costs, what is chosen and said, and the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cost_tables import brute_force
from irsplit.base.errors import PlanError
from irsplit.cli import main
from irsplit.engines.picture_baseline import measure_picture
from irsplit.ir import Graph, parse_model
from irsplit.measure.device_fit import fit
from irsplit.passes import Context, Pipeline
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.cuts import find_cuts, schedule
from irsplit.passes.analysis.recompute import Recompute
from irsplit.passes.choose_cut import ChooseCut, parse_limits
from irsplit.passes.partition import Partition
from irsplit.passes.planning import policies
from irsplit.passes.planning.cost_tables import cost_table
from irsplit.passes.planning.stages import chains, measured_times, moved_bytes
from irsplit.planner import Goal, plan, rank_cuts
from irsplit.planner.cost import Placement, link_ns
from irsplit.profiles import Message, link
from irsplit.profiles.measured import Load, MeasuredTransfer, ModelProfile, load_profile, to_json

# A large input, a small waist %b, a fork, a join, a small output; 4 bytes an element.
TEXT = """
graph @main(%x: f32[1,1000]) -> (%y) {
  %a = test.op(%x) : f32[1,500]
  %b = test.op(%a) : f32[1,10]
  %l = test.op(%b) : f32[1,800]
  %r = test.op(%b) : f32[1,800]
  %y = test.op(%l, %r) : f32[1,5]
}
"""


# A mask of the input's shape that every layer reads: only what recomputes it can be cut in between.
MASKED = """
graph @main(%x: f32[1,300]) -> (%y) {
  %m = test.cheap(%x) : f32[1,300]
  %a = test.op(%x) : f32[1,200]
  %n = test.cheap(%a) : f32[1,200]
  %b = test.op(%a, %m) : f32[1,100]
  %c = test.op(%b, %n) : f32[1,50]
  %d = test.op(%c, %b) : f32[1,20]
  %y = test.op(%d) : f32[1,5]
}
"""
INTERLEAVED = """
graph @main(%x: f32[1,1000]) -> (%y) {
  %a = test.op(%x) : f32[1,900]
  %b = test.op(%x) : f32[1,900]
  %c = test.op(%a) : f32[1,900]
  %d = test.op(%b) : f32[1,3]
  %e = test.op(%c) : f32[1,900]
  %f = test.op(%d) : f32[1,900]
  %g = test.op(%e) : f32[1,4]
  %h = test.op(%f) : f32[1,900]
  %y = test.op(%g, %h) : f32[1,5]
}
"""
RULES = Recompute(lambda node: node.op == "test.cheap", lambda node: False)


def graph() -> Graph:
    return parse_model(TEXT).entry


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An ONNX model of three operators: few parts to measure."""
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [64, 8], np.ones(512, np.float32)),
        helper.make_tensor("v", TensorProto.FLOAT, [8, 4], np.ones(32, np.float32)),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    shapes = {"x": [1, 64], "y": [1, 4]}
    ends = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(nodes, "small", [ends["x"]], [ends["y"]], weights)
    path = tmp_path / "small.onnx"
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path
    )
    return path


def load(wall_ns: int, peak_bytes: int = 0) -> Load:
    return Load(wall_ns, wall_ns, peak_bytes, 0)


def profile(**changes: object) -> ModelProfile:
    """Measured halves of the model above, cut after %a and after %b."""
    fields: dict[str, object] = {
        "model": "m",
        "digest": "",
        "machine": "here",
        "engine": "e",
        "threads": 1,
        "runs": 1,
        "cuts": ("1", "2"),
        "whole": load(10_000),
        "stretches": (load(1_000), load(2_000), load(9_000)),
        "prefixes": (load(1_000, 300), load(2_500, 700)),
        "suffixes": (load(9_500), load(8_000)),
    }
    return ModelProfile(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def test_stretches_lie_between_legal_cuts():
    parts = chains(find_cuts(graph()))[0]
    assert [cut.id for cut in parts.cuts] == ["1", "2"]
    assert parts.bounds == [(0, 1), (1, 2), (2, 5)]


def test_measured_halves_are_what_the_table_adds_up_to():
    parts = chains(find_cuts(graph()))[0]
    device_ns = measured_times(parts, profile(), before=True)
    server_ns = measured_times(parts, profile(), before=False)
    assert device_ns == [1_000, 1_500, 7_500]
    assert server_ns == [500, 1_500, 8_000]
    table = cost_table("m", parts, device_ns, server_ns, link("wifi"), peaks=profile().prefixes)
    rows = {row.device_stages: row.costs for row in rank_cuts(table, Goal("latency", {}))}
    assert (rows[2].terms["device_ns"], rows[2].terms["server_ns"], rows[2].metrics["memory"]) == (
        2_500,
        8_000,
        700,
    )
    assert rows[2].metrics["bytes"] == 40 + 20
    assert [tensor.name for tensor in table.tensors] == ["x", "a", "b", "y"]


def test_noise_never_makes_a_time_negative():
    parts = chains(find_cuts(graph()))[0]
    noisy = profile(prefixes=(load(3_000), load(2_000)), whole=load(10_000))
    assert measured_times(parts, noisy, before=True) == [2_500, 0, 7_500]


def test_a_profile_of_other_cuts_is_refused():
    parts = chains(find_cuts(graph()))[0]
    with pytest.raises(PlanError, match="does not fit this model with 2 legal cuts"):
        measured_times(parts, profile(cuts=("1", "3")), before=True)


def test_a_profile_of_another_model_with_the_same_ids_is_refused():
    parts = chains(find_cuts(graph()))[0]
    wider = profile(prefixes=(Load(1, 1, 0, 2_000), Load(2, 2, 0, 999)))
    with pytest.raises(
        PlanError, match=r"of 'm' is of another model than this, by cut 2: it sends 999 bytes there"
    ):
        measured_times(parts, wider, before=True)
    with pytest.raises(PlanError, match="by cut 1: it has no tensor 'a'"):
        measured_times(parts, profile(tensors={"other": ()}), before=False)


def test_a_chain_prices_what_its_boundaries_are():
    """Sends of the table at every cut are its boundary's tensors, without recomputed values."""
    model = parse_model(MASKED)
    for max_tensors in (1, 2):
        for parts in chains(find_cuts(model.entry, max_tensors, recompute=RULES)):
            steps = [1] * len(parts.bounds)
            rows = rank_cuts(cost_table("m", parts, steps, steps, link("wifi")), Goal("bytes", {}))
            sent = {row.device_stages: row.costs.metrics["bytes"] for row in rows}
            returned = estimated_bytes(model.entry.outputs)
            for groups, cut in enumerate(parts.cuts, 1):
                assert sent[groups] == cut.estimated_bytes + returned, cut.id


def test_results_of_unknown_shape_return_all_the_same():
    """A detector's head: how many it finds is known to nobody before it ran."""
    model = parse_model(
        TEXT.replace("%y = test.op(%l, %r) : f32[1,5]", "%y = test.op(%l, %r) : f32[*]")
    )
    choice = ChooseCut(link="wifi").choose(model, Context())
    assert [cut.id for cut in choice.cuts] == ["2"]
    assert "how large y are is not known: their way back counts as nothing" in choice.notes


def test_cuts_of_every_order_are_priced_and_compiled():
    """Two branches that the file interleaves: only in another order is little sent."""
    model = parse_model(INTERLEAVED)
    context = Context()
    legal = {cut.id for cut in context.cuts(model, 2) if cut.legal}
    assert any(not id.isdecimal() for id in legal)
    choice = ChooseCut(device="pixel-2", link="3g", max_tensors=2).choose(model, context)
    assert {option.label for option in choice.ranked} == legal | {"device only", "server only"}
    best = min(context.cuts(model, 2), key=lambda cut: cut.size_bytes() if cut.legal else 1 << 60)
    assert not best.id.isdecimal()
    assert [cut.id for cut in choice.cuts] == [best.id]
    Pipeline((ChooseCut(device="pixel-2", link="3g", max_tensors=2), Partition(max_tensors=2))).run(
        model, context
    )
    assert len(model.segments) == 2


def test_the_best_rank_is_the_best_of_all_placements():
    """The planner over stretches and the ranking of prefixes agree, and with brute force."""
    parts = chains(find_cuts(graph()))[0]
    table = cost_table(
        "m", parts, [100_000, 200_000, 900_000], [10_000, 20_000, 90_000], link("4g")
    )
    for goal in (
        Goal("latency", {}),
        Goal("energy", {}),
        Goal("throughput", {}),
        Goal("latency", {"memory": 5_000}),
    ):
        best = rank_cuts(table, goal)[0].value
        assert best == brute_force(table, goal, monotone=True)
        assert best == plan(table, goal.objective, limits=goal.limits).value


def write(tmp_path: Path, measured_: ModelProfile) -> str:
    path = tmp_path / "profile.json"
    path.write_text(to_json(measured_))
    return str(path)


def test_profile_json_round_trip(tmp_path: Path):
    message = Message(device_ns=3, exchange_ns=5, up_bytes=7, down_bytes=9)
    whole = profile(
        tensors={"b": (MeasuredTransfer("raw", 40, 1, 2), MeasuredTransfer("zstandard", 30, 5, 6))},
        message=message,
    )
    path = write(tmp_path, whole)
    assert load_profile(path) == whole
    slow = load_profile(f"{path},slowdown=4")
    assert load_profile(f"{path},clock=cpu") == whole
    assert (slow.whole.wall_ns, slow.tensors["b"][1].encode_ns) == (40_000, 20)
    assert slow.message == Message(device_ns=12, exchange_ns=5, up_bytes=7, down_bytes=9)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (",slowdown=0", "unknown change 'slowdown=0'"),
        (",speed=2", "unknown change 'speed=2'"),
    ],
)
def test_bad_changes_of_a_profile(tmp_path: Path, change: str, text: str):
    with pytest.raises(PlanError, match=text):
        load_profile(write(tmp_path, profile()) + change)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "text", '{"format": "irsplit-profile/2", "cuts": []}']
)
def test_a_bad_profile_names_its_file(tmp_path: Path, text: str):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"bad\.json"):
        load_profile(str(path))


def test_choose_cut_feeds_partition(tmp_path: Path):
    model = parse_model(TEXT)
    context = Context()
    choose = ChooseCut(device=f"{write(tmp_path, profile())},slowdown=2", link="wifi")
    Pipeline((choose, Partition())).run(model, context)
    assert [segment.placement for segment in model.segments] == ["device", "server"]
    assert context.chosen.cuts == ("2",)
    choice = context.details["choice"]
    assert choice["value"] == choice["bound"]
    assert set(choice["baselines"]) == {
        "device only",
        "server only, raw input",
        "server only, compressed input",
    }
    assert json.loads(json.dumps(choice)) == choice


def test_the_pass_prints_and_parses():
    choose = ChooseCut(
        device="pixel-2", link="wifi,rtt=10ms", limit=("memory=64MB", "latency=1s"), rule="dads"
    )
    pipeline = Pipeline((choose, Partition()))
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_any_pattern_may_come_back(tmp_path: Path):
    """A middle that only the server does well, between ends that only the device does."""
    far = profile(prefixes=(), suffixes=(), stretches=(load(9 * 10**9), load(1), load(9 * 10**9)))
    near = profile(prefixes=(), suffixes=(), stretches=(load(1), load(9 * 10**9), load(1)))
    (tmp_path / "far.json").write_text(to_json(far))
    (tmp_path / "near.json").write_text(to_json(near))
    model, context = parse_model(TEXT), Context()
    choose = ChooseCut(
        device=str(tmp_path / "near.json"), server=str(tmp_path / "far.json"), pattern="any"
    )
    Pipeline((choose, Partition())).run(model, context)
    assert [segment.placement for segment in model.segments] == ["device", "server", "device"]
    said, warned = (remark.text for remark in context.remarks)
    assert said.startswith("cut 1 (after a), 2 (after b), on device, server, device: latency ")
    assert warned.startswith(
        "a segment between two cuts counts as the difference of what was measured"
    )
    single = replace(choose, pattern="single").choose(parse_model(TEXT), Context())
    assert warned not in single.notes


def test_jointdnn_takes_blocks_as_they_were_measured(tmp_path: Path):
    """Alone, the middle is far cheaper than in a prefix or suffix, so visiting the server pays."""
    near = profile(
        stretches=(load(1), load(8 * 10**9), load(1)),
        prefixes=(load(1), load(8 * 10**9)),
        suffixes=(load(8 * 10**9), load(1)),
        whole=load(8 * 10**9),
    )
    far = profile(
        stretches=(load(9 * 10**9), load(5), load(9 * 10**9)),
        prefixes=(load(9 * 10**9), load(14 * 10**9)),
        suffixes=(load(14 * 10**9), load(9 * 10**9)),
        whole=load(23 * 10**9),
    )
    (tmp_path / "far.json").write_text(to_json(far))
    options = {"server": str(tmp_path / "far.json"), "link": "wifi,rtt=0ms", "pattern": "any"}
    joint = ChooseCut(device=write(tmp_path, near), rule="jointdnn", **options)
    choice = joint.choose(parse_model(TEXT), Context())
    assert (choice.placements, [cut.id for cut in choice.cuts]) == (
        ("device", "server", "device"),
        ["1", "2"],
    )
    sent = link_ns(np.array([2000]), link("wifi").up_bit_s) + link_ns(
        np.array([40]), link("wifi").down_bit_s
    )
    assert choice.value == 1 + 5 + 1 + sent
    summed = replace(joint, rule="collabdnn").choose(parse_model(TEXT), Context())
    assert summed.value > 10**9, "sums of differences know nothing of the middle alone"


def test_without_a_paying_split_the_best_one_comes_with_a_warning(tmp_path: Path):
    model, context = parse_model(TEXT), Context()
    ChooseCut(device=write(tmp_path, profile()), link="3g").run(model, context)
    assert context.chosen.cuts == ("2",)
    assert [r.text for r in context.remarks if r.warning] == [
        "no split pays: everything on the device is best: latency 10 us"
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rule": "guess"}, "unknown rule 'guess'"),
        ({"objective": "speed"}, "unknown objective 'speed'"),
        ({"pattern": "MCM"}, "unknown pattern 'MCM'"),
        ({"load": 0}, "must be positive"),
        ({"limit": ("memory=lots",)}, "'lots' is not a number with a unit"),
        ({"limit": ("speed=1s",)}, "unknown limit 'speed=1s'"),
        ({"limit": ("latency=1ns",)}, "limit latency=1 ns cannot be met: every cut needs at least"),
        ({"objective": "energy"}, "has no active_power"),
        ({"rule": "ushakov"}, "needs the limits memory, device and bytes"),
        ({"rule": "dads", "limit": ("memory=1MB",)}, "rule dads has no limits"),
        ({"rule": "jointdnn", "limit": ("memory=1MB",)}, "rule jointdnn has no limit 'memory'"),
        (
            {"rule": "jointdnn", "limit": ("server=1s", "latency=1ns")},
            "limit latency=1 ns cannot be met: every cut",
        ),
    ],
)
def test_bad_options_are_named(options: dict[str, object], text: str):
    with pytest.raises(PlanError, match=text):
        ChooseCut(**options).choose(parse_model(TEXT), Context())


def test_a_cut_of_ushakovs_rule_that_breaks_a_limit_is_refused(tmp_path: Path):
    """Level 1 is all that the memory holds, and it sends 2000 bytes where level 2 would send 40."""
    model, context = parse_model(TEXT), Context()
    limits = ("memory=500B", "device=1s", "bytes=100B")
    choose = ChooseCut(device=write(tmp_path, profile()), rule="ushakov", limit=limits)
    choice = choose.choose(model, context)
    assert (choice.cuts, choice.notes) == ((), ("rule ushakov: j=1 k=3 q=2 g=1",))
    with pytest.raises(
        PlanError, match=r"g=1, and level 1 breaks bytes=100 B; loosen a limit, or take rule exact"
    ):
        choose.run(model, context)
    with pytest.raises(
        PlanError,
        match="g=0, and not even the first level keeps memory=1 B and device=1 ns; loosen",
    ):
        replace(choose, limit=("memory=1B", "device=1ns", "bytes=1MB")).run(model, context)
    loose = replace(choose, limit=("memory=1kB", "device=1s", "bytes=100B"))
    assert [cut.id for cut in loose.choose(model, context).cuts] == ["2"]


def test_a_plan_fits_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Columns of one unit each, without those of zeros; what breaks a limit is marked."""
    model = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
    words = ["--device", "jetson-tk1-cpu", "--link", "lte,rtt=20ms", "--limit", "memory=100kB"]
    assert main(["plan", str(model), *words]) == 0
    units, *lines = capsys.readouterr().out.splitlines()
    rows = lines[: lines.index(next(line for line in lines if "server, coded" in line)) + 1]
    assert units == "times in ms, sent in kB, memory in kB, energy in mJ; ! over a limit"
    assert (
        " ".join(rows[0].split())
        == "cut latency device code up server down message sent memory energy after"
    )
    assert {row.split()[1] for row in rows if "!" in row} == {"!"}
    assert main(["plan", str(model), "--link", "lte"]) == 0
    _, head, *rows = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "cut latency device code up server down sent memory after"
    assert max(map(len, (head, *rows[:13]))) <= 80


def test_limits_have_units():
    assert parse_limits(["memory=64MB", "device-memory=1kB", "latency=1.5ms", "energy=2J"]) == {
        "memory": 1_000,
        "latency": 1_500_000,
        "energy": 2 * 10**9,
    }


def test_profile_then_plan_then_compile(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A measured profile drives a plan; the bundle says what was chosen and why."""
    measured_ = tmp_path / "measured.json"
    assert main(["profile", str(small), "-o", str(measured_), "--runs", "3"]) == 0
    found = load_profile(str(measured_))
    assert len(found.stretches) == len(found.cuts) + 1
    assert len(found.prefixes) == len(found.suffixes) == len(found.cuts)
    assert all(load.wall_ns > 0 for load in (*found.stretches, *found.prefixes, *found.suffixes))
    assert {coding.codec for codings in found.tensors.values() for coding in codings} == {
        "raw",
        "zstandard",
    }
    assert found.message.exchange_ns > 10_000
    assert 50 < found.message.up_bytes < 2_000
    assert 50 < found.message.down_bytes < 2_000
    capsys.readouterr()
    options = ["--device", f"{measured_},slowdown=500", "--link", "4g"]
    assert main(["plan", str(small), *options, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["value"] == min(
        row["value"] for row in planned["ranked"] if row["cut"].isdigit()
    )
    assert main(["compile", str(small), "-o", str(tmp_path / "bundle"), *options]) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["choice"]["cuts"]
    assert manifest["pipeline"].startswith("rematerialise,choose-cut{device=")
    assert main(["verify", str(tmp_path / "bundle")]) == 0


def test_a_picture_is_the_baseline_to_beat(tmp_path: Path):
    """The input as JPEG prices the third baseline, and nothing else."""
    seen = profile(previews={"x": (MeasuredTransfer("jpeg-q95", 10, 1, 1),)})
    choice = ChooseCut(device=f"{write(tmp_path, seen)},slowdown=1000", link="4g").choose(
        parse_model(TEXT), Context()
    )
    values = {baseline.name: baseline.costs for baseline in choice.baselines}
    assert values["server only, compressed input"].switches[0].codec == "jpeg-q95"
    assert values["server only, raw input"].metrics["bytes"] == 4_000 + 20
    assert {way.codec for tensor in choice.chain.table.tensors for way in tensor.up} == {"raw"}


@pytest.mark.parametrize("shape", [(1, 16, 24, 3), (1, 3, 16, 24), (16, 24, 1)])
def test_pictures_are_recognised(shape: tuple[int, ...]):
    found = measure_picture(np.zeros(shape, np.float32))
    assert [coding.codec for coding in found] == ["webp-lossless", "jpeg-q95", "jpeg-q75"]
    assert all(0 < coding.size_bytes < 1000 for coding in found)


@pytest.mark.parametrize("shape", [(1, 10), (1, 16, 24, 5), (2, 16, 24, 3), (1, 2, 2, 3)])
def test_other_inputs_are_no_pictures(shape: tuple[int, ...]):
    assert measure_picture(np.zeros(shape, np.float32)) == ()


def test_rates_learned_from_a_model_price_its_parts():
    """Times that follow the model exactly are learned exactly."""
    plan_ = schedule(parse_model(TEXT).entry)
    parts = chains(find_cuts(plan_))[0]
    moved = [
        sum(moved_bytes(node) for node in plan_.nodes[start:stop]) for start, stop in parts.bounds
    ]
    times = tuple(load(2 * size) for size in moved)
    found = fit(parts, lambda node: 0, profile(stretches=times))
    assert found.costs["bytes"] == pytest.approx(2)
    assert found.costs["conv"] is None
    assert found.median_error == pytest.approx(0, abs=1e-9)


def test_this_machine_is_what_was_fitted(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", str(small), "--device", "this-machine"]) == 2
    assert "measure it: irsplit profile MODEL" in capsys.readouterr().err
    words = [
        "profile",
        str(small),
        "-o",
        "p.json",
        "--quick",
        "--runs",
        "3",
        "--fit",
        "this-machine.toml",
    ]
    assert main(words) == 0
    assert "rates learned from 3 parts" in capsys.readouterr().out
    assert main(["plan", str(small), "--device", "this-machine", "--link", "4g"]) == 0


def test_impossible_limits_exit_with_2(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [
        "compile",
        str(small),
        "-o",
        str(tmp_path / "b"),
        "--device",
        "pixel-2",
        "--limit",
        "latency=1ns",
    ]
    assert main(words) == 2
    assert "limit latency=1 ns cannot be met" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert main(["plan", str(small), "--device", "no-such-phone"]) == 2
    assert "unknown device 'no-such-phone'" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["single", "several"])
def test_a_plan_without_an_allowed_split_still_tells_what_it_knows(
    pattern: str, small: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", str(small), "--limit", "memory=1B", "--pattern", pattern, "--json"]) == 2
    told = capsys.readouterr()
    choice = json.loads(told.out)
    assert choice["cuts"] == []
    assert [row["cut"] for row in choice["ranked"] if row["allowed"]] == ["server only"]
    assert told.err.startswith(
        "error: no split is allowed: no cut keeps memory=1 B; loosen a limit"
    )


@pytest.mark.parametrize(
    ("placements", "problem"),
    [
        (("server", "device", "device"), "comes back to the device"),
        (("device",), "places 1 of 3 stages"),
        (("device", "device", "server"), ""),
    ],
)
def test_a_policy_of_a_package(
    placements: tuple[str, ...], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Point:
        name = value = "theirs"

        def load(self):
            return lambda table, objective: tuple(map(Placement, placements))

    monkeypatch.setattr(policies, "entry_points", lambda group: [Point()])
    model = parse_model(
        "graph @main(%x: f32[1,1000]) -> (%y) {\n"
        "  %a = test.op(%x) : f32[1,100]\n"
        "  %b = test.op(%a) : f32[1,10]\n"
        "  %y = test.op(%b) : f32[1,10]\n"
        "}\n"
    )
    chooser = ChooseCut(rule="theirs")
    if problem:
        with pytest.raises(PlanError, match=problem):
            chooser.choose(model, Context())
        return
    choice = chooser.choose(model, Context())
    assert (choice.policy, [cut.id for cut in choice.cuts]) == ("theirs", ["2"])
