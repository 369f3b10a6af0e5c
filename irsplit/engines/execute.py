"""Run whole models and bundles on stock engines; importable by name, for `isolated`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from irsplit.base.lazy import LazyModule
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, Engine, EngineOptions, open_engine
from irsplit.runtime.run.segments import open_segment_of
from irsplit.runtime.run.session import LocalSession
from irsplit.runtime.run.state import StateInfo, StateValues, open_segment

if TYPE_CHECKING:
    from irsplit.runtime.run.engines import litert
else:
    litert = LazyModule("irsplit.runtime.run.engines.litert")

Inputs = Mapping[str, NDArray[Any]]
"""Inputs of one inference by name."""

EXACT = replace(DEFAULT_OPTIONS, optimize=False, threads=1)
"""No fusing, one thread: a node computes the same whatever surrounds it."""


class MeasurablePart(Protocol):
    """Something that an engine runs: what it reads and gives, in the engine's order."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def open(self, options: EngineOptions) -> Engine: ...


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment as the engine sees it: file, format, and the names of its inputs and outputs in the file's order."""

    path: Path
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state: tuple[StateInfo, ...] = ()

    def open(self, options: EngineOptions) -> Engine:
        """An engine that keeps the state itself."""
        return open_segment(self.path, self, options)


@dataclass(frozen=True, slots=True)
class BundleSegment:
    """A segment where it lies in a bundle, a folder or a packed side."""

    bundle: Path
    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest, index: int) -> "BundleSegment":
        segment = manifest.segments[index]
        return cls(manifest.store.root, index, segment.inputs, segment.outputs)

    def open(self, options: EngineOptions) -> Engine:
        """An engine that keeps the state itself."""
        return open_segment_of(Manifest.load(self.bundle), self.index, options)


def run_whole(
    file: SegmentFile, calls: Sequence[Inputs], options: EngineOptions
) -> tuple[list[dict[str, Any]], bool]:
    """Outputs of each call by name, one engine for all of them, so that state carries over; whether it optimised.

    What is in `file.state` is fed back from each call to the next.
    """
    engine = open_engine(file.path, file.format, options)
    states = StateValues(file.state)
    outputs: list[dict[str, Any]] = []
    for call in calls:
        known = {**call, **states.values}
        outputs.append(
            dict(zip(file.outputs, engine.run([known[name] for name in file.inputs]), strict=True))
        )
        states.keep(outputs[-1])
    return outputs, engine.optimized


def run_shapes(file: SegmentFile, call: Inputs) -> list[tuple[int, ...] | None]:
    """Shapes of the outputs of one call in the file's order; None for what is no tensor."""
    engine = open_engine(file.path, file.format, EXACT)
    return [
        getattr(output, "shape", None)
        for output in engine.run([call[name] for name in file.inputs])
    ]


def prepared_shapes(
    path: Path, inputs: Sequence[Sequence[tuple[int, ...]]]
) -> list[dict[int, tuple[int, ...]]]:
    """Shapes of a TFLite model's tensors by their numbers, for several shapes of its inputs; nothing is run.

    What only a run tells is left out, and all of them where LiteRT refuses the inputs.
    """
    return [litert.prepared(path, shapes) for shapes in inputs]


def run_bundle(
    folder: Path, calls: Sequence[Inputs], options: EngineOptions
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Outputs of each call by name, and the bytes of its frames, all segments in this process."""
    session = LocalSession(folder, options)
    outputs: list[dict[str, Any]] = []
    frames: list[list[int]] = []
    for call in calls:
        outputs.append(session.run(call))
        frames.append(session.frame_bytes)
    return outputs, frames


def run_segments(
    files: Sequence[SegmentFile], calls: Sequence[Inputs], wanted: Sequence[str]
) -> dict[str, list[Any]]:
    """Run the segments in order, passing everything on; the arrays of the `wanted` values over the calls."""
    engines = [file.open(EXACT) for file in files]
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    for call in calls:
        values = dict(call)
        for file, engine in zip(files, engines, strict=True):
            outputs = engine.run([values[name] for name in file.inputs])
            values.update(zip(file.outputs, outputs, strict=True))
        for name in wanted:
            found[name].append(values[name])
    return found
