"""The papers' checks: architectures, Ushakov's rule, communication shares, Neurosurgeon."""

from pathlib import Path

import pytest

from benchmarks import paper_jointdnn, paper_neurosurgeon, paper_ushakov, papers
from benchmarks.networks import alexnet, cost_table, resnet50, resnet101_v2, vgg16
from benchmarks.resnet import build as build_resnet
from cost_tables import brute_force
from irsplit.base.errors import PlanError
from irsplit.dialects.registry import dialect_of
from irsplit.passes.analysis.cuts import legal_cuts
from irsplit.planner import Goal, plan
from irsplit.planner.cost import CostTable
from irsplit.planner.network import build
from irsplit.planner.placement import evaluate
from irsplit.planner.policies import (
    Prefix,
    collabdnn,
    dads,
    jointdnn,
    neurosurgeon,
    prefixes,
    ushakov,
    ushakov_cut,
)
from irsplit.planner.terms import metric_terms
from irsplit.profiles import device, link


def test_parameters_of_the_networks():
    assert (
        tuple(n for n in (layer.parameters for layer in alexnet().layers) if n)
        == paper_jointdnn.ALEXNET_PARAMETERS
    )
    assert alexnet().parameters == 62_378_344
    assert vgg16().parameters == 138_357_544
    assert resnet50().parameters == 25_557_032


def test_the_resnet_that_is_built_is_the_one_in_the_tables(tmp_path: Path):
    path = tmp_path / "resnet.onnx"
    assert build_resnet(path) == resnet101_v2().parameters == 44_577_896
    dialect = dialect_of(path)
    cuts = {cut.tensors[0].name: cut for cut in legal_cuts(dialect.read(path).entry)}
    for level in paper_ushakov.levels(resnet101_v2())[:-1]:
        name = next(
            tensor for tensor, called in paper_ushakov.LEVELS.items() if called == level.name
        )
        assert cuts[name].size_bytes() == 4 * level.elements
        assert cuts[name].kind == "strict"


def test_boundaries_of_resnet_v2_101():
    network = resnet101_v2()
    found = {level.name: level for level in paper_ushakov.levels(network)}
    expected = {  # elements, device weights in MB, share of multiply-adds in %
        "conv1": (802_816, 0.04, 1.5),
        "pool1": (200_704, 0.04, 1.5),
        "conv2_x": (802_816, 0.90, 10.1),
        "conv3_x": (401_408, 5.78, 23.2),
        "conv4_x": (200_704, 110.2, 89.6),
        "all": (1_000, 178.3, 100.0),
    }
    for name, (elements, weights, share) in expected.items():
        level = found[name]
        assert level.elements == elements
        assert level.weight_bytes / 1e6 == pytest.approx(
            weights, abs=0.05 if weights > 100 else 0.005
        )
        assert 100 * level.macs / network.macs == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(
    ("cpu_max", "j", "k", "q", "g", "fuzzy", "feasible"),
    [(25, 3, 3, 3, 3, None, True), (20, 3, 3, 3, 3, "cpu", True), (12, 3, 2, 3, 2, None, False)],
)
def test_rule_of_ushakov(
    cpu_max: int, j: int, k: int, q: int, g: int, fuzzy: str | None, feasible: bool
):
    cut = paper_ushakov.rule(cpu_max)
    assert (cut.j, cut.k, cut.q, cut.g, cut.fuzzy, cut.feasible) == (j, k, q, g, fuzzy, feasible)


def test_the_literal_rule_has_no_fuzzy_bound():
    levels = [Prefix(1, 10, 9), Prefix(2, 20, 8), Prefix(3, 31, 7)]
    assert ushakov_cut(levels, 3, 30, 7).g == 3
    literal = ushakov_cut(levels, 3, 30, 7, fuzzy=False)
    assert (literal.k, literal.g, literal.feasible) == (2, 2, False)


def test_nothing_fits():
    cut = ushakov_cut([Prefix(10, 10, 10)], 5, 50, 50)
    assert (cut.g, cut.feasible) == (0, False)


@pytest.mark.parametrize(("name", "published"), paper_jointdnn.SHARES.items())
def test_communication_shares(name: str, published: int):
    assert paper_jointdnn.communication_share_percent(name) / 100 == pytest.approx(published, abs=1)


def table() -> CostTable:
    return cost_table(alexnet(), device("jetson-tk1-cpu"), device("tesla-k40"), link("4g"))


def test_policies_agree_on_a_chain_without_limits():
    costs = table()
    best = plan(costs).value
    for choice in (neurosurgeon(costs), dads(costs), collabdnn(costs), jointdnn(costs)):
        assert choice.value == best
        assert choice.costs.switches[0].tensor == "pool5"


def test_ushakov_on_a_table_runs_its_prefix():
    costs = table()
    loads = prefixes(costs)
    choice, cut = ushakov(
        costs,
        "latency",
        memory_max=loads[14].memory_bytes,
        cpu_max=loads[14].cpu,
        sent_max=loads[14].sent_bytes,
    )
    assert cut.g == choice.placements.count("device") == 15
    assert choice.value == neurosurgeon(costs).value


def test_blocks_change_the_path_of_jointdnn():
    costs = table()
    columns = costs.columns

    def fused(place: int, start: int, stop: int):
        """Every block but the last group runs in no time on the device when it is run in one go."""
        terms = (columns.device if place == 0 else columns.server)[:, start:stop].sum(axis=1)
        return terms * 0 if place == 0 and stop - start == len(costs.stages) else terms

    assert jointdnn(costs, blocks=fused).costs.pattern == "M"
    assert jointdnn(costs, blocks=fused).value == 0


def test_jointdnn_keeps_its_limits():
    costs = table()
    free = jointdnn(costs)
    limit = free.costs.metrics["energy"] - 1
    bound = jointdnn(costs, battery_nj=limit)
    assert bound.costs.metrics["energy"] <= limit
    assert bound.value == plan(costs, limits={"energy": limit}, monotone=False).value > free.value
    with pytest.raises(PlanError, match=r"no path keeps the limits \(latency=1 ns\)"):
        jointdnn(costs, qos_ns=1)


def test_the_tables_are_the_same_from_run_to_run():
    assert papers.report() == papers.report()
    assert "differs" not in paper_jointdnn.table()


needs_data = pytest.mark.skipif(
    paper_neurosurgeon.folder() is None, reason="no Neurosurgeon measurements here"
)


@needs_data
def test_the_documented_tables_are_those_that_come_out():
    documented = Path(__file__).parent.parent / "docs" / "papers.md"
    assert documented.read_text(encoding="utf-8") == papers.report()


@needs_data
def test_every_way_to_plan_a_measured_chain_agrees():
    data = paper_neurosurgeon.folder()
    assert data is not None
    tables = paper_neurosurgeon.cost_tables(data)
    assert len(tables) == 48
    for costs in tables.values():
        for objective in ("latency", "energy"):
            columns = costs.columns
            cut = build(columns, monotone=False).solve(columns, metric_terms({objective: 1}))
            found = evaluate(columns, cut.smallest, cut.up_choice, cut.down_choice)
            path = collabdnn(costs, objective)
            assert (
                cut.value
                == found.metric(objective)
                == path.value
                == plan(costs, objective, monotone=False).value
            )
            assert (
                neurosurgeon(costs, objective).value == dads(costs, objective).value >= path.value
            )
            if len(costs.stages) <= 9:
                assert brute_force(costs, Goal(objective, {}), monotone=False) == path.value
