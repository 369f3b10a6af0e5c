"""Random models, every legal cut: segments and real frames compute the whole's bits."""

from itertools import combinations, pairwise

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from graphs import Shape, models
from interpreter import Array, Machine, array_of, inputs_of, run_model, run_segments
from irsplit.base.errors import CutError
from irsplit.ir import (
    Graph,
    Model,
    clone_graph,
    equal,
    parse_model,
    print_model,
    uses_with_captures,
    verify,
)
from irsplit.passes import Context, Cut, Pipeline, legal_cuts
from irsplit.passes.analysis.schedule import schedule
from irsplit.passes.partition import Partition
from irsplit.passes.prune_buffers import PruneBuffers
from irsplit.passes.remove_unused import RemoveUnused

CALLS = 3
"""How often each model runs: a state that is split, or lost, shows from the second call on."""


def partitioned(model: Model, cuts: list[Cut], max_tensors: int) -> Model:
    """A partitioned copy; the source graph stays as it is."""
    split = Model(model.dialect, [*model.graphs])
    partition = Partition(tuple(cut.id for cut in cuts), max_tensors)
    Pipeline((partition, RemoveUnused(), PruneBuffers())).run(split, Context())
    return split


def nested(cuts: list[Cut]) -> bool:
    near = [set(cut.order.nodes[: cut.position]) for cut in cuts]
    return all(smaller < larger for smaller, larger in pairwise(near))


def check_equal_to_the_whole(model: Model, split: Model, feeds: list[dict[str, Array]]) -> None:
    whole = Machine()
    parts = [Machine() for _ in split.segments]
    for machine in parts:
        machine.tape = parts[0].tape  # a random node that two segments have would take two numbers
    for inputs in feeds:
        expected = run_model(model, inputs, whole)
        result = run_segments(split, inputs, parts)
        assert {name: array.tobytes() for name, array in result.items()} == {
            name: array.tobytes() for name, array in expected.items()
        }


def check_nothing_unused(segment: Graph) -> None:
    read = {value for node in segment.nodes for value in uses_with_captures(node)}.union(
        segment.outputs
    )
    assert read.issuperset(segment.constants)
    assert read.issuperset(value for value in segment.inputs if value.constant is not None)
    for node in segment.nodes:
        boundary = node.op in ("irsplit.send", "irsplit.recv")
        assert boundary or node.states or any(value in read for value in node.outputs)
        assert node.op != "irsplit.recv" or read.issuperset(
            value for value in node.outputs if value is not None
        )


@given(models(), st.integers(1, 3), st.data())
@settings(
    max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_the_segments_of_every_legal_cut_compute_what_the_whole_computes(
    model: Model, max_tensors: int, data: st.DataObject
) -> None:
    verify(model)
    feeds = [inputs_of(model.entry, call) for call in range(CALLS)]
    for value in model.entry.inputs:
        if value.constant is not None and data.draw(
            st.booleans(), label=f"override the default of {value}"
        ):
            feeds[-1][value.name] = array_of(value.type, b"another")
    before = print_model(model)
    cuts = legal_cuts(schedule(model.entry), max_tensors)
    event(f"legal cuts: {min(len(cuts), 5)}")
    chosen = [[cut] for cut in cuts]
    several = [list(group) for count in (2, 3) for group in combinations(cuts, count)]
    chosen += (
        data.draw(st.lists(st.sampled_from(several), max_size=4, unique_by=id)) if several else []
    )
    for group in chosen:
        if not nested(group):
            with pytest.raises(CutError, match="does not hold all that the cuts before it hold"):
                partitioned(model, group, max_tensors)
            continue
        split = partitioned(model, group, max_tensors)
        assert len(split.segments) == len(group) + 1
        assert equal(parse_model(print_model(split)), split)
        for segment in split.segments:
            check_nothing_unused(segment)
        check_equal_to_the_whole(model, split, feeds)
    assert print_model(model) == before


@given(models())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_text_and_copies_of_a_model_are_equal_to_it(model: Model) -> None:
    parsed = parse_model(print_model(model))
    verify(parsed)
    assert equal(parsed, model)
    copy = Model(model.dialect, [clone_graph(model.entry, {}), *model.graphs[1:]])
    verify(copy)
    assert equal(copy, model)


@given(models(Shape(effects=False)))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_unused_parts_change_nothing(model: Model) -> None:
    inputs = inputs_of(model.entry, 1)
    expected = run_model(model, inputs, Machine())
    Pipeline((RemoveUnused(), PruneBuffers())).run(model, Context())
    check_nothing_unused(model.entry)
    result = run_model(model, inputs, Machine())
    assert {name: array.tobytes() for name, array in result.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
