"""What the server recomputes instead of receiving it: which values, and what is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irsplit.base.dtypes import F32, I64
from irsplit.dialects.testing import TEST
from irsplit.ir import (
    Graph,
    Model,
    Node,
    TensorType,
    Value,
    engine_graph,
    parse_model,
    print_graph,
    verify,
)
from irsplit.passes import Context, Cut, Pipeline, find_cuts, schedule
from irsplit.passes.analysis.recompute import Recompute
from irsplit.passes.partition import split
from irsplit.passes.rematerialise import Rematerialise

RULES = Recompute(TEST.is_cheap, TEST.is_shape)


def cuts(text: str, max_tensors: int = 1) -> dict[str, Cut]:
    """The legal cuts of a graph by the names of the tensors that cross."""
    found = find_cuts(parse_model(f"model test\ngraph @main{text}").entry, max_tensors, None, RULES)
    return {"+".join(value.name for value in cut.tensors): cut for cut in found if cut.legal}


def names(values: tuple[Value, ...]) -> list[str]:
    return [value.name for value in values]


MASKED = """(%ids: i64[1,8], %mask: i64[1,8]) -> (%y) {
  %e = test.op(%ids) : f32[1,8,4]
  %f = test.cheap(%mask) : f32[1,8]
  %m = test.cheap(%f) : f32[1,1,1,8]
  %a = test.op(%e, %m) : f32[1,8,4]
  %y = test.op(%a, %m) : f32[1,8,4]
}"""


def test_mask_is_recomputed_from_the_input_that_is_forwarded():
    cut = cuts(MASKED)["a"]
    assert cut.kind == "open"
    assert names(cut.rematerialised) == ["m"]
    assert names(cut.forwards) == ["mask"]


def test_segments_with_a_recomputed_mask():
    model = parse_model(f"model test\ngraph @main{MASKED}")
    context = Context(TEST)
    Pipeline.parse("rematerialise,partition{cut=a},remove-unused").run(model, context)
    assert (
        "".join(map(print_graph, model.segments))
        == """\
graph @device(%ids: i64[1,8], %mask: i64[1,8]) {
  %e = test.op(%ids) : f32[1,8,4]
  %f = test.cheap(%mask) : f32[1,8]
  %m = test.cheap(%f) : f32[1,1,1,8]
  %a = test.op(%e, %m) : f32[1,8,4]
  irsplit.send 0 %a, %mask
}
graph @server() -> (%y) {
  %a, %mask = irsplit.recv 0 : f32[1,8,4], i64[1,8]
  %f = test.cheap(%mask) : f32[1,8]
  %m = test.cheap(%f) : f32[1,1,1,8]
  %y = test.op(%a, %m) : f32[1,8,4]
}
"""
    )


@pytest.mark.parametrize(
    "how", ["test.op(%f)", "test.cheap(%f) random", 'test.cheap(%f) states "s"']
)
def test_costly_random_and_stateful_nodes_are_never_cloned(how: str):
    assert "a" not in cuts(MASKED.replace("test.cheap(%f)", how))


def test_a_large_input_is_not_forwarded_for_it():
    assert "a" not in cuts(MASKED.replace("%mask: i64[1,8]", "%mask: i64[1,80000]"))


def test_an_image_of_any_size_is_not_forwarded_for_it():
    assert "a" not in cuts(MASKED.replace("%mask: i64[1,8]", "%mask: f32[n,3,h,w]"))


def test_shape_is_recomputed_from_the_tensor_that_crosses():
    found = cuts("""(%x: f32[n,4]) -> (%y) {
      %a = test.op(%x) : f32[n,4]
      %s = test.shape(%a) : i64[2]
      %t = test.cheap(%s) : i64[1]
      %b = test.op(%a) : f32[n,4]
      %c = test.op(%b) : f32[n,4]
      %y = test.op(%c, %a, %t) : f32[n,4]
    }""")
    assert list(found) == ["a"]
    assert found["a"].kind == "strict"
    assert not found["a"].shapes


SHAPED = """(%x: f32[n,40000]) -> (%y) {
  %a = test.op(%x) : f32[n,40000]
  %s = test.shape(%x) : i64[2]
  %b = test.op(%a) : f32[n,40000]
  %t = test.cheap(%s) : i64[1]
  %y = test.op(%b, %t) : f32[n,40000]
}"""


def test_shape_of_a_near_tensor_travels_beside_the_one_that_crosses():
    found = cuts(SHAPED)
    assert {name: (cut.kind, names(cut.shapes)) for name, cut in found.items()} == {
        "a": ("strict", ["s"]),
        "b": ("strict", ["s"]),
    }


def test_shape_that_travels_is_computed_on_the_near_side_even_if_its_turn_comes_later():
    plan = schedule(parse_model(f"model test\ngraph @main{SHAPED}").entry)
    first = find_cuts(plan, 1, None, RULES)[0]
    near, far = split(plan, [first], ("device", "server"))
    assert [node.op for node in near.nodes] == ["test.op", "test.shape", "irsplit.send"]
    assert [node.op for node in far.nodes] == ["irsplit.recv", "test.op", "test.cheap", "test.op"]


@pytest.mark.parametrize(("length", "legal"), [(32, True), (33, False)])
def test_only_short_chains_are_cloned(length: int, legal: bool):
    chain = "\n".join(f"  %m{i + 1} = test.cheap(%m{i}) : f32[1,8]" for i in range(length))
    text = f"""(%x: f32[1,8], %m0: f32[1,8]) -> (%y) {{
{chain}
  %a = test.op(%x, %m{length}) : f32[1,8]
  %y = test.op(%a, %m{length}) : f32[1,8]
}}"""
    assert ("a" in cuts(text)) == legal


def test_a_position_that_is_the_same_cut_again_is_rejected_by_name():
    graph = parse_model("""model test graph @main(%x: f32[8]) -> (%y) {
      %a = test.op(%x) : f32[8]
      %b = test.cheap(%a) : f32[8]
      %y = test.op(%b, %a) : f32[8]
    }""").entry
    first, second = find_cuts(graph, 1, None, RULES)
    assert first.legal
    assert str(second.reason).startswith("the same as cut 1")


def test_what_could_be_computed_from_a_small_input_is_sent_when_nothing_else_crosses():
    found = cuts("""(%ids: i64[1,8]) -> (%y) {
      %a = test.cheap(%ids) : f32[1,8]
      %b = test.op(%a) : f32[1,8]
      %y = test.op(%b) : f32[1,8]
    }""")
    assert {name: (cut.kind, cut.rematerialised) for name, cut in found.items()} == {
        "a": ("strict", ()),
        "b": ("strict", ()),
    }


def test_pipeline_prints_the_limits():
    assert str(Pipeline.parse("rematerialise{input=100}")) == "rematerialise{input=100}"
    assert Pipeline.parse(str(Pipeline((Rematerialise(depth=3),)))) == Pipeline(
        (Rematerialise(depth=3),)
    )


# Random graphs: values are texts of their expressions, so equal text means equal results.


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    inputs = [
        Value(f"x{i}", TensorType(I64 if i else F32, (4, 4)))
        for i in range(draw(st.integers(1, 3)))
    ]
    values, nodes = list(inputs), list[Node]()
    for index in range(draw(st.integers(2, 12))):
        op = draw(st.sampled_from(["test.op", "test.op", "test.cheap", "test.cheap", "test.shape"]))
        count = 1 if op == "test.shape" else draw(st.integers(1, 3))
        # Mostly recent values: with any, nearly every graph has all branches pending.
        picks = [values[-1 - min(draw(st.integers(0, 4)), len(values) - 1)] for _ in range(count)]
        type = TensorType(I64, (2,)) if op == "test.shape" else TensorType(F32, (4, 4))
        result = Value(f"v{index}", type)
        nodes.append(Node(op, picks, [result]))
        values.append(result)
    outputs = {values[-1]: None} | {
        values[draw(st.integers(0, len(values) - 1))]: None for _ in range(2)
    }
    return Graph("main", inputs, [value for value in outputs if value.producer is not None], nodes)


def evaluate(graph: Graph, known: dict[str, str]) -> dict[str, str]:
    """Every value of the graph by name."""
    values = {value: known[value.name] for value in graph.inputs}
    for node in graph.nodes:
        given = [values[value] for value in node.inputs if value is not None]
        for index, value in enumerate(node.outputs):
            if value is not None:
                values[value] = json.dumps([node.op, index, *given])
    return {value.name: text for value, text in values.items()}


@given(graphs(), st.integers(1, 2))
@settings(max_examples=300)
def test_segments_compute_what_the_whole_computes(graph: Graph, max_tensors: int):
    whole = evaluate(graph, {value.name: value.name for value in graph.inputs})
    plan = schedule(graph)
    without = {cut.id for cut in find_cuts(plan, max_tensors) if cut.legal and cut.order is plan}
    found = [cut for cut in find_cuts(plan, max_tensors, None, RULES) if cut.legal]
    assert without <= {cut.id for cut in found}
    chain = [cut for cut in found if cut.order is plan]
    for chosen in [[cut] for cut in found] + ([chain] if len(chain) > 1 else []):
        segments = split(plan, chosen, ["device"] + ["server"] * len(chosen))
        verify(Model("test", segments))
        known = {value.name: value.name for value in graph.inputs}
        results: dict[str, str] = {}
        for index, segment in enumerate(segments):
            if index:
                known = {
                    value.name: known[value.name] for value in chosen_boundary(segments[index - 1])
                }
            known |= evaluate(engine_graph(segment), known)
            results.update((value.name, known[value.name]) for value in segment.outputs)
        assert results == {value.name: whole[value.name] for value in graph.outputs}


def chosen_boundary(segment: Graph) -> list[Value]:
    """What a segment sends."""
    return [value for value in segment.nodes[-1].inputs if value is not None]
