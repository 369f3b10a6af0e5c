"""The models of the onnx wheel, its own test data: over 2000 survive reading and writing, and those
of several nodes compute the same in two halves."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from irsplit.dialects.onnx import ONNX, inference
from irsplit.ir import engine_graph, verify
from irsplit.passes.analysis.cuts import Cut, find_cuts, schedule
from irsplit.passes.partition import split
from stock_engines import Engine, open_model

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
HALF_ULP = 2**-11
"""onnxruntime computes float16 in float32 and rounds at graph outputs: a cut rounds again."""


MIXED = "softmax_precision"
SAMPLE = 4
"""Of the models of several nodes, one in so many is split: all of them take minutes (and pass)."""


class Case(NamedTuple):
    name: str
    path: Path
    inputs: list[Any]


def stored() -> list[Case]:
    """Models in the wheel's files, with their first set of inputs where there is one."""
    return [
        Case(str(path.relative_to(DATA)), path, stored_inputs(path))
        for path in sorted(DATA.rglob("*.onnx"))
    ]


def stored_inputs(path: Path) -> list[Any]:
    files = sorted(
        (path.parent / "test_data_set_0").glob("input_*.pb"),
        key=lambda file: int(file.stem.split("_")[1]),
    )
    return [numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Models of single operators, and their expansions to simpler ones, made by the wheel."""
    folder = tmp_path_factory.mktemp("generated")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators divide by zero on purpose
        cases = collect_testcases(None)
    found: list[Case] = []
    for case in cases:
        path = folder / f"{case.name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        found.append(Case(case.name, path, list(case.data_sets[0][0]) if case.data_sets else []))
    return found


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip needs no types that only the engine knows, nor a process per odd model."""
    monkeypatch.setattr(inference, "_ask_engine", lambda *_: {})


def check_round_trip(cases: Sequence[Case], folder: Path) -> None:
    out = folder / "out.onnx"
    for case in cases:
        model = ONNX.read(case.path)
        verify(model)
        ONNX.write(model, model.entry, out)
        assert out.read_bytes() == case.path.read_bytes(), case.name


def check_halves(case: Case, engine: Engine, folder: Path) -> int:
    """Compare the first, middle and last legal cut with the whole; how many there were."""
    model = ONNX.read(case.path)
    plan = schedule(model.entry)
    legal = [cut for cut in find_cuts(plan, 3) if cut.legal]
    whole = engine.run(case.inputs)
    for cut in ends_and_middle(legal):
        known: dict[str, Any] = dict(zip(engine.inputs, case.inputs, strict=True))
        for part in split(plan, [cut], ("device", "server")):
            path = ONNX.write(model, engine_graph(part), folder / f"{part.name}.onnx")[0]
            half = open_model(path)
            known.update(
                zip(half.outputs, half.run([known[name] for name in half.inputs]), strict=True)
            )
        for name, expected in zip(engine.outputs, whole, strict=True):
            tolerance = (
                4 * HALF_ULP
                if "float16" in case.name or "fp16" in case.name or MIXED in case.name
                else 0
            )
            np.testing.assert_allclose(
                known[name], expected, rtol=tolerance, atol=tolerance, err_msg=case.name
            )
    return len(ends_and_middle(legal))


def nodes(case: Case) -> int:
    return len(onnx.load(case.path, load_external_data=False).graph.node)


def ends_and_middle(legal: Sequence[Cut]) -> list[Cut]:
    return (
        list({cut.position: cut for cut in (legal[0], legal[len(legal) // 2], legal[-1])}.values())
        if legal
        else []
    )


def runnable(cases: Sequence[Case]) -> Iterator[tuple[Case, Engine]]:
    """Those that the stock engine opens and runs whole."""
    for case in cases:
        try:
            engine = open_model(case.path)
            engine.run(case.inputs)
        except (
            Exception
        ):  # what onnxruntime does not run says nothing about us; the count below must stay high
            continue
        yield case, engine


@pytest.mark.usefixtures("no_engine")
def test_stored_models_are_written_back_byte_for_byte(tmp_path: Path):
    cases = stored()

    assert len(cases) > 100
    check_round_trip(cases, tmp_path)


@pytest.mark.usefixtures("no_engine")
def test_generated_models_are_written_back_byte_for_byte(generated: list[Case], tmp_path: Path):
    assert len(generated) > 1500
    check_round_trip(generated, tmp_path)


def test_models_of_several_nodes_compute_the_same_in_halves(generated: list[Case], tmp_path: Path):
    several = [case for case in (*stored(), *generated) if nodes(case) > 1 and case.inputs]
    checked = [check_halves(case, engine, tmp_path) for case, engine in runnable(several[::SAMPLE])]

    assert sum(1 for cuts in checked if cuts) > 300 // SAMPLE
