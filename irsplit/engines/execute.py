"""Run whole models and bundles on the installed engines.

`isolated` runs most of these functions in a process of its own, so they are importable by name and
take and return what can be pickled.
"""

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
"""No fusing, one thread: a node computes the same result whatever surrounds it."""


class MeasurablePart(Protocol):
    """Something that an engine can run: a whole model, a stage or a segment."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs in the engine's order."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs in the engine's order."""
        ...

    def open(self, options: EngineOptions) -> Engine:
        """Load it into an engine that keeps its state between calls."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A model file as its engine sees it.

    Args:
        path: The file.
        format: Name of the engine that runs it.
        inputs: Names of the inputs in the file's order.
        outputs: Names of the outputs in the file's order.
        state: Pairs of input and output that carry state from one call to the next.
    """

    path: Path
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state: tuple[StateInfo, ...] = ()

    def open(self, options: EngineOptions) -> Engine:
        """Load the file into an engine that keeps the state itself."""
        return open_segment(self.path, self, options)


@dataclass(frozen=True, slots=True)
class BundleSegment:
    """A segment in its bundle, which is a folder or a packed side.

    Args:
        bundle: The folder or the file.
        index: Position of the segment in the manifest.
        inputs: Names of the inputs in the file's order.
        outputs: Names of the outputs in the file's order.
    """

    bundle: Path
    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest, index: int) -> "BundleSegment":
        """Describe a segment of an open bundle so that another process can open it."""
        segment = manifest.segments[index]
        return cls(manifest.store.root, index, segment.inputs, segment.outputs)

    def open(self, options: EngineOptions) -> Engine:
        """Load the segment into an engine that keeps the state itself."""
        return open_segment_of(Manifest.load(self.bundle), self.index, options)


def run_whole(
    file: SegmentFile, samples: Sequence[Inputs], options: EngineOptions
) -> tuple[list[dict[str, Any]], bool]:
    """Run a whole model on several samples, one after another in one engine.

    State carries over from each call to the next, by the pairs in `file.state`.

    Returns:
        The outputs of every call by name, and whether the engine fused and reordered nodes.
    """
    engine = open_engine(file.path, file.format, options)
    states = StateValues(file.state)
    outputs: list[dict[str, Any]] = []

    for inputs in samples:
        # The engine does not keep the state: it is an input of each call and an output of the last.
        values = {**inputs, **states.values}
        arrays = engine.run([values[name] for name in file.inputs])
        outputs.append(dict(zip(file.outputs, arrays, strict=True)))
        states.keep(outputs[-1])

    return outputs, engine.optimized


def run_shapes(file: SegmentFile, inputs: Inputs) -> list[tuple[int, ...] | None]:
    """Run a model once for the shapes of its outputs.

    Returns:
        One shape per output, in the file's order; None for an output that is no tensor.
    """
    engine = open_engine(file.path, file.format, EXACT)
    outputs = engine.run([inputs[name] for name in file.inputs])
    return [getattr(output, "shape", None) for output in outputs]


def prepared_shapes(
    path: Path, input_shapes: Sequence[Sequence[tuple[int, ...]]]
) -> list[dict[int, tuple[int, ...]]]:
    """Find the shapes of a TFLite model's tensors for several shapes of its inputs, without a run.

    Args:
        path: The .tflite file.
        input_shapes: For each request one shape per input, in the file's order.

    Returns:
        For each request, shapes by tensor number. Shapes that only a run can tell are missing. A
        request that LiteRT refuses gives an empty mapping.
    """
    return [litert.prepared(path, shapes) for shapes in input_shapes]


def run_bundle(
    folder: Path, samples: Sequence[Inputs], options: EngineOptions
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Run all segments of a bundle in this process, with real frames between them.

    Returns:
        For each sample the outputs by name, and the bytes of each of its frames.
    """
    session = LocalSession(folder, options)
    outputs: list[dict[str, Any]] = []
    frame_bytes: list[list[int]] = []

    for inputs in samples:
        outputs.append(session.run(inputs))
        frame_bytes.append(session.frame_bytes)
    return outputs, frame_bytes


def run_segments(
    files: Sequence[SegmentFile], samples: Sequence[Inputs], names: Sequence[str]
) -> dict[str, list[Any]]:
    """Run segments in order without frames, passing every value on as it is.

    Args:
        files: The segments.
        samples: Inputs of the model, one mapping per call.
        names: Values to record.

    Returns:
        For each of the names, its arrays over the samples.
    """
    engines = [file.open(EXACT) for file in files]
    recorded: dict[str, list[Any]] = {name: [] for name in names}

    for inputs in samples:
        values = dict(inputs)
        for file, engine in zip(files, engines, strict=True):
            outputs = engine.run([values[name] for name in file.inputs])
            values.update(zip(file.outputs, outputs, strict=True))
        for name in names:
            recorded[name].append(values[name])

    return recorded
