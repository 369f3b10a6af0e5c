"""State of TFLite models: what ties nodes together, and where initialisers go."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import corpus
import tflite_objects
from corpus import CorpusModel
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import Graph, Model, Node, engine_graph
from irsplit.passes.analysis.cuts import legal_cuts, schedule
from irsplit.passes.base import Context
from irsplit.passes.partition import split
from irsplit.passes.remove_unused import RemoveUnused
from stock_engines import open_model, same_bits
from tflite_models import Sketch

ONE = np.ones((1, 2), np.float32)


def handle(sketch: Sketch, name: str) -> int:
    index = sketch.tensor(f"{name}_handle", (), "resource")
    sketch.operator(
        "VAR_HANDLE", [], [index], schema.VarHandleOptionsT(container="", sharedName=name)
    )
    return index


def assign(sketch: Sketch, name: str, value: int) -> None:
    sketch.operator(
        "ASSIGN_VARIABLE", [handle(sketch, name), value], [], schema.AssignVariableOptionsT()
    )


def accumulate(sketch: Sketch, name: str, value: int) -> int:
    """value + variable, which is also the variable's next value."""
    total = add(sketch, [value, read(sketch, name)], f"{name}_total")
    assign(sketch, name, total)
    return total


def read(sketch: Sketch, name: str) -> int:
    return sketch.then("READ_VARIABLE", [handle(sketch, name)], f"{name}_read", (1, 2))


def add(sketch: Sketch, inputs: list[int], result: str) -> int:
    return sketch.then("ADD", inputs, result, (1, 2), options=schema.AddOptionsT())


def initialised(*names: str) -> Sketch:
    """A main graph that calls an initialiser of these variables once, to 1, 2, ...

    The main graph is the open one, the last of the list; `finish` makes it the first of the file.
    """
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.subgraph("initialise")
    for number, name in enumerate(names, start=1):
        assign(sketch, name, sketch.constant(f"{name}_start", ONE * number))
    sketch.model.subgraphs.reverse()
    sketch.operator("CALL_ONCE", [], [], schema.CallOnceOptionsT(initSubgraphIndex=1))
    return sketch


def finish(sketch: Sketch, output: int, path: Path) -> Model:
    sketch.graph.outputs.append(output)
    sketch.model.subgraphs.reverse()
    return TFLITE.read(sketch.save(path))


def states(model: Model) -> dict[str, set[str]]:
    """The states of the nodes of the entry graph by what the node produces, or by its operation."""
    return {
        node.outputs[0].name
        if node.outputs and node.outputs[0]
        else f"{node.op} {node.states}": set(node.states)
        for node in model.entry.nodes
    }


def halves(model: Model, after: str) -> list[Graph]:
    plan = schedule(model.entry)
    cut = next(cut for cut in legal_cuts(plan) if [value.name for value in cut.tensors] == [after])
    return [engine_graph(part) for part in split(plan, [cut], ("device", "server"))]


def run_both(model: Model, path: Path, graphs: list[Graph], folder: Path) -> None:
    """Three calls of the whole and of the halves give the same bits."""
    files = [TFLITE.write(model, graph, folder / f"{graph.name}.tflite")[0] for graph in graphs]
    whole, parts = open_model(path), [open_model(file) for file in files]
    for call in range(3):
        values = [ONE * call]
        expected = whole.run(values)
        for part in parts:
            values = part.run(values)
        assert same_bits(values, expected)


def test_segments_get_their_share_of_the_initialiser(tmp_path: Path):
    sketch = initialised("a", "b")
    x = sketch.input("x", (1, 2))
    first = accumulate(sketch, "a", x)
    middle = add(sketch, [first, first], "middle")
    model = finish(sketch, accumulate(sketch, "b", middle), tmp_path / "two.tflite")
    assert {name for found in states(model).values() for name in found} == {"a", "b"}
    graphs = halves(model, "middle")
    run_both(model, tmp_path / "two.tflite", graphs, tmp_path)
    for graph, variable in zip(graphs, (b"a", b"b"), strict=True):
        written = tflite_objects.load(tmp_path / f"{graph.name}.tflite")
        options = [item.builtinOptions for item in written.subgraphs[1].operators]
        shared = [item.sharedName for item in options if type(item) is schema.VarHandleOptionsT]
        assert shared == [variable]
        assert len(written.subgraphs) == 2


def test_passes_may_drop_initialisers(tmp_path: Path):
    """To a pass, a node without operands and results is of no use; the writer knows better."""
    sketch = initialised("a")
    x = sketch.input("x", (1, 2))
    path = tmp_path / "whole.tflite"
    model = finish(sketch, accumulate(sketch, "a", x), path)
    RemoveUnused().run(model, Context())
    assert "tflite.CALL_ONCE" not in {node.op for node in model.entry.nodes}
    (written,) = TFLITE.write(model, model.entry, tmp_path / "written.tflite")
    assert open_model(written).run([ONE])[0].tolist() == [[2, 2]]


def test_variable_written_by_its_initialiser_alone_ties_nothing(tmp_path: Path):
    sketch = initialised("scale", "unused")
    x = sketch.input("x", (1, 2))
    first = add(sketch, [x, read(sketch, "scale")], "first")
    model = finish(
        sketch, add(sketch, [first, read(sketch, "scale")], "second"), tmp_path / "constant.tflite"
    )
    assert set().union(*states(model).values()) == set()
    graphs = halves(model, "first")
    run_both(model, tmp_path / "constant.tflite", graphs, tmp_path)
    for graph in graphs:
        text = (tmp_path / f"{graph.name}.tflite").read_bytes()
        assert b"scale" in text
        assert b"unused" not in text


def test_variable_tensors_are_states_of_their_users(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    x = sketch.input("x", (1, 2))
    state = sketch.tensor("state", (1, 2), isVariable=True)
    first = sketch.then("custom_filter", [x, state], "first", (1, 2))
    second = sketch.then("custom_filter", [first, state], "second", (1, 2))
    sketch.graph.outputs.append(sketch.then("custom_filter", [second], "third", (1, 2)))
    model = TFLITE.read(sketch.save(tmp_path / "variable.tflite"))
    assert states(model) == {"first": {"tensor state"}, "second": {"tensor state"}, "third": set()}
    assert [cut.tensors[0].name for cut in legal_cuts(model.entry)] == ["second"]


def test_operand_written_in_place_ties_its_producer_and_readers(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    x = sketch.input("x", (1, 2))
    made = add(sketch, [x, x], "made")
    changed = sketch.then("custom_update", [made], "changed", (1, 2), mutatingVariableInputs=[True])
    sketch.graph.outputs.append(add(sketch, [made, changed], "sum"))
    model = TFLITE.read(sketch.save(tmp_path / "mutating.tflite"))
    assert states(model) == {name: {"tensor made"} for name in ("made", "changed", "sum")}


def test_resources_are_followed_into_loops(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    x = sketch.input("x", (1, 2))
    first = add(sketch, [x, x], "first")
    resource = handle(sketch, "counter")
    result, passed = sketch.tensor("result", (1, 2)), sketch.tensor("passed", (), "resource")
    options = schema.WhileOptionsT(condSubgraphIndex=1, bodySubgraphIndex=2)
    sketch.operator("WHILE", [first, resource], [result, passed], options)
    sketch.graph.outputs.append(sketch.then("READ_VARIABLE", [passed], "last", (1, 2)))
    for name, result_shape, element in (("condition", (), "bool"), ("body", (1, 2), "float32")):
        sketch.subgraph(name)
        value, variable = sketch.input("value", (1, 2)), sketch.input("variable", (), "resource")
        made = sketch.tensor("made", result_shape, element)
        sketch.operator("custom_step", [value], [made])
        sketch.graph.outputs.append(made)
        if name == "body":
            sketch.operator(
                "ASSIGN_VARIABLE", [variable, made], [], schema.AssignVariableOptionsT()
            )
            sketch.graph.outputs.append(variable)
    model = TFLITE.read(sketch.save(tmp_path / "loop.tflite"))
    assert states(model)["result"] == {"counter"}
    assert states(model)["last"] == {"counter"}
    assert states(model)["first"] == set()


@pytest.mark.parametrize("imported", [False, True])
def test_hash_tables_tie_only_when_filled_after_the_start(imported: bool, tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    keys = sketch.input("keys", (1,), "int64")
    table = sketch.tensor("table", (1,), "resource")
    options = schema.HashtableOptionsT(tableId=7, keyDtype=4, valueDtype=0)
    sketch.operator("HASHTABLE", [], [table], options)
    if imported:
        sketch.operator("HASHTABLE_IMPORT", [table, keys, keys], [])
    sketch.graph.outputs.append(sketch.then("HASHTABLE_FIND", [table, keys, keys], "found", (1,)))
    model = TFLITE.read(sketch.save(tmp_path / "table.tflite"))
    assert states(model)["found"] == ({"hashtable 7"} if imported else set())


def test_random_operators_are_never_cloned(tmp_path: Path):
    sketch = Sketch()
    sketch.subgraph("main")
    shape = sketch.constant("shape", np.array([1, 2], np.int32))
    noise = sketch.then(
        "RANDOM_UNIFORM", [shape], "noise", (1, 2), options=schema.RandomOptionsT(seed=1)
    )
    sketch.graph.outputs.append(add(sketch, [sketch.input("x", (1, 2)), noise], "sum"))
    model = TFLITE.read(sketch.save(tmp_path / "random.tflite"))
    assert [node.random for node in model.entry.nodes] == [True, False]


def _kin(nodes: list[Node], start: set[Node], *, forward: bool) -> set[Node]:
    """The nodes that `start` depends on, or that depend on it."""
    found = set(start)
    for node in nodes if forward else reversed(nodes):
        producers = {
            value.producer
            for value in node.inputs
            if value is not None and value.producer is not None
        }
        if forward and producers & found:
            found.add(node)
        if not forward and node in found:
            found |= producers
    return found


@pytest.mark.parametrize(
    "model",
    corpus.cases(
        model for model in corpus.load("models") if "n_cuts_state_consistent" in model.entry
    ),
)
def test_states_agree_with_the_manifest(model: CorpusModel):
    """A strict cut is consistent there if no state is touched on both sides of its tensor."""
    entry = TFLITE.read(model.path).entry
    assert len({state for node in entry.nodes for state in node.states}) == model.entry["n_states"]
    consistent = 0
    values = {
        value.name: value for node in entry.nodes for value in node.outputs if value is not None
    }
    for name in model.strict_cuts:
        producer = values[name].producer
        assert producer is not None
        near = _kin(entry.nodes, {producer}, forward=False)
        far = _kin(entry.nodes, {node for node, _ in values[name].uses}, forward=True)
        consistent += not {s for node in near for s in node.states} & {
            s for node in far for s in node.states
        }
    assert consistent == model.entry["n_cuts_state_consistent"]
