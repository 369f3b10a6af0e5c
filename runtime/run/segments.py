"""Run a bundle's segments: the one place where an engine is opened for a segment and called."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.segment import SegmentInfo
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, Engine, EngineOptions
from irsplit.runtime.run.state import named_outputs, open_segment


@dataclass(frozen=True, slots=True)
class SegmentRun:
    """What a run of some segments gave.

    Attributes:
        values: All values by name: what the run received and what its segments gave.
        results: Those values that are outputs of the whole model.
        seconds: The time that each segment took, by its index.
    """

    values: dict[str, Any]
    results: dict[str, Any]
    seconds: dict[int, float] = field(repr=False)


class SegmentRunner:
    """Runs the segments of a bundle that are present at one placement or at several.

    Engines are opened when they are first used. `run` may be called from several threads.

    Example:
        runner = SegmentRunner(Manifest.load("build/digits"), "device")
        run = runner.run(0, 1, {"image": image})
        run.values["bottleneck/relu"]

    Args:
        manifest: The bundle.
        placements: The placement whose segments run here, or several.
        options: How engines run.
        clock: Seconds, for the times of segments.
    """

    def __init__(
        self,
        manifest: Manifest,
        placements: str | Collection[str],
        options: EngineOptions = DEFAULT_OPTIONS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.manifest = manifest
        self._placements = (placements,) if isinstance(placements, str) else tuple(placements)
        self._options = options
        self._clock = clock
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()

    def has(self, start: int, stop: int | None = None) -> bool:
        """Whether all segments from `start` to `stop` - 1, or to the last one, can run here."""
        return all(self._is_here(segment) for segment in self.manifest.segments[start:stop])

    def _is_here(self, segment: SegmentInfo) -> bool:
        return any(
            segment.placement == placement or placement in segment.copies
            for placement in self._placements
        )

    def stateful(self, start: int, stop: int) -> bool:
        """Whether one of the segments from `start` to `stop` - 1 keeps state between calls."""
        return any(segment.stateful for segment in self.manifest.segments[start:stop])

    def fresh(self) -> "SegmentRunner":
        """A runner of the same segments with its own state. Engines without state are shared."""
        other = SegmentRunner(self.manifest, self._placements, self._options, self._clock)
        for index, engine in self._engines.items():
            if not self.manifest.segments[index].stateful:
                other._engines[index] = engine
        return other

    def open(self, start: int, stop: int) -> None:
        """Open the engines of segments `start` to `stop` - 1 before the first call needs them.

        Raises:
            BundleError: A file is missing, or is no longer this build's.
            EngineError: An engine refuses its file.
        """
        for index in range(start, stop):
            self._engine(index)

    def run(
        self, start: int, stop: int, values: Mapping[str, Any], large: bool = False
    ) -> SegmentRun:
        """Run segments `start` to `stop` - 1, each on what the ones before it gave.

        Args:
            start: The first segment.
            stop: The segment to stop before.
            values: What the first segment reads, by name.
            large: Let the engines give the memory of this run back instead of keeping it for the
                next one.

        Raises:
            BundleError: A file is missing, or is no longer this build's.
            EngineError: An engine refuses the values, or fails.
        """
        available, results, seconds = dict(values), dict[str, Any](), dict[int, float]()
        for index in range(start, stop):
            segment, engine = self.manifest.segments[index], self._engine(index)

            # Opening an engine does not count.
            began = self._clock()
            outputs = _run_engine(engine, segment, available, large)
            seconds[index] = self._clock() - began

            available.update(named_outputs(segment, outputs))
            for name in segment.results:
                results[name] = available[name]
        return SegmentRun(available, results, seconds)

    def reset(self) -> None:
        """Forget the state that segments keep between calls."""
        for engine in self._engines.values():
            engine.reset()

    @property
    def state_bytes(self) -> int:
        """Size of the states that are kept between calls outside of the engines."""
        return sum(getattr(engine, "state_bytes", 0) for engine in self._engines.values())

    def _engine(self, index: int) -> Engine:
        # Opened under the lock, so that two threads do not open the same segment.
        with self._lock:
            if index not in self._engines:
                self._engines[index] = open_segment_of(self.manifest, index, self._options)
            return self._engines[index]


def open_segment_of(
    manifest: Manifest, index: int, options: EngineOptions = DEFAULT_OPTIONS
) -> Engine:
    """Open an engine for a bundle's segment, which keeps the segment's state between calls.

    Raises:
        BundleError: The file is missing, or is no longer this build's.
        EngineError: The engine is not installed, or refuses the file.
    """
    segment = manifest.segments[index]
    file = manifest.store.model(manifest.file(index) or segment.file)
    engine = open_segment(file, segment, options)
    # Checked last: the engine may have opened the file of a build that came meanwhile.
    manifest.store.check_same()
    return engine


def _run_engine(
    engine: Engine, segment: SegmentInfo, values: Mapping[str, Any], large: bool
) -> list[Any]:
    """Run a segment's engine on the values that the segment reads."""
    inputs = [values[name] for name in segment.inputs]

    # State inside of the engine would be lost together with the memory of a large run.
    if not large or (segment.stateful and not segment.state):
        return engine.run(inputs)
    return engine.run(inputs, large=True)


def encode(boundary: FrameSchema, values: Mapping[str, Any]) -> bytes:
    """The frame of a boundary. Its tensors are taken from `values` by name."""
    return framing.encode(boundary, [values[spec.name] for spec in boundary.tensors])


def decode(
    boundary: FrameSchema, frame: framing.Bytes, max_bytes: int = framing.DEFAULT_MAX_BYTES
) -> dict[str, Any]:
    """The tensors of a frame by name.

    Raises:
        FrameError: The frame is damaged, belongs to another boundary, or decodes to more than
            `max_bytes`.
    """
    arrays = framing.decode(boundary, frame, max_bytes=max_bytes)
    return {spec.name: array for spec, array in zip(boundary.tensors, arrays, strict=True)}
