"""What a bundle was made of: tools, source files, and the contents of each segment.

It goes into the manifest. Everything follows from the input, the pipeline and the installed
versions, so that a bundle that is made twice is the same.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from irsplit.base.entry_points import entry_points
from irsplit.base.errors import VERSION
from irsplit.dialects.registry import ENTRY_POINTS as DIALECTS
from irsplit.ir import Constant, Graph, Model, Node, Value, is_of_the_runtime
from irsplit.passes.pipeline import ENTRY_POINTS as PASSES
from irsplit.passes.pipeline import Pipeline
from irsplit.passes.send_attributes import sends, specs
from irsplit.runtime.frame.codec_plugins import ENTRY_POINTS as CODECS
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions

_ENGINES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
_LIBRARIES = ("numpy", "zstandard", "onnx")


def provenance(model: Model, files: Mapping[Path, str], pipeline: Pipeline) -> dict[str, Any]:
    """The manifest's entry on what a bundle was made of.

    Args:
        model: The partitioned model.
        files: The model file and its data files, which lie in its folder or below, each with its
            digest.
        pipeline: The passes that ran.

    Returns:
        `tools` with versions, `source_files`, and by name the contents of the `segments`.
    """
    folder = next(iter(files)).parent.resolve()
    return {
        "tools": _tools(model, pipeline),
        "source_files": [
            {"file": _name(path, folder), "bytes": path.stat().st_size, "sha256": digest}
            for path, digest in files.items()
        ],
        "segments": {graph.name: _summary(graph) for graph in model.segments},
    }


def _name(path: Path, folder: Path) -> str:
    return (path.parent.resolve() / path.name).relative_to(folder).as_posix()


def engine(dialect: str, options: EngineOptions = DEFAULT_OPTIONS) -> str:
    """Name and version of the engine that runs files of a dialect, and its accelerators."""
    name = _engine(dialect)
    return ", ".join((f"{name} {_version(name)}".strip(), *map(str, options.accelerators(dialect))))


def _engine(dialect: str) -> str:
    """The engine's distribution.

    onnxruntime has builds of other names, such as onnxruntime-gpu.
    """
    name = _ENGINES.get(dialect, "")
    if not name or _version(name):
        return name
    return next(iter(packages_distributions().get(name.replace("-", "_"), ())), name)


def source_files(model: Model, source: Path) -> list[Path]:
    """The model file, and the data files beside it that hold weights."""
    beside = {
        buffer.path
        for buffer in {c.buffer for c in _constants(model.graphs)}
        if buffer.path is not None
    }
    known = source.resolve()
    return [source, *sorted(path for path in beside if path.resolve() != known)]


def _tools(model: Model, pipeline: Pipeline) -> dict[str, str]:
    """Versions by distribution: ours, engine, libraries, and packages with a part in the build."""
    names = {*_LIBRARIES, _engine(model.dialect)}

    # Passes, dialect and codecs may come from packages of their own.
    used = {(PASSES, pass_.name) for pass_ in pipeline.passes} | {(DIALECTS, model.dialect)}
    used |= {(CODECS, spec.codec) for _, send in sends(model) for spec in specs(send)}
    points = [point for group in (PASSES, DIALECTS, CODECS) for point in entry_points(group)]
    names.update(
        point.dist.name
        for point in points
        if point.dist is not None and (point.group, point.name) in used
    )
    versions = {name: _version(name) for name in names if name not in ("", "irsplit")}
    return {"irsplit": VERSION} | {name: text for name, text in sorted(versions.items()) if text}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _summary(graph: Graph) -> dict[str, Any]:
    """Operators by type and weights of a segment, with the graphs that it owns or calls."""
    graphs = _reached([graph])
    nodes = [node for each in graphs for node in each.nodes if not is_of_the_runtime(node)]
    weights = {(c.buffer, c.offset): c.length for c in _constants(graphs)}
    operators = Counter(node.op.partition(".")[2] for node in nodes)
    return {
        "operators": dict(sorted(operators.items())),
        "weights": {"tensors": len(weights), "bytes": sum(weights.values())},
    }


def _reached(graphs: Iterable[Graph]) -> list[Graph]:
    """The graphs, and those that their nodes own or call, however deep."""
    found: dict[Graph, None] = {}
    pending = list(graphs)
    while pending:
        current = pending.pop()
        if current not in found:
            found[current] = None
            pending.extend(inner for node in current.nodes for inner in _inner(node))
    return list(found)


def _inner(node: Node) -> Iterator[Graph]:
    yield from node.graphs
    yield from node.callees


def _constants(graphs: Iterable[Graph]) -> list[Constant]:
    values: Iterator[Value] = (
        value for graph in _reached(graphs) for value in (*graph.inputs, *graph.constants)
    )
    return [
        value.constant for value in values if value.constant is not None and value.constant.length
    ]
