"""Measure the segments of a bundle where it runs: no model is needed, and a side that is here alone will do.

`irsplit plan` takes the profile on the build machine: at the bundle's cuts times are as measured.
"""

from collections.abc import Mapping
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


def profile_bundle(
    bundle: Path,
    *,
    call: Inputs | None = None,
    dims: Mapping[str, int] | None = None,
    effort: Effort = Effort(),
    progress: Progress = silent,
) -> BundleProfile:
    """Measure the segments that are here of a bundle, its folder or a packed side, and the codecs at its boundaries.

    `call` are tensors by name, of those in `tensors_to_feed`; those that it lacks are made up, in sizes that the engine
    takes unless `dims` says which. Raises BundleError when no segment is here.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files()
    here = segments_here(manifest)
    if not here:
        raise BundleError(
            f"{bundle}: none of its segments is here; copy the folder of a side whole"
        )
    sweeps = MeasuredRounds(
        manifest.segments[0].format, effort, Steps(progress, 1 + len(here) * len(effort.shares()))
    )
    values: dict[str, Any] = dict(call or {})
    parts = {
        index: _first(sweeps, manifest, BundleSegment.of(manifest, index), values, dims)
        for index in here
    }
    message = _message(sweeps, manifest, values)
    sweeps.again()
    source = manifest.raw["source"]
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
            parts[index].load if index in parts else None for index in range(len(manifest.segments))
        ),
        tensors=_codings(manifest, values, effort.runs),
        previews=picture_sizes(call or {}),
        message=message,
    )


def segments_here(manifest: Manifest) -> list[int]:
    """The segments of a bundle whose files this side has: its own, and those that it carries for the server."""
    return [index for index in range(len(manifest.segments)) if manifest.file(index) is not None]


def tensors_to_feed(manifest: Manifest) -> list[TensorInfo]:
    """What the segments that are here read and none of them gives: inputs of the model, and what comes in a frame."""
    known = _tensors(manifest)
    given: set[str] = set()
    wanted: dict[str, TensorInfo] = {}
    for index in segments_here(manifest):
        segment = manifest.segments[index]
        wanted.update((name, known[name]) for name in segment.inputs if name not in given)
        given.update(segment.outputs)
    return list(wanted.values())


def _tensors(manifest: Manifest) -> dict[str, TensorInfo]:
    """All that segments read, by name."""
    specs = (spec for boundary in manifest.boundaries for spec in boundary.tensors)
    return {spec.name: TensorInfo(spec.name, spec.dtype, spec.shape) for spec in specs} | {
        info.name: info for info in manifest.inputs
    }


def _first(
    sweeps: MeasuredRounds,
    manifest: Manifest,
    part: BundleSegment,
    values: dict[str, Any],
    dims: Mapping[str, int] | None,
) -> MeasuredPart:
    """The first sweep of a segment; what it reads and gives joins the values."""
    known, name = _tensors(manifest), manifest.segments[part.index].name
    given = {input: values[input] for input in part.inputs if input in values}
    infos = [known[input] for input in part.inputs]
    (call,), (measured, outputs) = first_taken(
        lambda calls: sweeps.first(name, part, calls[0]), infos, 1, dims=dims, given=given
    )
    values.update(call)
    values.update(outputs)
    return measured


def _message(sweeps: MeasuredRounds, manifest: Manifest, values: Mapping[str, Any]) -> Message:
    """The exchange with a server where both halves are here, the device's part where it begins; else nothing."""
    places = [segment.placement for segment in manifest.segments]
    if places[:2] != ["device", "server"]:
        return NO_MESSAGE
    both = (
        len(places) == 2
        and len(segments_here(manifest)) == 2
        and isinstance(manifest.store, BundleFolder)
    )
    call = {info.name: values[info.name] for info in manifest.inputs if info.name in values}
    if manifest.file(0) is None or len(call) < len(manifest.inputs):
        return NO_MESSAGE
    return sweeps.message(
        measure_message if both else measure_device_message, manifest.store.root, call
    )


def _crossing(manifest: Manifest) -> tuple[tuple[str, ...], ...]:
    """Names of the model's tensors that cross at each boundary; operators at a boundary send others in their place."""
    in_graph = manifest.raw.get("boundary_ops", [{}] * len(manifest.boundaries))
    return tuple(
        tuple(
            described[spec.name]["of"] if spec.name in described else spec.name
            for spec in boundary.tensors
        )
        for boundary, described in zip(manifest.boundaries, in_graph, strict=True)
    )


def _codings(
    manifest: Manifest, values: Mapping[str, Any], runs: int
) -> dict[str, tuple[MeasuredTransfer, ...]]:
    """What crosses, in the codecs of every profile and as its boundary has it; and the model's inputs."""
    found: dict[str, tuple[MeasuredTransfer, ...]] = {}
    for info in manifest.inputs:
        if info.name in values and info.dtype in BY_NAME and BY_NAME[info.dtype].framable:
            found[info.name] = measure_codecs(
                info.name, info.dtype, [np.asarray(values[info.name])], runs
            )
    for spec in (
        spec for boundary in manifest.boundaries for spec in boundary.tensors if spec.name in values
    ):
        array = np.asarray(values[spec.name])
        ways = found.get(spec.name) or measure_codecs(spec.name, spec.dtype, [array], runs)
        own = spec.quantization is not None or spec.codec not in PARAMETERS
        found[spec.name] = (*ways, measure_coding(spec, [array], runs)) if own else ways
    return found
