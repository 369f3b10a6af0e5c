"""How a model is measured: all parts in turns, and in which processes."""

import operator
import os
from pathlib import Path
from typing import Any

import pytest

from irsplit.base.errors import EngineError
from irsplit.engines.isolate import copies
from irsplit.engines.measure import Runs, load_of, run_part
from irsplit.measure import measurement, profiling
from irsplit.measure.measurement import Effort
from irsplit.measure.profiling import profile_model
from irsplit.profiles import NO_MESSAGE
from irsplit.runtime.run.engines import open_engine

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"


def test_a_disturbed_round_is_outvoted_and_shows_as_spread():
    calm = Runs([100, 101, 102, 103, 104], [90] * 5, 7_000, 40)
    busy = Runs([300, 310, 320, 330, 340], [95] * 5, 1, 40)
    load = load_of([calm, busy, calm])
    assert (load.wall_ns, load.cpu_ns) == (103, 90)
    assert load.peak_bytes == 7_000, "of the first process; the others had an engine loaded before"
    assert load.spread_ns > 200
    assert load_of([calm]).spread_ns <= 4


def test_every_round_measures_all_parts_in_the_same_order(monkeypatch: pytest.MonkeyPatch):
    turns: list[tuple[str, int]] = []

    def run(file: Any, call: Any, options: Any, warmup: int, runs: int, sweeps: int) -> Any:
        turns.append((file.path.stem, runs))
        return run_part(file, call, options, warmup, runs, sweeps)

    monkeypatch.setattr(measurement, "run_part", run)
    monkeypatch.setattr(measurement, "rerun_part", lambda *given: run(*given)[0])
    monkeypatch.setattr(profiling, "measure_message", lambda *given: NO_MESSAGE)
    steps: list[tuple[int, int]] = []
    found = profile_model(
        DIGITS,
        effort=Effort(runs=5, fresh=False),
        progress=lambda done, total, what: steps.append((done, total)),
    )
    parts = 1 + len(found.stretches) + len(found.prefixes) + len(found.suffixes)
    passes = [turns[at : at + parts] for at in range(0, len(turns), parts)]
    assert [[name for name, _ in each] for each in passes] == [[name for name, _ in passes[0]]] * 3
    assert [{runs for _, runs in each} for each in passes] == [{2}, {2}, {1}]
    assert passes[0][0][0] == "whole-0"
    assert steps[-1] == (len(steps) - 1, len(steps))


def test_copies_are_processes_of_their_own():
    with copies(("irsplit.engines.measure",)) as call:
        pids = {call(os.getpid), call(os.getpid), os.getpid()}
        assert len(pids) == 3
        with pytest.raises(EngineError, match="no engine for format 'no'"):
            call(open_engine, Path("x"), "no")
        with pytest.raises(EngineError, match=r"crashed \(SIGABRT\) in abort"):
            call(os.abort)
        with pytest.raises(RuntimeError, match="division by zero"):
            call(operator.truediv, 1, 0)
        assert call(operator.add, 1, 2) == 3
