"""Write a bundle: the segments of both sides, the schema of every boundary, and the manifest.

The bundle appears whole or not at all.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irsplit.base.atomic_files import new_folder
from irsplit.base.digests import Digests
from irsplit.base.errors import VERSION
from irsplit.dialects.base import Dialect, WriteOptions
from irsplit.dialects.writing import write_graphs
from irsplit.engines.inputs import tensor_info
from irsplit.ir import Graph, Model, TensorType, Value, engine_graph, required_inputs, states
from irsplit.passes.analysis.dims import symbols_of
from irsplit.passes.send_attributes import sends, specs
from irsplit.runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    SegmentInfo,
    manifest_text,
)
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.run.state import StateInfo


@dataclass(frozen=True, slots=True)
class BundleSource:
    """What a manifest says of the model file and of how the bundle was made."""

    file: str
    sha256: str
    pipeline: str
    details: dict[str, Any]
    """Further objects for the manifest, by key: the chosen cuts and why, remarks."""


def write_bundle(
    model: Model,
    dialect: Dialect,
    source: Graph,
    folder: Path,
    origin: Callable[[], BundleSource],
    digests: Digests,
    options: WriteOptions,
    carried: int = 0,
    beside: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write a partitioned model as a bundle.

    The folder appears whole, in place of an older bundle there; on failure nothing of it is left
    and the older one stays. The same model, pipeline and version give the same bytes.

    Args:
        model: The partitioned model.
        dialect: The format of the segments.
        source: The entry graph before partition, which has the order of inputs and outputs.
        folder: Where the bundle goes.
        origin: Called last, when everything else is written: until then the model file may still
            be read for `digests`.
        digests: Computes the digest of every file.
        options: How weights are laid out.
        carried: How many segments, from the first on, the device side has too, wherever they run.
        beside: Contents of files beside the manifest, by name. They belong to no side: no digest
            covers them, and patches leave them out.

    Returns:
        The manifest of the bundle.

    Raises:
        BundleError: The folder holds something else, or cannot be written.
    """
    with new_folder(folder) as build:
        segments = _write_segments(model, dialect, build, options, carried)
        files = _digests(build, digests)

        tensors = [tuple(specs(send)) for _, send in sends(model)]
        digest = _content_digest(files, segments, tensors)
        boundaries = _write_boundaries(build, files, digest, segments, tensors)

        made = origin()
        manifest = {
            "format_version": FORMAT_VERSION,
            "irsplit": VERSION,
            "name": Path(made.file).stem,
            "digest": digest,
            "source": {"file": made.file, "sha256": made.sha256, "dialect": model.dialect},
            "pipeline": made.pipeline,
            "inputs": [tensor_info(value).to_json() for value in required_inputs(source)],
            "outputs": [tensor_info(value).to_json() for value in dict.fromkeys(source.outputs)],
            "segments": [segment.to_json() for segment in segments],
            "boundaries": boundaries,
            **_symbols(source, model),
            **made.details,
            "files": dict(sorted(files.items())),
        }
        for name, data in (beside or {}).items():
            (build / name).write_bytes(data)
        (build / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    return Manifest.load(folder)


def _write_boundaries(
    build: Path,
    files: dict[str, str],
    digest: str,
    segments: Sequence[SegmentInfo],
    tensors: Sequence[Sequence[TensorSpec]],
) -> list[dict[str, Any]]:
    """Write the descriptor of every boundary to each side, and add its digest to `files`.

    Returns the manifest's entries on the boundaries.
    """
    places: set[str] = set()
    for segment in segments:
        places.update((segment.placement, *segment.copies))

    entries: list[dict[str, Any]] = []
    for index, crossing in enumerate(tensors):
        name = _boundary_name(crossing)
        boundary = FrameSchema(index, name, tuple(crossing), bytes.fromhex(digest))
        paths = {place: f"{place}/boundary{index}.irsd" for place in sorted(places)}
        data = boundary.to_bytes()
        for path in paths.values():
            (build / path).write_bytes(data)
            files[path] = hashlib.sha256(data).hexdigest()
        entries.append(_boundary_json(boundary, paths))
    return entries


def _symbols(source: Graph, model: Model) -> dict[str, dict[str, str]]:
    """Return the manifest's entry on symbols of open dimensions, by "<tensor>.<axis>".

    It covers inputs, outputs and what crosses, and is empty where none has a symbol.
    """
    tensors = [*required_inputs(source), *source.outputs]
    for _, send in sends(model):
        tensors += [value for value in send.inputs if value is not None]
    symbols = symbols_of(dict.fromkeys(tensors))
    return {"symbols": symbols} if symbols else {}


# -- segments ------------------------------------------------------------------------------------


def _write_segments(
    model: Model, dialect: Dialect, build: Path, options: WriteOptions, carried: int
) -> list[SegmentInfo]:
    """Write the file of every segment to each side that has it."""
    written: list[tuple[Graph, Path]] = []
    segments: list[SegmentInfo] = []
    for index, graph in enumerate(model.segments):
        copied_to = ("device",) if index < carried else ()
        paths = _segment_paths(graph, dialect.extensions[0], copied_to)
        lowered = engine_graph(graph)
        written += [(lowered, build / path) for path in paths.values()]
        segments.append(_segment_info(dialect.engine, graph, paths))

    for _, path in written:
        path.parent.mkdir(exist_ok=True)
    write_graphs(dialect, model, written, options)
    return segments


def _segment_paths(graph: Graph, extension: str, copied_to: Sequence[str]) -> dict[str, str]:
    """Return the paths of a segment in the bundle, by side: first that on which it runs."""
    place = graph.placement or "server"
    stem = "model" if graph.name == place else graph.name
    copies = {other: f"{other}/{graph.name}{extension}" for other in copied_to if other != place}
    return {place: f"{place}/{stem}{extension}", **copies}


def _segment_info(engine: str, graph: Graph, paths: Mapping[str, str]) -> SegmentInfo:
    """Describe a segment as manifests do."""
    (place, file), *copies = paths.items()
    inputs, outputs, state = edges(graph)
    return SegmentInfo(
        graph.name,
        place,
        file,
        engine,
        inputs,
        outputs,
        tuple(value.name for value in graph.outputs),
        any(node.states for node in graph.nodes),
        dict(copies),
        state,
    )


def edges(segment: Graph) -> tuple[tuple[str, ...], tuple[str, ...], tuple[StateInfo, ...]]:
    """Name the inputs and outputs of a segment's file.

    Args:
        segment: A segment of a partitioned model.

    Returns:
        The inputs, the outputs, and the state. Values of the state are left out of the first two,
        unless they are sent as well; in the file they come behind the others.
    """
    pairs = states(segment)
    lowered = engine_graph(segment)
    loaded = {before for before, _ in pairs}
    stored = {after for _, after in pairs}

    inputs = [
        value.name for value in lowered.inputs if value.constant is None and value not in loaded
    ]
    sent: set[Value | None] = set()
    for node in segment.nodes:
        if node.op == "irsplit.send":
            sent.update(node.inputs)
    outputs = [value.name for value in lowered.outputs if value not in stored or value in sent]
    state = tuple(_state_info(before, after) for before, after in pairs)
    return tuple(inputs), tuple(outputs), state


def _state_info(before: Value, after: Value) -> StateInfo:
    """Describe a state as manifests do; the node that loads it has the shape it begins with."""
    assert isinstance(before.type, TensorType)
    assert before.producer is not None
    shape: Any = before.producer.attributes["shape"]
    return StateInfo(before.name, after.name, before.type.dtype.name, tuple(shape))


# -- digests and boundaries ----------------------------------------------------------------------


def _digests(build: Path, digests: Digests) -> dict[str, str]:
    """Return the SHA-256 of every file, by its path in the bundle."""
    paths = [path for path in sorted(build.rglob("*")) if path.is_file()]
    names = [path.relative_to(build).as_posix() for path in paths]
    return dict(zip(names, digests.of(paths), strict=True))


def _content_digest(
    files: dict[str, str], segments: Sequence[SegmentInfo], tensors: Sequence[Sequence[TensorSpec]]
) -> str:
    """Return the SHA-256 of everything that both sides must agree on."""
    boundaries: list[list[dict[str, Any]]] = []
    for crossing in tensors:
        boundaries.append(
            [spec.to_json() | {"parameters": spec.parameters.hex()} for spec in crossing]
        )
    content = {
        "files": files,
        "segments": [segment.to_json() for segment in segments],
        "tensors": boundaries,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _boundary_name(tensors: Sequence[TensorSpec]) -> str:
    name = "+".join(spec.name for spec in tensors)
    return name if len(name) <= 200 else f"{name[:197]}..."


def _boundary_json(boundary: FrameSchema, paths: dict[str, str]) -> dict[str, Any]:
    """Return the manifest's entry on a boundary."""
    data = boundary.to_json()
    tensors: list[dict[str, Any]] = []
    for tensor in data["tensors"]:
        tensors.append({key: tensor[key] for key in ("name", "dtype", "shape")})
    return {
        "index": boundary.index,
        "name": boundary.name,
        "digest": data["digest"],
        "descriptor": paths,
        "tensors": tensors,
        "quantization": [tensor["quantization"] for tensor in data["tensors"]],
        "codec": [tensor["codec"] for tensor in data["tensors"]],
    }
