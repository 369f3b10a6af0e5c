"""Run any stretch of a bundle's segments that this side has the files of."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from irsplit.runtime.bundle.manifest import Manifest, run_engine
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, Engine, EngineOptions
from irsplit.runtime.run.state import named_outputs


@dataclass(frozen=True, slots=True)
class SegmentRun:
    """What a stretch of segments gave: all values by name, the model's results among them, seconds of each segment."""

    values: dict[str, Any]
    results: dict[str, Any]
    seconds: dict[int, float] = field(repr=False)


class SegmentRunner:
    """The engines of one side, opened when first used. `run` may be called from several threads."""

    def __init__(
        self,
        manifest: Manifest,
        place: str,
        options: EngineOptions = DEFAULT_OPTIONS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.manifest = manifest
        self.placement = place
        self._options = options
        self._clock = clock
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()

    def has(self, start: int, stop: int | None = None) -> bool:
        """Whether segments from `start` on are here, up to `stop` or the last one."""
        count = len(self.manifest.segments)
        return all(self._belongs(index) for index in range(start, count if stop is None else stop))

    def _belongs(self, index: int) -> bool:
        segment = self.manifest.segments[index]
        return segment.placement == self.placement or self.placement in segment.copies

    def stateful(self, start: int, stop: int) -> bool:
        return any(segment.stateful for segment in self.manifest.segments[start:stop])

    def fresh(self) -> "SegmentRunner":
        """The same segments with states of their own; engines without state are shared."""
        other = SegmentRunner(self.manifest, self.placement, self._options, self._clock)
        other._engines = {
            i: e for i, e in self._engines.items() if not self.manifest.segments[i].stateful
        }
        return other

    def open(self, start: int, stop: int) -> None:
        """Load engines before the first call needs them. Raises BundleError for a missing file, EngineError."""
        for index in range(start, stop):
            self._engine(index)

    def run(
        self, start: int, stop: int, values: Mapping[str, Any], large: bool = False
    ) -> SegmentRun:
        """Run segments `start` to `stop` - 1 on the values that `start` reads. Raises EngineError.

        After a `large` run engines give the memory back that they keep for the next one.
        """
        known, results, seconds = dict(values), dict[str, Any](), dict[int, float]()
        for index in range(start, stop):
            segment, engine = self.manifest.segments[index], self._engine(index)
            began = self._clock()
            outputs = run_engine(engine, segment, known, large)
            seconds[index] = self._clock() - began
            known.update(named_outputs(segment, outputs))
            results.update((name, known[name]) for name in segment.results)
        return SegmentRun(known, results, seconds)

    @property
    def state_bytes(self) -> int:
        """Of the states that are kept between calls beside the engines."""
        return sum(getattr(engine, "state_bytes", 0) for engine in self._engines.values())

    def _engine(self, index: int) -> Engine:
        with self._lock:
            if index not in self._engines:
                self._engines[index] = self.manifest.engine(index, self._options)
            return self._engines[index]


def encode(boundary: FrameSchema, values: Mapping[str, Any]) -> bytes:
    return framing.encode(boundary, [values[spec.name] for spec in boundary.tensors])


def decode(
    boundary: FrameSchema, frame: framing.Bytes, max_bytes: int = framing.DEFAULT_MAX_BYTES
) -> dict[str, Any]:
    arrays = framing.decode(boundary, frame, max_bytes=max_bytes)
    return {spec.name: array for spec, array in zip(boundary.tensors, arrays, strict=True)}
