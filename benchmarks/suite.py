"""What the tests of the suite share: how a timing is called in tables and plots."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pytest_benchmark.fixture import BenchmarkFixture

Kind = Literal["ours", "peer", "yardstick"]


def describe(benchmark: BenchmarkFixture, group: str, label: str, kind: Kind = "ours") -> None:
    """`group` is what is done, the same for all that do it; `kind` says whose work it is."""
    benchmark.group = group
    benchmark.extra_info.update(label=label, kind=kind)


def time_writing(benchmark: BenchmarkFixture, write: Callable[[Path], Any], folder: Path) -> None:
    """Time a function that writes into a folder: an empty one every round, inside of `folder`."""
    out = folder / "out"

    def fresh() -> tuple[tuple[Path], dict[str, Any]]:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return (out,), {}

    benchmark.pedantic(write, setup=fresh, rounds=5, warmup_rounds=1)
