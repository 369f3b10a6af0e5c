"""Measures parts of a model in turns, for `irsplit profile`.

Every part runs in a fresh process, so that its memory is its own, and the engine optimises it as
it will in use. A machine has slow seconds. If all runs of a part were neighbours, such seconds
would fall on some parts alone. So all parts are measured in rounds, each part once a round, and
the medians are over all rounds.
"""

import contextlib
import platform
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from irsplit.base.progress import Steps
from irsplit.engines.execute import Inputs, MeasurablePart
from irsplit.engines.isolate import Isolation, copies, isolated
from irsplit.engines.measure import Runs, load_of, rerun_part, run_part
from irsplit.profiles import Message
from irsplit.profiles.measured import Load
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions, engine_module

_P = ParamSpec("_P")
_T = TypeVar("_T")

ROUNDS = 3
"""Rounds over all parts, each with a share of the runs: a round that is disturbed is outvoted."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How carefully to measure.

    Attributes:
        engine: How the inference engine runs.
        warmup: Runs before those that are measured.
        runs: Runs of which the median counts; as many of them as fit into a second, but at least
            three.
        fresh: Run every part in a fresh process. Otherwise all parts run in this one: that is ten
            times faster, but memory is then a guess, and an engine that aborts takes this process
            along.
    """

    engine: EngineOptions = ONE_THREAD
    warmup: int = 3
    runs: int = 15
    fresh: bool = True

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in a fresh process, or in this one."""
        if self.fresh:
            return isolated(function, *args, **kwargs)

        return function(*args, **kwargs)

    @contextlib.contextmanager
    def again(self, format: str) -> Generator[Isolation]:
        """Yield a cheaper `run` for parts whose memory is known already.

        Args:
            format: The format of the parts; its engine is loaded once for all of them.
        """
        if not self.fresh:
            yield self.run
            return
        with copies((run_part.__module__, engine_module(format))) as call:
            yield call

    def shares(self) -> list[int]:
        """The runs of a part in each round."""
        return [len(range(index, self.runs, ROUNDS)) for index in range(min(ROUNDS, self.runs))]


def machine() -> str:
    """This machine in words: system, architecture, processor."""
    return f"{platform.system()} {platform.machine()}, {_processor()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    for line in lines:
        if "model name" in line:
            return line.partition(":")[2].strip()

    return platform.processor() or "unknown"


@dataclass(frozen=True, slots=True)
class MeasuredPart:
    """A part of a model, and its runs.

    Attributes:
        name: What progress calls it.
        part: What is run.
        inputs: What it reads, by name.
        rounds: Its runs in each round.
    """

    name: str
    part: MeasurablePart
    inputs: Inputs
    rounds: list[Runs]

    @property
    def load(self) -> Load:
        """Time and memory over all rounds."""
        return load_of(self.rounds)


@dataclass
class MeasuredRounds:
    """Measures the parts of a model one by one, then all of them again.

    Attributes:
        format: The format of the parts.
        effort: How carefully to measure.
        steps: Where progress is counted.
        parts: What was measured, in order.
    """

    format: str
    effort: Effort
    steps: Steps
    parts: list[MeasuredPart] = field(default_factory=list[MeasuredPart])

    def first(
        self, name: str, part: MeasurablePart, values: Mapping[str, Any]
    ) -> tuple[MeasuredPart, dict[str, Any]]:
        """Measure a part for the first time.

        Args:
            name: What progress calls it.
            part: What to run.
            values: Values by name, with all that the part reads.

        Returns:
            The part with its first round, and its outputs by name.

        Raises:
            EngineError: The engine refuses the part or its inputs.
        """
        self.steps.begin(name)
        inputs = {input: values[input] for input in part.inputs}
        runs, outputs = self.effort.run(run_part, part, inputs, *self._timing(0))
        measured = MeasuredPart(name, part, inputs, [runs])
        self.parts.append(measured)
        return measured, outputs

    def again(self) -> None:
        """Measure all parts in the remaining rounds.

        The order stays that of the first round, so that the runs of every part are equally far
        apart.
        """
        # Memory is known from the first round, so copies of one process will do.
        with self.effort.again(self.format) as call:
            for index in range(1, len(self.effort.shares())):
                for measured in self.parts:
                    self.steps.begin(measured.name)
                    timing = self._timing(index)
                    runs = call(rerun_part, measured.part, measured.inputs, *timing)
                    measured.rounds.append(runs)

    def _timing(self, index: int) -> tuple[EngineOptions, int, int, int]:
        """Engine options, warm-up, runs of one round, and the number of rounds."""
        shares = self.effort.shares()
        return self.effort.engine, self.effort.warmup, shares[index], len(shares)

    def message(self, measure: Callable[..., Message], bundle: Path, inputs: Inputs) -> Message:
        """Measure what a message of a bundle costs.

        Args:
            measure: A function of `irsplit.measure.message_overhead`.
            bundle: The bundle.
            inputs: The model's inputs, by name.
        """
        self.steps.begin("message")
        return self.effort.run(measure, bundle, inputs, self.effort.engine, self.effort.runs)
