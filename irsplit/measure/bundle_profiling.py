"""Measures the segments of a bundle where it runs.

No model is needed, and a side that is here alone will do. `irsplit plan` takes the profile on the
build machine: at the bundle's cuts, times are as measured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import BundleError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.compilation.provenance import engine
from irsplit.engines.execute import BundleSegment, Inputs
from irsplit.engines.measure import PARAMETERS, measure_codecs, measure_coding
from irsplit.engines.picture_baseline import picture_sizes
from irsplit.engines.synthetic_inputs import first_taken
from irsplit.measure.measurement import Effort, MeasuredPart, MeasuredRounds, machine
from irsplit.measure.message_overhead import measure_device_message, measure_message
from irsplit.profiles import NO_MESSAGE, Message
from irsplit.profiles.measured import BundleProfile, MeasuredTransfer
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.bundle.store import BundleFolder
from irsplit.runtime.frame.descriptor import TensorSpec


def profile_bundle(
    bundle: Path,
    *,
    inputs: Inputs | None = None,
    dims: Mapping[str, int] | None = None,
    effort: Effort = Effort(),
    progress: Progress = silent,
) -> BundleProfile:
    """Measure the segments of a bundle that are here, and the codecs at its boundaries.

    Args:
        bundle: A bundle's folder or a packed side.
        inputs: Tensors by name, any of those that `tensors_to_feed` lists. The others are made up.
        dims: Sizes of open dimensions of tensors that are made up; by default the first sizes that
            the engine takes.
        effort: How carefully to measure.
        progress: Called before each step.

    Returns:
        Times and memory of each segment, None for those that are not here.

    Raises:
        BundleError: No segment is here.
        EngineError: An engine refuses a segment or the inputs.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    indices = segments_here(manifest)
    if not indices:
        raise BundleError(
            f"{bundle}: none of its segments is here; copy the folder of a side whole"
        )

    steps = Steps(progress, 1 + len(indices) * len(effort.shares()))
    rounds = MeasuredRounds(manifest.segments[0].format, effort, steps)
    # In order, because segments read what those before them produce.
    values: dict[str, Any] = dict(inputs or {})
    measured: dict[int, MeasuredPart] = {}
    for index in indices:
        measured[index] = _measure_first(rounds, manifest, index, values, dims)
    message = _measure_message(rounds, manifest, values)
    rounds.again()

    source = manifest.raw["source"]
    count = len(manifest.segments)

    return BundleProfile(
        model=source["file"],
        digest=source["sha256"],
        bundle=manifest.digest,
        machine=machine(),
        engine=engine(source["dialect"], effort.engine),
        threads=effort.engine.threads,
        runs=effort.runs,
        boundaries=_crossing(manifest),
        segments=tuple(
            measured[index].load if index in measured else None for index in range(count)
        ),
        tensors=_transfers(manifest, values, effort.runs),
        previews=picture_sizes(inputs or {}),
        message=message,
    )


def segments_here(manifest: Manifest) -> list[int]:
    """Indices of the segments whose files this side has.

    These are its own segments, and those that it carries for the server.
    """
    return [index for index in range(len(manifest.segments)) if manifest.file(index) is not None]


def tensors_to_feed(manifest: Manifest) -> list[TensorInfo]:
    """What the segments that are here read and none of them produces.

    These are inputs of the model, and tensors that come in a frame.
    """
    infos = _tensors(manifest)
    produced: set[str] = set()
    required: dict[str, TensorInfo] = {}
    for index in segments_here(manifest):
        segment = manifest.segments[index]
        for name in segment.inputs:
            if name not in produced:
                required[name] = infos[name]

        produced.update(segment.outputs)

    return list(required.values())


def _boundary_tensors(manifest: Manifest) -> list[TensorSpec]:
    """The tensors of all boundaries, in order."""
    specs: list[TensorSpec] = []
    for schema in manifest.boundaries:
        specs.extend(schema.tensors)
    return specs


def _tensors(manifest: Manifest) -> dict[str, TensorInfo]:
    """Everything that segments read, by name."""
    infos = {
        spec.name: TensorInfo(spec.name, spec.dtype, spec.shape)
        for spec in _boundary_tensors(manifest)
    }
    infos.update((info.name, info) for info in manifest.inputs)
    return infos


def _measure_first(
    rounds: MeasuredRounds,
    manifest: Manifest,
    index: int,
    values: dict[str, Any],
    dims: Mapping[str, int] | None,
) -> MeasuredPart:
    """Measure a segment for the first time, and add what it reads and produces to the values."""
    part, name = BundleSegment.of(manifest, index), manifest.segments[index].name
    tensors = _tensors(manifest)
    infos = [tensors[input] for input in part.inputs]
    present = {input: values[input] for input in part.inputs if input in values}
    (inputs,), (measured, outputs) = first_taken(
        lambda samples: rounds.first(name, part, samples[0]), infos, 1, dims=dims, given=present
    )
    values.update(inputs)
    values.update(outputs)
    return measured


def _measure_message(
    rounds: MeasuredRounds, manifest: Manifest, values: Mapping[str, Any]
) -> Message:
    """Measure what a message costs, as far as its sides are here.

    With both segments of a bundle with one cut, that is the whole exchange with a server. With the
    device's first segment it is the device's share, and otherwise nothing.
    """
    placements = [segment.placement for segment in manifest.segments]
    inputs = {info.name: values[info.name] for info in manifest.inputs if info.name in values}
    if placements[:2] != ["device", "server"]:
        return NO_MESSAGE
    if manifest.file(0) is None or len(inputs) < len(manifest.inputs):
        return NO_MESSAGE

    all_here = len(placements) == len(segments_here(manifest)) == 2
    if all_here and isinstance(manifest.store, BundleFolder):
        return rounds.message(measure_message, manifest.store.root, inputs)

    return rounds.message(measure_device_message, manifest.store.root, inputs)


def _crossing(manifest: Manifest) -> tuple[tuple[str, ...], ...]:
    """Names of the model's tensors that cross at each boundary.

    Where operators at a boundary send other tensors, the manifest says which ones they stand for.
    """
    count = len(manifest.boundaries)
    stand_ins: list[dict[str, Any]] = manifest.raw.get("boundary_ops", [{}] * count)
    boundaries: list[tuple[str, ...]] = []
    for schema, described in zip(manifest.boundaries, stand_ins, strict=True):
        names = [spec.name for spec in schema.tensors]
        boundaries.append(
            tuple(described[name]["of"] if name in described else name for name in names)
        )

    return tuple(boundaries)


def _transfers(
    manifest: Manifest, values: Mapping[str, Any], runs: int
) -> dict[str, tuple[MeasuredTransfer, ...]]:
    """Sizes and times of what crosses, and of the model's inputs.

    Each tensor is measured with the codecs of every profile, and as its boundary codes it.
    """
    transfers: dict[str, tuple[MeasuredTransfer, ...]] = {}
    for name, dtype in _framable(manifest.inputs, values):
        transfers[name] = measure_codecs(name, dtype, [np.asarray(values[name])], runs)

    for spec in _boundary_tensors(manifest):
        if spec.name not in values:
            continue

        array = np.asarray(values[spec.name])
        options = transfers.get(spec.name) or measure_codecs(spec.name, spec.dtype, [array], runs)
        if spec.quantization is not None or spec.codec not in PARAMETERS:
            options = (*options, measure_coding(spec, [array], runs))
        transfers[spec.name] = options

    return transfers


def _framable(infos: Sequence[TensorInfo], values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and element type of the inputs that have values and can be framed."""
    return [
        (info.name, info.dtype)
        for info in infos
        if info.name in values and info.dtype in BY_NAME and BY_NAME[info.dtype].framable
    ]
