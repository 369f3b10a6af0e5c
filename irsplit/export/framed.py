"""Segments of an ONNX bundle as models that begin and end with frames, for any ONNX Runtime host.

The operators of `runtime/c/ort` stand where the runtime decodes and encodes frames. Nothing else
of a segment changes. Its weights are copied by the dialect's writer, which does not look at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from irsplit.base import dtypes
from irsplit.base.errors import BundleError
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.registry import dialect
from irsplit.ir import Attribute, Graph, Node, TensorType, Value, walk
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.working_memory import RunLimits
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.run.ort_operators import CODECS
from irsplit.runtime.run.state import StateInfo
from irsplit.runtime.serving.protocol.messages import FRAME

_NEXT_FRAME = "next_frame"
"""Name of the frame that a model returns which takes a frame itself."""


@dataclass(frozen=True, slots=True)
class FramedModel:
    """One segment as a model of its own.

    Attributes:
        file: Its file.
        placement: Where it runs.
        frame_input: Name of the input that is a frame; None if there is none.
        frame_output: Name of the output that is a frame; None if there is none.
        state: Outputs that the host feeds to inputs of the next call, beginning with zeros.
    """

    file: str
    placement: str
    frame_input: str | None
    frame_output: str | None
    state: tuple[StateInfo, ...]

    def to_json(self) -> dict[str, Any]:
        """The entry of this model in models.json."""
        state = [
            info.to_json() | {"dtype": str(dtypes.BY_NAME[info.dtype].storage)}
            for info in self.state
        ]
        return {
            "file": self.file,
            "place": self.placement,
            "frame_input": self.frame_input,
            "frame_output": self.frame_output,
            "state": state,
        }


def write_framed(manifest: Manifest, folder: Path) -> list[FramedModel]:
    """Write every segment that is here as a model with frames.

    Args:
        manifest: An ONNX bundle.
        folder: Where the models go.

    Returns:
        The models, in the order in which they run.

    Raises:
        BundleError: A segment is of another format, or a codec is unknown to the operators.
    """
    for segment in manifest.segments:
        if segment.format != "onnx":
            raise BundleError(
                f"{manifest.store.root}: its segments are {segment.format} files, and ONNX Runtime "
                "runs ONNX alone; compile the ONNX model, or export to ray-serve, triton or kserve"
            )

    for schema in manifest.boundaries:
        _check_codecs(manifest, schema)

    models: list[FramedModel] = []
    for index in range(len(manifest.segments)):
        file = manifest.file(index)
        if file is not None:
            models.append(_write(manifest, index, manifest.path(file), folder))

    return models


def _check_codecs(manifest: Manifest, schema: FrameSchema) -> None:
    for spec in schema.tensors:
        if spec.codec not in CODECS:
            raise BundleError(
                f"{manifest.store.root}: tensor '{spec.name}' is coded by {spec.codec}, which the "
                "operators have not built in; compile with the codec static-rans or raw"
            )


def _write(manifest: Manifest, index: int, source: Path, folder: Path) -> FramedModel:
    segment, onnx = manifest.segments[index], dialect("onnx")
    model = onnx.read(source)
    input, output = _Framing(manifest, index, model.entry).apply()

    file = f"{segment.name}.onnx"
    external_over = 0 if _has_data_files(model.entry, source) else None
    onnx.write(model, model.entry, folder / file, WriteOptions(external_over=external_over))
    return FramedModel(file, segment.placement, input, output, segment.state)


def _has_data_files(graph: Graph, source: Path) -> bool:
    """Whether weights lie beside the model rather than in it."""
    paths = {value.constant.buffer.path for value in graph.constants if value.constant is not None}
    return bool(paths - {source, None})


class _Framing:
    """Rewrites the graph of one segment so that it takes and returns frames.

    A frame that arrives becomes an input, with a node that decodes it in front of all others. A
    frame to send becomes the first output, with a node at the end that encodes it. Values go by
    their names, as between the segments of a session.
    """

    def __init__(self, manifest: Manifest, index: int, graph: Graph) -> None:
        self.manifest = manifest
        self.index = index
        self.graph = graph
        self._values = {value.name: value for value in (*graph.inputs, *graph.outputs)}
        self._names = _names(graph)
        for schema in manifest.boundaries:
            self._names.update(spec.name for spec in schema.tensors)

    def apply(self) -> tuple[str | None, str | None]:
        """Rewrite the graph; the names of the input and the output that are frames."""
        boundaries, segment = self.manifest.boundaries, self.manifest.segments[self.index]
        received: Value | None = None
        sent: Value | None = None
        if self.index > 0:
            received = self._receive(boundaries[self.index - 1])
        else:
            for info in self.manifest.inputs:
                self._define(info.name, info.dtype, info.shape)

        outputs = [self._values[name] for name in segment.results]
        self._forward(outputs)
        if self.index < len(boundaries):
            sent = self._send(boundaries[self.index], _NEXT_FRAME if received else FRAME)
            outputs.insert(0, sent)

        outputs += [self._values[info.output] for info in segment.state]
        self.graph.outputs = list(dict.fromkeys(outputs))

        return (
            None if received is None else received.name,
            None if sent is None else sent.name,
        )

    def _define(self, name: str, dtype: str, shape: Sequence[int | None] | None) -> None:
        """Make a value by this name, unless the graph has one."""
        self._values.setdefault(name, Value(name, _type(dtype, shape)))

    def _receive(self, schema: FrameSchema) -> Value:
        """Put a node that decodes a frame in front of all others."""
        frame = self._frame(FRAME)
        for spec in schema.tensors:
            self._define(spec.name, spec.dtype, spec.shape)
        tensors = self._tensors(schema)
        remaining = [value for value in self.graph.inputs if value not in tensors]
        self.graph.inputs = [frame, *remaining]
        node = _node("DecodeFrame", [frame], tensors, schema, max_bytes=_most_bytes(schema))
        self.graph.nodes.insert(0, node)
        return frame

    def _send(self, schema: FrameSchema, name: str) -> Value:
        """Put a node that encodes a frame behind all others."""
        frame = self._frame(name)
        tensors = self._tensors(schema)
        self._forward(tensors)
        self.graph.nodes.append(_node("EncodeFrame", tensors, [frame], schema))
        return frame

    def _forward(self, values: list[Value]) -> None:
        """Make inputs of values that the segment hands on, though none of its nodes reads them."""
        defined = set(self.graph.values())
        self.graph.inputs += [value for value in values if value not in defined]

    def _tensors(self, schema: FrameSchema) -> list[Value]:
        return [self._values[spec.name] for spec in schema.tensors]

    def _frame(self, name: str) -> Value:
        """A new value for a frame, by this name or a longer one that is free."""
        while name in self._names:
            name += "_"
        return Value(name, _type("u8", (None,)))


def _names(graph: Graph) -> set[str]:
    """Every name in the graph and in its bodies, which may not hide one another's."""
    names: set[str] = set()
    graphs = [graph]
    for node in walk(graph):
        graphs += node.graphs
    for body in graphs:
        names.update(value.name for value in body.values())
        names.update(value.name for value in body.outputs)

    return names


def _type(dtype: str, shape: Sequence[int | None] | None) -> TensorType:
    return TensorType(dtypes.BY_NAME[dtype], None if shape is None else tuple(shape))


def _node(
    operator: str, inputs: list[Value], outputs: list[Value], schema: FrameSchema, **more: int
) -> Node:
    attributes: dict[str, Attribute] = {"descriptor": schema.to_bytes(), **more}
    return Node(f"irsplit.{operator}", inputs, outputs, name=operator, attributes=attributes)


def _most_bytes(schema: FrameSchema) -> int:
    """What a frame may decode to, in bytes.

    If nothing but the rows of its tensors is open, that is as many rows as a server takes,
    otherwise a server's limit of decoded bytes.
    """
    limits, total = RunLimits(), 0
    for spec in schema.tensors:
        size = _bytes_of(spec, limits.rows)
        if size is None:
            return limits.decoded_bytes

        total += size

    return total if schema.symbol_count else max(total, limits.decoded_bytes)


def _bytes_of(spec: TensorSpec, most_rows: int) -> int | None:
    """Largest size of a tensor; None if more than its rows is open."""
    open_rows = spec.shape[:1] == (None,) and len(spec.shape) > 1
    dims = spec.shape[1:] if open_rows else spec.shape
    if None in dims:
        return None

    rows = most_rows if open_rows else 1
    return rows * prod(dim or 1 for dim in dims) * spec.storage.itemsize
