"""Write a bundle: segment files for both sides, boundary descriptors, manifest; all at once or not at all."""

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
    """Where a bundle comes from: what its manifest says of the source and of how it was made."""

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
    """Write the partitioned `model`; `source` is the entry graph before partition, for the order of its outputs.

    `origin` is asked for last, when everything else is written: until then the source may be read for its `digests`.
    The first `carried` segments are on the device too, wherever they run. Files `beside` the manifest, by name, belong
    to no side: no digest has them, and patches leave them out.

    The folder appears whole, replacing an older bundle there; on failure nothing of it is left and an older one
    stays. The same model, pipeline and version give the same bytes. Raises BundleError when the folder holds
    something else, or cannot be written.
    """
    with new_folder(folder) as build:
        segments = _write_segments(model, dialect, build, options, carried)
        files = _digests(build, digests)
        tensors = [tuple(specs(send)) for _, send in sends(model)]
        digest = _content_digest(files, segments, tensors)
        boundaries = [
            FrameSchema(index, _boundary_name(crossing), crossing, bytes.fromhex(digest))
            for index, crossing in enumerate(tensors)
        ]
        described: list[dict[str, Any]] = []
        places = sorted(
            {place for segment in segments for place in (segment.placement, *segment.copies)}
        )
        for boundary in boundaries:
            paths = {place: f"{place}/boundary{boundary.index}.irsd" for place in places}
            for path in paths.values():
                data = boundary.to_bytes()
                (build / path).write_bytes(data)
                files[path] = hashlib.sha256(data).hexdigest()
            described.append(_boundary_json(boundary, paths))
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
            "boundaries": described,
            **_symbols(source, model),
            **made.details,
            "files": dict(sorted(files.items())),
        }
        for name, data in (beside or {}).items():
            (build / name).write_bytes(data)
        (build / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    return Manifest.load(folder)


def _symbols(source: Graph, model: Model) -> dict[str, dict[str, str]]:
    """Symbols of the open dimensions of inputs, outputs and what crosses, by "<tensor>.<axis>"; nothing without any."""
    crossing = [value for _, send in sends(model) for value in send.inputs if value is not None]
    tensors = (*required_inputs(source), *source.outputs, *crossing)
    symbols = symbols_of(dict.fromkeys(tensors))
    return {"symbols": symbols} if symbols else {}


def _write_segments(
    model: Model, dialect: Dialect, build: Path, options: WriteOptions, carried: int
) -> list[SegmentInfo]:
    """Write the files of all segments, each once a place that has it: the device has the first `carried` ones too."""
    written: list[tuple[Graph, Path]] = []
    segments: list[SegmentInfo] = []
    for index, graph in enumerate(model.segments):
        lowered = engine_graph(graph)
        paths = _segment_paths(graph, dialect.extensions[0], ("device",) if index < carried else ())
        written += [(lowered, build / path) for path in paths.values()]
        segments.append(_segment_info(model, graph, paths))
    for _, path in written:
        path.parent.mkdir(exist_ok=True)
    write_graphs(dialect, model, written, options)
    return segments


def _segment_paths(graph: Graph, extension: str, also: Sequence[str]) -> dict[str, str]:
    """Where in the bundle the segment lies, by place: its own first, then the other ones in `also`."""
    place = graph.placement or "server"
    stem = "model" if graph.name == place else graph.name
    others = {other: f"{other}/{graph.name}{extension}" for other in also if other != place}
    return {place: f"{place}/{stem}{extension}", **others}


def _segment_info(model: Model, graph: Graph, paths: Mapping[str, str]) -> SegmentInfo:
    (place, file), *copies = paths.items()
    inputs, outputs, kept = edges(graph)
    return SegmentInfo(
        graph.name,
        place,
        file,
        model.dialect,
        inputs,
        outputs,
        tuple(value.name for value in graph.outputs),
        any(node.states for node in graph.nodes),
        dict(copies),
        kept,
    )


def _digests(build: Path, digests: Digests) -> dict[str, str]:
    """SHA-256 of every file, by its path in the bundle."""
    paths = [path for path in sorted(build.rglob("*")) if path.is_file()]
    return dict(zip([_relative(path, build) for path in paths], digests.of(paths), strict=True))


def _content_digest(
    files: dict[str, str], segments: Sequence[SegmentInfo], tensors: Sequence[Sequence[TensorSpec]]
) -> str:
    """SHA-256 of everything that two sides must agree on; boundary digests derive from it."""
    content = {
        "files": files,
        "segments": [segment.to_json() for segment in segments],
        "tensors": [
            [spec.to_json() | {"parameters": spec.parameters.hex()} for spec in each]
            for each in tensors
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _boundary_name(tensors: Sequence[TensorSpec]) -> str:
    name = "+".join(spec.name for spec in tensors)
    return name if len(name) <= 200 else f"{name[:197]}..."


def _boundary_json(boundary: FrameSchema, paths: dict[str, str]) -> dict[str, Any]:
    data = boundary.to_json()
    return {
        "index": boundary.index,
        "name": boundary.name,
        "digest": data["digest"],
        "descriptor": paths,
        "tensors": [
            {key: tensor[key] for key in ("name", "dtype", "shape")} for tensor in data["tensors"]
        ],
        "quantization": [tensor["quantization"] for tensor in data["tensors"]],
        "codec": [tensor["codec"] for tensor in data["tensors"]],
    }


def edges(segment: Graph) -> tuple[tuple[str, ...], tuple[str, ...], tuple[StateInfo, ...]]:
    """Inputs and outputs of a segment's file by name, without the state, which comes behind both; and the state."""
    pairs, lowered = states(segment), engine_graph(segment)
    loaded, stored = {before for before, _ in pairs}, {after for _, after in pairs}
    inputs = tuple(
        value.name for value in lowered.inputs if value.constant is None and value not in loaded
    )
    passed = {value for node in segment.nodes if node.op == "irsplit.send" for value in node.inputs}
    outputs = [value.name for value in lowered.outputs if value not in stored or value in passed]
    return inputs, tuple(outputs), tuple(_state_info(before, after) for before, after in pairs)


def _state_info(before: Value, after: Value) -> StateInfo:
    """A state as manifests carry it; the node that loads it says in which shape it begins."""
    assert isinstance(before.type, TensorType)
    assert before.producer is not None
    shape: Any = before.producer.attributes["shape"]
    return StateInfo(before.name, after.name, before.type.dtype.name, tuple(shape))


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
