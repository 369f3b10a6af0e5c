"""Recognise how a model's outputs are to be read, by what its last nodes do.

* Detections: a node that ends a detector (TFLite_Detection_PostProcess) has outputs for boxes,
  classes, scores and their count. Behind a suppression (NonMaxSuppression), the outputs that hold
  detections are told by their shapes; if there are none, the selected indices themselves are.
* Label maps: an output has one class for each pixel, or one number for each pixel and class in a
  plane that is as large as an image input.
* All other outputs are rows of classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
"""What a dialect knows of a node (`Dialect.head_role`)."""

_CHANNELS_OF_IMAGES = (1, 3, 4)
_SELECTIONS = ("selection", "centered-selection")


@dataclass(frozen=True)
class View:
    """A model as a measure of agreement sees it.

    Attributes:
        graphs: Graphs that run one after the other.
        outputs: Names of the outputs to read.
        role_of: What the dialect knows of a node.
        layout: "NCHW" or "NHWC".
        sample: The outputs of one call, for shapes and types that the graph does not tell.
    """

    graphs: Sequence[Graph]
    outputs: tuple[str, ...]
    role_of: RoleOf
    layout: str
    sample: Outputs

    @cached_property
    def values(self) -> dict[str, Value]:
        """Inputs and results of nodes, by name.

        A value that crosses a boundary is taken from the graph that produced it.
        """
        by_name: dict[str, Value] = {}
        for graph in self.graphs:
            by_name.update((value.name, value) for value in graph.inputs)
        for node in self.nodes:
            by_name.update((value.name, value) for value in node.outputs if value is not None)
        return by_name

    @cached_property
    def nodes(self) -> list[Node]:
        """The nodes of all graphs, without those that send and receive."""
        nodes: list[Node] = []
        for graph in self.graphs:
            nodes += [node for node in graph.nodes if not node.op.startswith("irsplit.")]
        return nodes

    def origin(self, name: str, through: Sequence[HeadRole] = ("move",)) -> str:
        """Follow a value back through nodes that only give its elements another shape or type.

        Args:
            name: Name of the value.
            through: Roles of the nodes to follow.

        Returns:
            Name of the value that has the elements first.
        """
        while name in self.values:
            producer = self.values[name].producer
            if producer is None or self.role_of(producer) not in through:
                break
            source = producer.inputs[0]
            if source is None:
                break
            name = source.name
        return name

    def output_of(self, value: Value | None, among: Iterable[str]) -> str | None:
        """Return the output that has the elements of a value.

        Args:
            value: The value, None for one that is absent.
            among: Names of the outputs.
        """
        if value is None:
            return None
        origin = self.origin(value.name)
        return next((name for name in among if self.origin(name) == origin), None)

    def type_of(self, name: str) -> TensorType | None:
        """Return the type of a value, None if it is not known or is not that of a tensor."""
        type = self.values[name].type if name in self.values else None
        return type if isinstance(type, TensorType) else None

    def array(self, name: str) -> Any:
        """Return an output of the sample as an array."""
        return array_of(self.sample.get(name))


def recognised(view: View) -> list[OutputHead]:
    """Return a head for every output.

    Args:
        view: The model and the outputs of one call.

    Returns:
        Detections and label maps that the graph shows; the other outputs are rows of classes.
    """
    heads: list[OutputHead] = [*detection_heads(view)]
    read: set[str] = set()
    for head in heads:
        read.update(head.outputs)
    for name in view.outputs:
        if name not in read:
            heads.append(_certain_label_map(view, name) or Top1(name))
    return heads


# Detections


def detection_heads(view: View, least: float = 0.0) -> list[DetectionHead]:
    """Return the heads of detectors that the graph shows.

    Args:
        view: The model and the outputs of one call.
        least: The least score of detections that need a partner.
    """
    readers: list[Reader] = []
    taken: set[str] = set()
    for node in view.nodes:
        role = _role_within(node, view.role_of)
        if role == "detections":
            reader = _detections_reader(view, node)
        elif role in _SELECTIONS:
            reader = _selection_reader(view, node, centered=role == "centered-selection")
        else:
            continue

        # An output belongs to the first node that it can be read by.
        if reader is not None and taken.isdisjoint(reader.outputs):
            readers.append(reader)
            taken.update(reader.outputs)
    return [DetectionHead(reader, least) for reader in readers]


def detections_in(view: View, names: Sequence[str]) -> Reader | None:
    """Find detections among outputs by their shapes.

    Either there are boxes [..., n, 4] with other outputs of n elements beside them, or one output
    has rows of 6 or 7.

    Args:
        view: The model and the outputs of one call.
        names: Names of the outputs.

    Returns:
        A reader of the detections, None if there are none.
    """
    arrays = {name: view.array(name) for name in names}
    floats = {
        name: array for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim > 1
    }
    boxes = _first(floats, lambda array: array.shape[-1] == 4)
    if boxes is None:
        rows = _first(floats, lambda array: array.shape[-1] in (6, 7))
        return None if rows is None else Rows(rows)

    box_array = arrays.pop(boxes)
    classes, scores = _classes_and_scores(arrays, box_array.size // 4)
    counts: str | None = None
    if box_array.ndim > 2:
        # The boxes of each image are padded, so their count may be an output too.
        images = int(np.prod(box_array.shape[:-2]))
        arrays.pop(classes or "", None)
        counts = _first(arrays, lambda array: array.dtype.kind in "iu" and array.size == images)
    return SeparateOutputs(boxes, classes, scores, counts)


def _first(
    arrays: Mapping[str, NDArray[Any]], condition: Callable[[NDArray[Any]], bool]
) -> str | None:
    """The name of the first array that meets a condition."""
    return next((name for name, array in arrays.items() if condition(array)), None)


def _classes_and_scores(
    arrays: Mapping[str, NDArray[Any]], count: int
) -> tuple[str | None, str | None]:
    """The outputs that have the class and the score of each of `count` boxes, None without one."""
    columns = {name: array for name, array in arrays.items() if array.size == count and array.ndim}
    classes = _first(columns, lambda array: array.dtype.kind in "iu")
    scores = [name for name, array in columns.items() if array.dtype.kind == "f"]

    # If classes are floats as well, only their name tells them from scores.
    if classes is None and len(scores) > 1:
        for name in scores:
            if "class" in name.lower() or "label" in name.lower():
                classes = name
                break
        scores = [name for name in scores if name != classes]
    return classes, scores[0] if scores else None


def _role_within(node: Node, role_of: RoleOf) -> str:
    """The role of a node, or else of a suppression inside of its bodies or callees."""
    role = role_of(node)
    if role:
        return role
    for graph in (*node.graphs, *node.callees):
        for inner in walk(graph):
            if role_of(inner) in _SELECTIONS:
                return role_of(inner)
    return role


def _detections_reader(view: View, node: Node) -> Reader | None:
    """Reads the outputs of a node that ends a detector: boxes, classes, scores, count."""
    values = (*node.outputs, None, None, None, None)[:4]
    boxes, classes, scores, count = (view.output_of(value, view.outputs) for value in values)
    return None if boxes is None else SeparateOutputs(boxes, classes, scores, count)


def _selection_reader(view: View, node: Node, *, centered: bool) -> Reader | None:
    """Reads what a suppression selected.

    That is boxes that the graph has gathered by the selected indices, or the indices themselves,
    with the boxes that they select from if those are outputs too.
    """
    dependent = _dependent_values(view, node)
    behind = [name for name in view.outputs if name in dependent]
    is_plain = not (node.graphs or node.callees)
    indices = view.output_of(node.outputs[0], behind) if is_plain else None

    reader = detections_in(view, [name for name in behind if name != indices])
    if isinstance(reader, SeparateOutputs):
        still_centered = centered and _is_picked(view, reader.boxes, node.inputs[0])
        return replace(reader, centered=still_centered)
    if reader is not None:
        return reader

    if indices is None or view.array(indices).shape[-1:] != (3,):
        return None
    others = [name for name in view.outputs if name not in dependent]
    boxes, scores = (view.output_of(value, others) for value in node.inputs[:2])
    return SelectedBoxes(indices, boxes, scores, centered)


def _is_picked(view: View, boxes: str, source: Value | None) -> bool:
    """Whether boxes are as the suppression read them, rather than converted to corners since."""
    roles: Sequence[HeadRole] = ("move", "pick")
    return source is not None and view.origin(boxes, roles) == view.origin(source.name, roles)


def _dependent_values(view: View, node: Node) -> set[str]:
    """Names of the node's results, and of all values that depend on them."""
    names = {value.name for value in node.outputs if value is not None}
    for other in view.nodes:
        if any(value.name in names for value in uses_with_captures(other)):
            names.update(value.name for value in other.outputs if value is not None)
    return names


# Label maps


def label_map(view: View, name: str) -> LabelMap | None:
    """Return how to read an output that the user calls a label map.

    Args:
        view: The model and the outputs of one call.
        name: Name of the output.

    Returns:
        None if the output has no plane of pixels.
    """
    array = view.array(name)
    if array.ndim < 3 or array.dtype.kind not in "biuf":
        return None
    if _has_classes(view, name, array):
        return LabelMap(name)

    axis = 1 if view.layout == "NCHW" else array.ndim - 1
    if array.ndim > 3 and array.shape[axis] > 1:
        return LabelMap(name, axis)
    return LabelMap(name, threshold=_half(view, name))


def _certain_label_map(view: View, name: str) -> LabelMap | None:
    """How to read an output that is certainly a label map; None for any other output."""
    array = view.array(name)
    if array.ndim < 3:
        return None
    role = _role_of_origin(view, name)
    if _has_classes(view, name, array):
        is_plane = array.ndim == 3 or 1 in (array.shape[1], array.shape[-1])
        is_label = role == "largest" or array.dtype.itemsize > 1
        return LabelMap(name) if is_plane and is_label and max(array.shape) > 1 else None

    if array.ndim != 4 or array.dtype.kind not in "iuf":
        return None
    if not _has_pixels_of_an_input(view, array.shape):
        return None
    axis = 1 if view.layout == "NCHW" else 3
    if array.shape[axis] not in _CHANNELS_OF_IMAGES:
        return LabelMap(name, axis)

    # As many channels as an image has: only a likelihood shows that the output is none.
    is_mask = array.shape[axis] == 1 and role == "likelihood"
    return LabelMap(name, threshold=_half(view, name)) if is_mask else None


def _has_classes(view: View, name: str, array: NDArray[Any]) -> bool:
    """Whether the elements are classes: integers that do not stand for quantized floats."""
    return array.dtype.kind in "biu" and _quantization(view, name) is None


def _role_of_origin(view: View, name: str) -> str:
    """The role of the node that computed an output's elements, "" without one."""
    origin = view.values.get(view.origin(name))
    if origin is None or origin.producer is None:
        return ""
    return view.role_of(origin.producer)


def _has_pixels_of_an_input(view: View, shape: Sequence[int]) -> bool:
    """Whether the planes of an output, [N, C, H, W] or [N, H, W, C], are as large as an input's."""
    planes = slice(2, 4) if view.layout == "NCHW" else slice(1, 3)
    size = tuple(shape[planes])
    if min(size) <= 1:
        return False

    for value in view.graphs[0].inputs:
        type = view.type_of(value.name)
        if type is None or type.shape is None or len(type.shape) != 4:
            continue
        if _may_be(type.shape[planes], size):
            return True
    return False


def _may_be(dims: Sequence[Dim], size: Sequence[int]) -> bool:
    """Whether dims are of a size, or open."""
    return all(not isinstance(dim, int) or dim == own for dim, own in zip(dims, size, strict=True))


def _quantization(view: View, name: str) -> Quantization | None:
    type = view.type_of(name)
    return None if type is None else type.quantization


def _half(view: View, name: str) -> float:
    """The number that stands for a likelihood of 0.5."""
    quantization = _quantization(view, name)
    if quantization is None:
        return 0.5
    return 0.5 / quantization.scale[0] + quantization.zero_point[0]
