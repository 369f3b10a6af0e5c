"""Cuts of small graphs against the definition of a cut, by brute force."""

import re

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from down_sets import Brute, Sides
from graphs import PLAIN, SMALL, models
from irsplit.ir import Graph, Model, Node
from irsplit.passes import Cut, find_cuts
from irsplit.passes.analysis.schedule import schedule

MANY = settings(
    max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def positions(graph: Graph, max_tensors: int) -> list[tuple[Cut, Sides, Brute]]:
    plan, brute = schedule(graph), Brute(graph)
    assert set(plan.nodes) == set(brute.nodes)
    cuts = find_cuts(plan, max_tensors)
    assert [cut.position for cut in cuts if cut.order is plan] == list(range(1, len(plan.nodes)))
    assert len({cut.id for cut in cuts}) == len(cuts)
    found: list[tuple[Cut, Sides, Brute]] = []
    for cut in cuts:
        near = frozenset(cut.order.nodes[: cut.position])
        assert all(brute.waits_for(node) <= near for node in near), (
            "the schedule is no topological order"
        )
        found.append((cut, brute.sides(near), brute))
    return found


@given(models(SMALL), st.integers(1, 3))
@settings(MANY, max_examples=300)
def test_verdict_reason_and_kind_are_those_of_the_definition(
    model: Model, max_tensors: int
) -> None:
    for cut, sides, brute in positions(model.entry, max_tensors):
        check_verdict(cut, sides, max_tensors)
        check_reason(cut, sides, brute, max_tensors)
        if cut.legal:
            check_kind(cut, sides, brute)


def check_verdict(cut: Cut, sides: Sides, max_tensors: int) -> None:
    assert cut.legal == sides.legal(max_tensors)
    assert set(cut.tensors) == sides.crossing
    assert cut.crossing == len(sides.crossing)
    assert set(cut.forwards) == sides.forwards
    assert set(cut.early_outputs) == sides.early


def check_reason(cut: Cut, sides: Sides, brute: Brute, max_tensors: int) -> None:
    reason = cut.reason
    if reason is None:
        assert cut.legal
    elif reason.startswith("state "):
        assert sides.splits_state
    elif reason.startswith("nothing "):
        assert not sides.crossing
    elif " is pending" in reason:
        check_pending(reason, cut, sides, brute, max_tensors)
    else:
        assert re.match(r"%\w+ cannot be framed: ", reason)
        assert not sides.frames


def check_kind(cut: Cut, sides: Sides, brute: Brute) -> None:
    closed = not sides.forwards and not sides.early
    assert cut.kind == ("frontier" if len(sides.crossing) > 1 else "strict" if closed else "open")
    if cut.kind == "strict":
        assert all(path >= sides.crossing for path in brute.all_paths)


@given(models(PLAIN))
@MANY
def test_strict_cuts_are_the_tensors_on_every_path(model: Model) -> None:
    cuts = positions(model.entry, 1)
    brute = Brute(model.entry)
    assume(brute.nodes)
    expected = set.intersection(*brute.all_paths) - set(brute.fed) - brute.outputs
    assert {
        value for cut, _, _ in cuts if cut.kind == "strict" for value in cut.tensors
    } == expected


@given(models(SMALL))
@MANY
def test_no_strict_cut_hides_behind_the_order(model: Model) -> None:
    brute = Brute(model.entry)
    assume(
        brute.all_paths
    )  # where no output depends on an input, writers of states compete for the cut
    strict = {
        value
        for sides in brute.down_sets
        if sides.legal(1) and not sides.forwards and not sides.early
        for value in sides.crossing
    }
    assert strict == {
        value for cut in find_cuts(model.entry) if cut.kind == "strict" for value in cut.tensors
    }


PENDING = re.compile(
    r"%(?P<value>\w+) is pending, still read by (?P<reader>.+?); its branch "
    r"(?:forks at (?P<fork>.+?)|begins at (?P<origin>.+?)) and "
    r"(?:ends without joining|joins at (?P<join>.+?)) "
    r"\((?P<crossing>\d+) tensors would cross, (?P<limit>\d) may\)"
)


def check_pending(reason: str, cut: Cut, sides: Sides, brute: Brute, max_tensors: int) -> None:
    match = PENDING.fullmatch(reason)
    assert match is not None, reason
    assert (int(match["crossing"]), int(match["limit"])) == (len(sides.crossing), max_tensors)
    assert len(sides.crossing) > max_tensors
    oldest, newest = cut.tensors[0], cut.tensors[-1]
    assert match["value"] == oldest.name
    reader = brute.by_text[match["reader"]]
    assert isinstance(reader, Node)
    assert oldest in brute.reads[reader]
    assert reader not in sides.near
    fork = brute.nearest(brute.dominators, oldest.producer, newest.producer)
    join = brute.nearest(brute.postdominators, reader, newest.producer)
    assert match["join"] == (None if join is None else brute.text(join))
    if match["origin"]:
        assert fork is None
        assert brute.by_text[match["origin"]] not in brute.reached(brute.fed, None)
    else:
        assert match["fork"] == ("the graph inputs" if fork is None else brute.text(fork))
