"""Finding every legal cut, and a reason for all other positions, against reading the file."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.onnx_models import write_chain
from benchmarks.suite import describe
from irsplit.dialects.onnx import ONNX
from irsplit.passes import find_cuts

SIZES = (1_000, 10_000, 50_000)


@pytest.fixture(scope="module")
def chains(folder: Path) -> dict[int, Path]:
    """A residual chain has one legal cut in five positions; the others each get their reason."""
    paths = {size: folder / f"{size}.onnx" for size in SIZES}
    for size, path in paths.items():
        write_chain(size, path)
    return paths


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["onnx.load", "read", "cuts", "cuts, two tensors"])
def test_cuts(what: str, size: int, chains: dict[int, Path], benchmark: BenchmarkFixture) -> None:
    describe(
        benchmark,
        f"cuts: ONNX graph of {size} nodes",
        what,
        "yardstick" if what == "onnx.load" else "ours",
    )
    path = chains[size]
    if what == "onnx.load":
        benchmark(onnx.load, path)
        return
    if what == "read":
        benchmark(ONNX.read, path)
        return
    model = ONNX.read(path)
    found: Any = benchmark.pedantic(
        find_cuts, (model.entry, 2 if "two" in what else 1), rounds=3, warmup_rounds=1
    )
    assert len(found) == size - 1
    assert sum(cut.kind == "strict" for cut in found) == size // 5 - 1
