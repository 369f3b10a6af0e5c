"""Large graphs: nothing recurses along the graph, and many cuts make many segments."""

import sys

import pytest

from graphs import ladder
from irsplit.ir import parse_model, print_model, verify
from irsplit.passes import Context, Pipeline, find_cuts, legal_cuts
from irsplit.passes.analysis.schedule import schedule
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.partition import Partition
from irsplit.passes.prune_buffers import PruneBuffers
from irsplit.passes.remove_unused import RemoveUnused

NODES = 50_000


def test_a_graph_of_fifty_thousand_nodes_is_cut_and_partitioned() -> None:
    assert sys.getrecursionlimit() < NODES
    model = ladder(NODES)
    verify(model)
    cuts = find_cuts(model.entry)
    assert len(cuts) == NODES - 1
    assert sum(cut.legal for cut in cuts) == 4 + NODES // 5 - 1
    assert all("is pending" in str(cut.reason) for cut in cuts if not cut.legal)
    middle = next(cut for cut in cuts[NODES // 2 :] if cut.legal)
    Pipeline((Partition((middle.id,)), RemoveUnused(), PruneBuffers())).run(model, Context())
    near, far = model.segments
    assert (len(near.nodes), len(far.nodes)) == (middle.position + 1, NODES - middle.position + 1)
    assert (len(near.constants), len(far.constants)) == (middle.position, NODES - middle.position)


def test_every_cut_of_fifty_thousand_nodes_is_priced() -> None:
    """Ranking looks at all cuts at once: one by one would take a hundred times as long."""
    choice = ChooseCut(device="pixel-2", link="lte").choose(ladder(NODES), Context())
    assert len(choice.ranked) == 4 + NODES // 5 - 1 + 2
    assert [option.row.value for option in choice.ranked] == sorted(
        option.row.value for option in choice.ranked
    )
    assert choice.ranked[0].row.costs.metrics["latency"] == choice.ranked[0].row.value


def test_a_hundred_cuts_make_a_hundred_and_one_segments() -> None:
    model = ladder(2_000)
    chosen = legal_cuts(model.entry)[::4][:100]
    Pipeline((Partition(tuple(cut.id for cut in chosen)),)).run(model, Context())
    assert len(model.segments) == 101
    assert sum(len(segment.nodes) for segment in model.segments) == 2_000 + 2 * 100


@pytest.mark.parametrize("depth", [5_000])
def test_a_long_chain_of_free_nodes_is_cloned(depth: int) -> None:
    chain = "".join(f"%f{index + 1} = test.a(%f{index}) : u8[1]\n" for index in range(depth))
    text = (
        f"graph @main(%x: u8[1]) -> (%y) {{ const %f0: u8[1] = 0x01\n{chain}"
        f"%a = test.a(%x, %f{depth}) : u8[1] %y = test.a(%a, %f{depth}) : u8[1] }}"
    )
    model = parse_model(text)
    assert len(schedule(model.entry).nodes) == 2
    Pipeline((Partition(("%a",)),)).run(model, Context())
    assert [len(segment.nodes) for segment in model.segments] == [depth + 2, depth + 2]
    verify(parse_model(print_model(model)))


def test_a_cut_that_no_frame_has_room_for_is_not_legal() -> None:
    inputs = ", ".join(f"%x{index}: f32[1]" for index in range(300))
    read = ", ".join(f"%x{index}" for index in range(1, 300))
    text = (
        f"graph @main({inputs}) -> (%y) "
        f"{{ %a = test.op(%x0) : f32[1]  %y = test.op(%a, {read}) : f32[1] }}"
    )
    (cut,) = find_cuts(parse_model(text).entry)
    assert (
        cut.reason == "300 tensors would travel, 299 of them graph inputs; a frame has room for 256"
    )
