"""How a model's outputs are to be read, by what its last nodes do: detections, label maps, or rows of classes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from irsplit.codec_training.agreement.base import OutputHead, Outputs, array_of
from irsplit.codec_training.agreement.detections import Reader, Rows, SelectedBoxes, SeparateOutputs
from irsplit.codec_training.agreement.f1 import DetectionHead
from irsplit.codec_training.agreement.iou import LabelMap
from irsplit.codec_training.agreement.top1 import Top1
from irsplit.ir import (
    Dim,
    Graph,
    HeadRole,
    Node,
    Quantization,
    TensorType,
    Value,
    uses_with_captures,
    walk,
)

RoleOf = Callable[[Node], HeadRole]
"""What a dialect says of a node (`Dialect.head_role`)."""

_CHANNELS_OF_PICTURES = (1, 3, 4)


@dataclass(frozen=True)
class View:
    """A model as a measure sees it: `graphs` run one after the other, `outputs` are those to read.

    `sample` holds the outputs of one call: shapes and types that the graph does not tell. `layout` is NCHW or NHWC.
    """

    graphs: Sequence[Graph]
    outputs: tuple[str, ...]
    role_of: RoleOf
    layout: str
    sample: Outputs

    @cached_property
    def values(self) -> dict[str, Value]:
        """What nodes produce, and the inputs, by name; what only passes a boundary is taken from where it was made."""
        inputs = (value for graph in self.graphs for value in graph.inputs)
        made = (value for node in self.nodes for value in node.outputs if value is not None)
        return {value.name: value for value in (*inputs, *made)}

    @cached_property
    def nodes(self) -> list[Node]:
        return [
            node
            for graph in self.graphs
            for node in graph.nodes
            if not node.op.startswith("irsplit.")
        ]

    def origin(self, name: str, through: Sequence[HeadRole] = ("move",)) -> str:
        """The name of the value whose elements this one has, in another shape or type."""
        while name in self.values:
            producer = self.values[name].producer
            if (
                producer is None
                or self.role_of(producer) not in through
                or producer.inputs[0] is None
            ):
                break
            name = producer.inputs[0].name
        return name

    def output_of(self, value: Value | None, among: Iterable[str]) -> str | None:
        """The output that has the elements of the value."""
        if value is None:
            return None
        origin = self.origin(value.name)
        return next((name for name in among if self.origin(name) == origin), None)

    def type_of(self, name: str) -> TensorType | None:
        type = self.values[name].type if name in self.values else None
        return type if isinstance(type, TensorType) else None

    def array(self, name: str) -> Any:
        return array_of(self.sample.get(name))


def recognised(view: View) -> list[OutputHead]:
    """A head for every output: detections and label maps where the graph shows them, rows of classes for the rest."""
    heads: list[OutputHead] = [*detection_heads(view)]
    left = [name for name in view.outputs if not any(name in head.outputs for head in heads)]
    heads.extend(_label_map(view, name) or Top1(name) for name in left)
    return heads


# -- detections ----------------------------------------------------------------------------------------------------


def detection_heads(view: View, least: float = 0.0) -> list[DetectionHead]:
    """Outputs of the operators that end a detector."""
    readers: list[Reader] = []
    for node in view.nodes:
        role = _role_within(node, view.role_of)
        if role == "detections":
            reader = _of_detections(view, node)
        elif role in ("selection", "centered-selection"):
            reader = _of_selection(view, node, centered=role == "centered-selection")
        else:
            continue
        taken = {name for other in readers for name in other.outputs}
        if reader is not None and taken.isdisjoint(reader.outputs):
            readers.append(reader)
    return [DetectionHead(reader, least) for reader in readers]


def detections_in(view: View, names: Sequence[str]) -> Reader | None:
    """Outputs that hold detections, by their shapes: boxes [..., n, 4] with what has n elements beside them, or rows
    of 6 or 7. None where they hold none."""
    arrays = {name: view.array(name) for name in names}
    floats = {
        name: array for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim > 1
    }
    boxes = next((name for name, array in floats.items() if array.shape[-1] == 4), None)
    if boxes is None:
        rows = next((name for name, array in floats.items() if array.shape[-1] in (6, 7)), None)
        return None if rows is None else Rows(rows)

    count = arrays[boxes].size // 4
    columns = {
        name: array
        for name, array in arrays.items()
        if name != boxes and array.size == count and array.ndim
    }
    classes = next((name for name, array in columns.items() if array.dtype.kind in "iu"), None)
    scores = [name for name, array in columns.items() if array.dtype.kind == "f"]
    if (
        classes is None and len(scores) > 1
    ):  # classes as floats: names are all that tells them apart
        classes = next(
            (name for name in scores if "class" in name.lower() or "label" in name.lower()), None
        )
        scores = [name for name in scores if name != classes]
    images = int(np.prod(arrays[boxes].shape[:-2]))
    integers = {
        name: array
        for name, array in arrays.items()
        if array.dtype.kind in "iu" and name != classes
    }
    padded = arrays[boxes].ndim > 2
    counts = next(
        (name for name, array in integers.items() if padded and array.size == images), None
    )
    return SeparateOutputs(boxes, classes, scores[0] if scores else None, counts)


def _role_within(node: Node, role_of: RoleOf) -> str:
    """The role of a node, or of the suppression inside of its bodies and of what it calls."""
    role = role_of(node)
    if role or not (node.graphs or node.callees):
        return role
    inner = (role_of(each) for graph in (*node.graphs, *node.callees) for each in walk(graph))
    return next((role for role in inner if role in ("selection", "centered-selection")), "")


def _of_detections(view: View, node: Node) -> Reader | None:
    boxes, classes, scores, count = (
        view.output_of(value, view.outputs) for value in (*node.outputs, None, None, None, None)[:4]
    )
    return None if boxes is None else SeparateOutputs(boxes, classes, scores, count)


def _of_selection(view: View, node: Node, *, centered: bool) -> Reader | None:
    """What was selected: boxes that the graph gathered, or indices into boxes that may be outputs too."""
    behind = _behind(view, node)
    names = [name for name in view.outputs if name in behind]
    is_plain = not (node.graphs or node.callees)
    indices = view.output_of(node.outputs[0], names) if is_plain else None
    reader = detections_in(view, [name for name in names if name != indices])
    if isinstance(reader, SeparateOutputs):
        return replace(reader, centered=centered and _is_picked(view, reader.boxes, node.inputs[0]))
    if reader is not None:
        return reader
    if indices is None or view.array(indices).shape[-1:] != (3,):
        return None
    others = [name for name in view.outputs if name not in behind]
    boxes, scores = (view.output_of(value, others) for value in node.inputs[:2])
    return SelectedBoxes(indices, boxes, scores, centered)


def _is_picked(view: View, boxes: str, source: Value | None) -> bool:
    """Whether boxes are as the suppression read them, not made into corners on the way."""
    way: Sequence[HeadRole] = ("move", "pick")
    return source is not None and view.origin(boxes, way) == view.origin(source.name, way)


def _behind(view: View, node: Node) -> set[str]:
    """Names of what depends on the node's outputs."""
    names = {value.name for value in node.outputs if value is not None}
    for other in view.nodes:
        if any(value.name in names for value in uses_with_captures(other)):
            names.update(value.name for value in other.outputs if value is not None)
    return names


# -- label maps ----------------------------------------------------------------------------------------------------


def label_map(view: View, name: str) -> LabelMap | None:
    """How an output is read as a label map when the user says that it is one; None for what has no plane of pixels."""
    array = view.array(name)
    if array.ndim < 3 or array.dtype.kind not in "biuf":
        return None
    if array.dtype.kind in "biu" and _affine(view, name) is None:
        return LabelMap(name)
    axis = 1 if view.layout == "NCHW" else array.ndim - 1
    if array.ndim > 3 and array.shape[axis] > 1:
        return LabelMap(name, axis)
    return LabelMap(name, threshold=_half(view, name))


def _label_map(view: View, name: str) -> LabelMap | None:
    """How an output is read that is certainly a label map: classes a pixel, or as many numbers a pixel of the input
    as there are classes."""
    array = view.array(name)
    if array.ndim < 3:
        return None
    origin = view.values.get(view.origin(name))
    role = "" if origin is None or origin.producer is None else view.role_of(origin.producer)
    if array.dtype.kind in "biu" and _affine(view, name) is None:
        is_plane = array.ndim == 3 or 1 in (array.shape[1], array.shape[-1])
        is_wide = array.dtype.itemsize > 1
        return (
            LabelMap(name)
            if is_plane and (role == "largest" or is_wide) and max(array.shape) > 1
            else None
        )
    if (
        array.ndim != 4
        or array.dtype.kind not in "iuf"
        or not _has_pixels_of_an_input(view, array.shape)
    ):
        return None
    axis = 1 if view.layout == "NCHW" else 3
    if array.shape[axis] not in _CHANNELS_OF_PICTURES:
        return LabelMap(name, axis)
    is_mask = array.shape[axis] == 1 and role == "likelihood"
    return LabelMap(name, threshold=_half(view, name)) if is_mask else None


def _has_pixels_of_an_input(view: View, shape: Sequence[int]) -> bool:
    """Whether the planes of [N, C, H, W] or [N, H, W, C] are as large as those of a picture that goes in."""
    planes = slice(2, 4) if view.layout == "NCHW" else slice(1, 3)
    size = tuple(shape[planes])
    types = [view.type_of(value.name) for value in view.graphs[0].inputs]
    pictures = [
        type.shape
        for type in types
        if type is not None and type.shape is not None and len(type.shape) == 4
    ]
    return min(size) > 1 and any(_may_be(picture[planes], size) for picture in pictures)


def _may_be(dims: Sequence[Dim], size: Sequence[int]) -> bool:
    return all(not isinstance(dim, int) or dim == own for dim, own in zip(dims, size, strict=True))


def _affine(view: View, name: str) -> Quantization | None:
    type = view.type_of(name)
    return None if type is None else type.quantization


def _half(view: View, name: str) -> float:
    """What stands for a likelihood of 0.5."""
    affine = _affine(view, name)
    return 0.5 if affine is None else 0.5 / affine.scale[0] + affine.zero_point[0]
