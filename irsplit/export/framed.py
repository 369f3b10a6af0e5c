"""Segments of an ONNX bundle as models that begin and end with frames, for any host of ONNX Runtime.

The operators of `runtime/c/ort` stand where the runtime unpacks and packs; nothing else of a segment changes, and its
weights are copied by the dialect's writer, which does not look at them.
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
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.ort_operators import CODECS
from irsplit.runtime.run.state import StateInfo
from irsplit.runtime.serving.protocol.messages import FRAME

_NEXT_FRAME = "next_frame"
"""What a model gives that is itself fed a frame."""


@dataclass(frozen=True, slots=True)
class FramedModel:
    """One segment: its file, and the names of the input and the output that are frames, where it has them.

    Of `state`, the host feeds what the output gave to the input of the next call, at first zeros.
    """

    file: str
    placement: str
    frame_input: str | None
    frame_output: str | None
    state: tuple[StateInfo, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "place": self.placement,
            "frame_input": self.frame_input,
            "frame_output": self.frame_output,
            "state": [
                info.to_json() | {"dtype": str(dtypes.BY_NAME[info.dtype].storage)}
                for info in self.state
            ],
        }


def write_framed(manifest: Manifest, folder: Path) -> list[FramedModel]:
    """Write every segment that is here into `folder`, in order. Raises BundleError for what the operators cannot do."""
    for segment in manifest.segments:
        if segment.format != "onnx":
            raise BundleError(
                f"{manifest.store.root}: its segments are {segment.format} files, and ONNX Runtime runs ONNX alone; "
                "compile the ONNX model, or export to ray-serve, triton or kserve"
            )
    for boundary in manifest.boundaries:
        _check_codecs(manifest, boundary)
    here = [
        (index, file)
        for index in range(len(manifest.segments))
        if (file := manifest.file(index)) is not None
    ]
    return [_write(manifest, index, manifest.path(file), folder) for index, file in here]


def _check_codecs(manifest: Manifest, boundary: FrameSchema) -> None:
    for spec in boundary.tensors:
        if spec.codec not in CODECS:
            raise BundleError(
                f"{manifest.store.root}: tensor '{spec.name}' is coded by {spec.codec}, which the operators have not "
                "built in; compile with --codec static-rans or --codec raw"
            )


def _write(manifest: Manifest, index: int, source: Path, folder: Path) -> FramedModel:
    segment, onnx = manifest.segments[index], dialect("onnx")
    model = onnx.read(source)
    frames = _Frames(manifest, index, model.entry)
    file, beside = f"{segment.name}.onnx", _has_data_files(model.entry, source)
    onnx.write(model, model.entry, folder / file, WriteOptions(external_over=0 if beside else None))
    return FramedModel(file, segment.placement, frames.input, frames.output, segment.state)


def _has_data_files(graph: Graph, source: Path) -> bool:
    """Whether weights lie beside the model rather than in it."""
    paths = {value.constant.buffer.path for value in graph.constants if value.constant is not None}
    return bool(paths - {source, None})


class _Frames:
    """Gives a segment's graph its frames. Values go by their names, as between the segments of a session."""

    def __init__(self, manifest: Manifest, index: int, graph: Graph) -> None:
        self.graph = graph
        self.input: str | None = None
        self.output: str | None = None
        self._values = {value.name: value for value in (*graph.inputs, *graph.outputs)}
        self._taken = _names(graph) | {
            spec.name for boundary in manifest.boundaries for spec in boundary.tensors
        }
        segment = manifest.segments[index]
        if index == 0:
            for info in manifest.inputs:
                self._values.setdefault(info.name, Value(info.name, _type(info.dtype, info.shape)))
        else:
            self._receive(manifest.boundaries[index - 1])
        results = [self._values[name] for name in segment.results]
        self._feed(results)
        if index < len(manifest.boundaries):
            results.insert(0, self._send(manifest.boundaries[index]))
        graph.outputs = list(
            dict.fromkeys([*results, *(self._values[info.output] for info in segment.state)])
        )

    def _receive(self, boundary: FrameSchema) -> None:
        frame = self._frame(FRAME)
        self.input = frame.name
        for spec in boundary.tensors:
            self._values.setdefault(spec.name, Value(spec.name, _type(spec.dtype, spec.shape)))
        tensors = self._tensors(boundary)
        self.graph.inputs = [frame, *(value for value in self.graph.inputs if value not in tensors)]
        self.graph.nodes.insert(
            0, _node("DecodeFrame", [frame], tensors, boundary, max_bytes=_most_bytes(boundary))
        )

    def _send(self, boundary: FrameSchema) -> Value:
        frame = self._frame(FRAME if self.input is None else _NEXT_FRAME)
        self.output = frame.name
        tensors = self._tensors(boundary)
        self._feed(tensors)
        self.graph.nodes.append(_node("EncodeFrame", tensors, [frame], boundary))
        return frame

    def _feed(self, values: list[Value]) -> None:
        """Inputs of the model that its first segment hands on as they are, without a node that reads them."""
        defined = set(self.graph.values())
        self.graph.inputs += [value for value in values if value not in defined]

    def _tensors(self, boundary: FrameSchema) -> list[Value]:
        return [self._values[spec.name] for spec in boundary.tensors]

    def _frame(self, wanted: str) -> Value:
        name = wanted
        while name in self._taken:
            name += "_"
        return Value(name, _type("u8", (None,)))


def _names(graph: Graph) -> set[str]:
    """Every name in the graph and in its bodies, which may not hide one another's."""
    graphs = [graph, *(body for node in walk(graph) for body in node.graphs)]
    return {value.name for each in graphs for value in (*each.values(), *each.outputs)}


def _type(dtype: str, shape: Sequence[int | None] | None) -> TensorType:
    return TensorType(dtypes.BY_NAME[dtype], None if shape is None else tuple(shape))


def _node(
    operator: str, inputs: list[Value], outputs: list[Value], boundary: FrameSchema, **more: int
) -> Node:
    attributes: dict[str, Attribute] = {"descriptor": boundary.to_bytes(), **more}
    return Node(f"irsplit.{operator}", inputs, outputs, name=operator, attributes=attributes)


def _most_bytes(boundary: FrameSchema) -> int:
    """What a frame may decode to: as many rows as a server takes where only rows are open, else its decoded bytes."""
    limits, total = RunLimits(), 0
    for spec in boundary.tensors:
        rows = limits.rows if spec.shape[:1] == (None,) and len(spec.shape) > 1 else 1
        if None in spec.shape[rows > 1 :]:
            return limits.decoded_bytes
        total += rows * prod(dim or 1 for dim in spec.shape) * spec.storage.itemsize
    return total if boundary.symbol_count else max(total, limits.decoded_bytes)
