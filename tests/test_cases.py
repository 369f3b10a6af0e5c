"""Pass tests as text: `// RUN: pipeline`, IR, `// ----`, and what comes out: remarks, IR, or `// error: text`.

`pytest --update` rewrites what comes out. `print-cuts` is a pass of this runner: it lists the cuts instead of the IR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from irsplit.base.errors import IrsplitError
from irsplit.ir import (
    HeadRole,
    Model,
    Node,
    TensorType,
    Value,
    equal,
    parse_model,
    print_graph,
    verify,
)
from irsplit.passes import Context, Cut, Pipeline, find_cuts, registry
from irsplit.passes.base import Samples

CASES = Path(__file__).parent / "cases"
RUN = "// RUN: "
SEPARATOR = "// ----\n"


@dataclass(frozen=True)
class PrintCuts:
    """Lists every position as a remark: id, kind, boundary, and what else the cut knows; or the reason."""

    name: ClassVar[str] = "print-cuts"
    max_tensors: int = 1

    def run(self, model: Model, context: Context) -> bool:
        for cut in find_cuts(model.entry, self.max_tensors, recompute=context.recompute):
            context.remark(self, f"{cut.id} {_described(cut)}")
        return False


def _described(cut: Cut) -> str:
    if not cut.legal:
        return f"- {cut.reason}"
    text = f"{cut.kind} {' + '.join(map(str, cut.tensors))}, {cut.size_bytes()} bytes, weights {cut.weight_bytes}"
    for word, values in (
        ("shapes", cut.shapes),
        ("recomputes", cut.rematerialised),
        ("forwards", cut.forwards),
        ("early outputs", cut.early_outputs),
    ):
        if values:
            text += f", {word} {' '.join(map(str, values))}"
    return text


class _EveryValue(dict[str, Samples]):
    """Calibration of every value but those whose name says otherwise: a range from -1 to 3."""

    def get(self, name: str, default: object = None) -> Samples:  # type: ignore[override]
        return [] if name.startswith("uncalibrated") else [np.array([-1.0, 0.5, 3.0], np.float32)]

    def __getitem__(self, name: str) -> Samples:
        return self.get(name)


def _calibrate(_: Model) -> Mapping[str, Samples]:
    return _EveryValue()


def _is_cheap(node: Node) -> bool:
    return node.op in ("test.cheap", "test.shape")


def _is_shape(node: Node) -> bool:
    return node.op == "test.shape"


def _head_role(node: Node) -> HeadRole:
    return "largest" if node.op == "test.largest" else ""


def _evaluate(model: Model) -> list[dict[str, object]]:
    """Two calls whose outputs no quantization changes; those named "empty" have no elements."""
    names = [value.name for graph in model.segments for value in graph.outputs]
    call = {name: np.zeros((0, 4)) if name.startswith("empty") else np.eye(4) for name in names}
    return [call, call]


def _affine(_: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
    return [], [Node("test.affine", (source,), (target,))]


def _shapes(model: Model, sizes: Mapping[str, int]) -> dict[Value, tuple[int, ...]]:
    """Open dimensions as given, and 7 where nothing is."""
    return {
        value: tuple(
            dim if isinstance(dim, int) else sizes.get(f"{value.name}.{axis}", 7)
            for axis, dim in dims
        )
        for value in model.entry.values()
        if isinstance(value.type, TensorType) and not value.type.is_static
        for dims in [list(enumerate(value.type.shape or ()))]
    }


def outcome(text: str) -> str:
    """What the case's pipeline makes of its IR."""
    run = next(line for line in text.splitlines() if line.startswith(RUN))
    context = Context(
        shapes=_shapes,
        is_cheap=_is_cheap,
        is_shape=_is_shape,
        affine=_affine,
        calibrate=_calibrate,
        evaluate=_evaluate,
        head_role=_head_role,
    )
    try:
        pipeline = Pipeline.parse(run.removeprefix(RUN), {**registry(), PrintCuts.name: PrintCuts})
        model = parse_model(text)
        verify(model)
        pipeline.run(model, context)
    except IrsplitError as error:
        return "".join(f"// error: {line}\n" for line in str(error).splitlines())
    remarks = "".join(f"// {remark.text}\n" for remark in context.remarks)
    if any(isinstance(pass_, PrintCuts) for pass_ in pipeline.passes):
        return remarks
    printed = "".join(print_graph(graph) for graph in model.graphs)
    assert equal(parse_model(printed), model)
    return remarks + printed


@pytest.mark.parametrize(
    "path", sorted(CASES.glob("*/*.irs")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_case(path: Path, request: pytest.FixtureRequest) -> None:
    before, _, expected = path.read_text().partition(SEPARATOR)
    result = outcome(before)
    if request.config.getoption("--update"):
        path.write_text(before + SEPARATOR + result)
        return
    assert result == expected


def test_every_installed_pass_has_cases() -> None:
    assert set(registry()) <= {path.name for path in CASES.iterdir()}
