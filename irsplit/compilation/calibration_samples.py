"""Where passes get the arrays of a model's tensors from: an engine that runs it, or a recording."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base.digests import Digests
from irsplit.base.errors import EngineError
from irsplit.compilation.bundle_writer import BundleSource, edges, write_bundle
from irsplit.dialects.base import Dialect, WriteOptions
from irsplit.engines.execute import EXACT, Inputs, SegmentFile, run_bundle, run_segments
from irsplit.engines.isolate import isolated
from irsplit.ir import Graph, Model, Value, engine_graph
from irsplit.passes.base import Samples
from irsplit.passes.send_attributes import sends

_NO_ORIGIN = BundleSource("calibration", "", "", {})
"""The origin of bundles that are deleted before anybody reads their manifest."""


@dataclass(frozen=True)
class CalibrationSamples:
    """Runs a model on calibration samples in the engine of its dialect.

    Args:
        dialect: The dialect of the model, which writes the files that the engine runs.
        entry: The entry graph of the whole model, as it was before any pass changed it.
        samples: Inputs by name, one mapping a sample; at least one.
    """

    dialect: Dialect
    entry: Graph
    samples: Sequence[Inputs]

    def crossing(self, model: Model) -> Mapping[str, Samples]:
        """Return the arrays of every value that crosses a boundary of a partitioned model."""
        return self._recorded(model, model.segments, self.samples, _crossing_names(model))

    def outputs(self, model: Model) -> Sequence[Mapping[str, Any]]:
        """Return the outputs of every sample, through the segments and real frames between them."""
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder, Digests() as digests:
            bundle = Path(folder) / "bundle"
            write_bundle(
                model,
                self.dialect,
                self.entry,
                bundle,
                lambda: _NO_ORIGIN,
                digests,
                WriteOptions(),
            )
            return isolated(run_bundle, bundle, list(self.samples), EXACT)[0]

    def observed(self, model: Model, values: Sequence[Value], most: int) -> Mapping[str, Samples]:
        """Return the arrays of some values of the whole model, on at most `most` samples."""
        step = -(-len(self.samples) // most)
        # The values become outputs, so that the engine returns them; graph inputs are at hand.
        produced = [value for value in values if value.producer is not None]
        graph = replace(model.entry, outputs=produced)
        names = [value.name for value in values]
        return self._recorded(model, [graph], self.samples[::step], names)

    def _recorded(
        self, model: Model, graphs: Sequence[Graph], samples: Sequence[Inputs], names: Sequence[str]
    ) -> Mapping[str, Samples]:
        """Run the graphs one after the other and return the arrays of the named values."""
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            files: list[SegmentFile] = []
            for index, graph in enumerate(graphs):
                # The file has a number for a name: that of the graph may be a path.
                path = Path(folder) / f"{index}{self.dialect.extensions[0]}"
                self.dialect.write(model, engine_graph(graph), path)
                files.append(SegmentFile(path, self.dialect.engine, *edges(graph)))

            return isolated(run_segments, files, list(samples), names)


@dataclass(frozen=True)
class RecordedSamples:
    """Arrays of a model's values that were recorded elsewhere, for IR text, which no engine runs.

    Args:
        arrays: For every recorded value its arrays by name, one a sample. The recorded outputs are
            those of any partition, however it quantizes.
    """

    arrays: Mapping[str, Samples]

    def crossing(self, model: Model) -> Mapping[str, Samples]:
        """Return the recorded arrays of the values that cross; values without any are left out."""
        names = _crossing_names(model)
        return {name: self.arrays[name] for name in names if name in self.arrays}

    def outputs(self, model: Model) -> Sequence[Mapping[str, Any]]:
        """Return the recorded outputs. Raises EngineError where one was not recorded."""
        names: list[str] = []
        for graph in model.segments:
            names += [value.name for value in graph.outputs]
        missing = [name for name in names if name not in self.arrays]
        if missing:
            raise EngineError(f"output %{missing[0]} is not recorded; put it into the .npz file")

        count = min((len(self.arrays[name]) for name in names), default=0)
        outputs: list[dict[str, Any]] = []
        for index in range(count):
            outputs.append({name: self.arrays[name][index] for name in names})
        return outputs

    def observed(self, model: Model, values: Sequence[Value], most: int) -> Mapping[str, Samples]:
        """Return the recorded arrays of some values. Raises EngineError where one has none."""
        missing = [value for value in values if value.name not in self.arrays]
        if missing:
            raise EngineError(f"{missing[0]} is not recorded; put it into the .npz file")
        return {value.name: self.arrays[value.name][:most] for value in values}


def recorded_samples(paths: Sequence[Path]) -> RecordedSamples:
    """Read recorded values from `.npz` files: one file a sample, with an array for each value.

    Raises:
        EngineError: A file cannot be read; the error names it.
    """
    arrays: dict[str, list[np.ndarray]] = {}
    for path in paths:
        try:
            with np.load(path) as archive:
                for name in archive.files:
                    arrays.setdefault(name, []).append(archive[name])
        except (OSError, ValueError, AttributeError) as error:
            raise EngineError(
                f"{path}: cannot be read as .npz ({error}); record values with numpy.savez"
            ) from error
    return RecordedSamples(arrays)


def _crossing_names(model: Model) -> list[str]:
    names: dict[str, None] = {}
    for _, send in sends(model):
        names.update((value.name, None) for value in send.inputs if value is not None)
    return list(names)
