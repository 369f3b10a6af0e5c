"""The simulated experiment: the docs have its results, and the client is near the best."""

from pathlib import Path
from statistics import mean

from benchmarks.experiment import SCENARIO, SCENARIO_S, client, figure, page, ways
from benchmarks.networks import resnet101_v2

DOCS = Path(__file__).parent.parent / "docs"


def test_page_and_figure_are_those_of_the_docs():
    network = resnet101_v2()
    assert (DOCS / "experiment.md").read_text(encoding="utf-8") == page(network)
    assert (DOCS / "experiment.svg").read_text(encoding="utf-8") == figure(network)


def test_adaptive_is_near_the_best_cut_in_every_phase():
    stops = ways(resnet101_v2())
    fixed = [client(way, stops, SCENARIO) for way in stops]
    adaptive = client(None, stops, SCENARIO)
    ends = [*(at for at, _ in SCENARIO[1:]), SCENARIO_S]
    for (begin, _), end in zip(SCENARIO, ends, strict=True):
        settled = begin + 25.0
        best = min(mean(c.seconds for c in calls if settled <= c.began_s < end) for calls in fixed)
        found = mean(call.seconds for call in adaptive if settled <= call.began_s < end)
        assert found <= 1.1 * best
    assert len(adaptive) > max(map(len, fixed))
