"""Record what a bundle was made of: tools, source files, and the contents of each segment.

The record goes into the manifest. It follows from the input, the pipeline and the installed
versions alone, so that a bundle that is made twice is the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from irsplit.base.entry_points import entry_points
from irsplit.base.errors import VERSION
from irsplit.dialects.registry import ENTRY_POINTS as DIALECTS
from irsplit.ir import Constant, Graph, Model, is_of_the_runtime
from irsplit.passes.pipeline import ENTRY_POINTS as PASSES
from irsplit.passes.pipeline import Pipeline
from irsplit.passes.send_attributes import sends, specs
from irsplit.runtime.frame.codec_plugins import ENTRY_POINTS as CODECS
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions

_ENGINES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
_LIBRARIES = ("numpy", "zstandard", "onnx")


def provenance(model: Model, files: Mapping[Path, str], pipeline: Pipeline) -> dict[str, Any]:
    """Return the manifest's entry on what a bundle was made of.

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
    """Return a path relative to a folder; a link keeps its own name."""
    return (path.parent.resolve() / path.name).relative_to(folder).as_posix()


def engine(dialect: str, options: EngineOptions = DEFAULT_OPTIONS) -> str:
    """Name the engine that runs files of a dialect.

    Args:
        dialect: The dialect of the files.
        options: How the engine runs.

    Returns:
        The engine's name and version and its accelerators, joined by commas.
    """
    name = _engine(dialect)
    accelerators = map(str, options.accelerators(dialect))
    return ", ".join((f"{name} {_version(name)}".strip(), *accelerators))


def _engine(dialect: str) -> str:
    """Return the engine's distribution, empty for an unknown dialect."""
    name = _ENGINES.get(dialect, "")
    if not name or _version(name):
        return name

    # Builds of onnxruntime have other names, such as onnxruntime-gpu.
    return next(iter(packages_distributions().get(name.replace("-", "_"), ())), name)


def source_files(model: Model, source: Path) -> list[Path]:
    """List the files that a model consists of.

    Args:
        model: The model as read.
        source: Its file.

    Returns:
        The model file, then the data files beside it that hold weights, sorted.
    """
    buffers = {constant.buffer for constant in _constants(model.graphs)}
    paths = {buffer.path for buffer in buffers if buffer.path is not None}
    resolved = source.resolve()
    return [source, *sorted(path for path in paths if path.resolve() != resolved)]


def _tools(model: Model, pipeline: Pipeline) -> dict[str, str]:
    """Return the versions of irsplit, engine, libraries and plugins that took part, by name."""
    names = {*_LIBRARIES, _engine(model.dialect)}

    # Passes, dialect and codecs may come from packages of their own.
    used = {(PASSES, pass_.name) for pass_ in pipeline.passes} | {(DIALECTS, model.dialect)}
    for _, send in sends(model):
        used.update((CODECS, spec.codec) for spec in specs(send))
    for group in (PASSES, DIALECTS, CODECS):
        for point in entry_points(group):
            if point.dist is not None and (point.group, point.name) in used:
                names.add(point.dist.name)

    versions = {name: _version(name) for name in names if name not in ("", "irsplit")}
    return {"irsplit": VERSION} | {name: text for name, text in sorted(versions.items()) if text}


def _version(distribution: str) -> str:
    """Return the version of a distribution, empty where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _summary(graph: Graph) -> dict[str, Any]:
    """Count the operators by type and the weights of a segment.

    Graphs that the segment owns or calls are counted too, and shared weights once.
    """
    graphs = _reached([graph])
    operators: Counter[str] = Counter()
    for reached in graphs:
        for node in reached.nodes:
            if not is_of_the_runtime(node):
                operators[node.op.partition(".")[2]] += 1
    weights = {(c.buffer, c.offset): c.length for c in _constants(graphs)}
    return {
        "operators": dict(sorted(operators.items())),
        "weights": {"tensors": len(weights), "bytes": sum(weights.values())},
    }


def _reached(graphs: Iterable[Graph]) -> list[Graph]:
    """Return the graphs with all that their nodes own or call, however deep, each once."""
    reached: dict[Graph, None] = {}
    pending = list(graphs)
    while pending:
        graph = pending.pop()
        if graph in reached:
            continue
        reached[graph] = None
        for node in graph.nodes:
            pending.extend((*node.graphs, *node.callees))
    return list(reached)


def _constants(graphs: Iterable[Graph]) -> list[Constant]:
    """Return the constants with bytes in the graphs and in all that these own or call."""
    constants: list[Constant] = []
    for graph in _reached(graphs):
        for value in (*graph.inputs, *graph.constants):
            if value.constant is not None and value.constant.length:
                constants.append(value.constant)
    return constants
