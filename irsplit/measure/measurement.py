"""Measure parts in turns: `irsplit profile` of a model and of a bundle.

Every part runs in a fresh process, so that its memory is its own, and optimised by the engine as it will be in use.
A machine has slow seconds. If all runs of a part were neighbours, they would fall on some parts alone; so all parts are
measured in turns, again and again, and the medians are over all turns.
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

SWEEPS = 3
"""Times that all parts are measured in turn, each time with a share of the runs: one that is disturbed is outvoted."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How carefully to measure. Medians are over `runs`, or as many of them as fit into a second, three at least.

    Without `fresh` processes the parts run in this one: ten times faster, but memory is then a guess, and an engine
    that aborts takes this process along.
    """

    engine: EngineOptions = ONE_THREAD
    warmup: int = 3
    runs: int = 15
    fresh: bool = True

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the function in a fresh process, or in this one."""
        return isolated(function, *args, **kwargs) if self.fresh else function(*args, **kwargs)

    @contextlib.contextmanager
    def again(self, format: str) -> Generator[Isolation]:
        """Calls like `run`, of functions that use the engine of a format, once its memory is known."""
        if not self.fresh:
            yield self.run
            return
        with copies((run_part.__module__, engine_module(format))) as call:
            yield call

    def shares(self) -> list[int]:
        """The runs of each sweep."""
        return [len(range(sweep, self.runs, SWEEPS)) for sweep in range(min(SWEEPS, self.runs))]


def machine() -> str:
    """This machine in words: system, architecture, processor."""
    info = Path("/proc/cpuinfo")
    models = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if "model name" in line
        ]
        if info.exists()
        else []
    )
    return f"{platform.system()} {platform.machine()}, {models[0] if models else platform.processor() or 'unknown'}"


@dataclass(frozen=True, slots=True)
class MeasuredPart:
    """A part, what it reads, and its runs, a sweep each."""

    name: str
    part: MeasurablePart
    inputs: Inputs
    sweeps: list[Runs]

    @property
    def load(self) -> Load:
        return load_of(self.sweeps)


@dataclass
class MeasuredRounds:
    """Measures parts for the engine of a format one by one, then all of them again."""

    format: str
    effort: Effort
    steps: Steps
    measured: list[MeasuredPart] = field(default_factory=list[MeasuredPart])

    def first(
        self, name: str, part: MeasurablePart, values: Mapping[str, Any]
    ) -> tuple[MeasuredPart, dict[str, Any]]:
        """The first sweep's runs of a part on those of the values that it reads, and its outputs by name."""
        self.steps.begin(name)
        needed = {input: values[input] for input in part.inputs}
        runs, outputs = self.effort.run(run_part, part, needed, *self._timing(0))
        self.measured.append(MeasuredPart(name, part, needed, [runs]))
        return self.measured[-1], outputs

    def again(self) -> None:
        """The other sweeps over all parts, in the order of the first: the turns of every part are as far apart."""
        with self.effort.again(self.format) as call:
            for sweep in range(1, len(self.effort.shares())):
                for each in self.measured:
                    self.steps.begin(each.name)
                    each.sweeps.append(
                        call(rerun_part, each.part, each.inputs, *self._timing(sweep))
                    )

    def _timing(self, sweep: int) -> tuple[EngineOptions, int, int, int]:
        """Options of the engine, warm-up, runs of one sweep, and how many sweeps there are."""
        shares = self.effort.shares()
        return self.effort.engine, self.effort.warmup, shares[sweep], len(shares)

    def message(self, measure: Callable[..., Message], bundle: Path, inputs: Inputs) -> Message:
        """What a message of a bundle costs, by one of `irsplit.measure.message_overhead`."""
        self.steps.begin("message")
        return self.effort.run(measure, bundle, inputs, self.effort.engine, self.effort.runs)
