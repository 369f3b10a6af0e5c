"""How irsplit.send says what the codec does with each tensor: specs to attributes and back.

The node has three lists with one item a tensor: `quantization` (null or [dtype, bits, axis,
outliers, scales, zero points]), `codec` (a name) and `parameters` (the codec's bytes). An absent
list means the default: neither quantized nor coded.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from irsplit.base.errors import UnsupportedError
from irsplit.ir import Graph, Model, Node, TensorType, Value
from irsplit.runtime.frame.descriptor import QuantizationSpec, TensorSpec

_DEFAULTS: dict[str, Any] = {"quantization": None, "codec": "raw", "parameters": b""}
"""The lists of attributes, and the item that an absent list stands for."""


def sends(model: Model) -> Iterable[tuple[Graph, Node]]:
    """Yield every irsplit.send with its segment, in order of boundaries."""
    for graph in model.segments:
        for node in graph.nodes:
            if node.op == "irsplit.send":
                yield graph, node


def specs(send: Node) -> list[TensorSpec]:
    """Return how the tensors of a boundary cross, in frame order.

    Raises:
        UnsupportedError: A tensor cannot be framed; the error names it.
    """
    lists = [_items(send, key, len(send.inputs)) for key in _DEFAULTS]
    boundary: list[TensorSpec] = []
    for value, *items in zip(send.inputs, *lists, strict=True):
        if value is not None:
            boundary.append(_spec(value, *items))
    return boundary


def spec_of(value: Value) -> TensorSpec:
    """Return how a value crosses unless a pass says otherwise: raw.

    Raises:
        UnsupportedError: The value cannot be framed.
    """
    return _spec(value, *_DEFAULTS.values())


def set_specs(send: Node, new: Sequence[TensorSpec]) -> bool:
    """Write how the tensors of a boundary cross into the node.

    Args:
        send: The irsplit.send of the boundary.
        new: One spec a tensor, in frame order.

    Returns:
        Whether that changed the node.
    """
    before = dict(send.attributes)
    send.attributes["quantization"] = [_quantization_list(spec.quantization) for spec in new]
    send.attributes["codec"] = [spec.codec for spec in new]
    send.attributes["parameters"] = [spec.parameters for spec in new]

    # A list of defaults is left out, so that equal boundaries have equal text.
    for key, default in _DEFAULTS.items():
        if all(item == default for item in _items(send, key, len(new))):
            del send.attributes[key]
    return before != send.attributes


def _spec(value: Value, quantization: Any, codec: str, parameters: bytes) -> TensorSpec:
    """Return the spec of a value.

    Args:
        value: The value that crosses.
        quantization: Its item in the list of that name, and so the others.
        codec: The name of its codec.
        parameters: The codec's bytes.
    """
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        raise UnsupportedError(f"{value} cannot cross a boundary: its type or rank is not known")

    shape = tuple(dim if isinstance(dim, int) else None for dim in value.type.shape)
    dtype = value.type.dtype.name
    return TensorSpec(value.name, dtype, shape, _quantization(quantization), codec, parameters)


def _quantization(items: Any) -> QuantizationSpec | None:
    if items is None:
        return None
    dtype, bits, axis, outliers, scales, zero_points = items
    return QuantizationSpec(tuple(scales), tuple(zero_points), dtype, bits, axis, outliers)


def _quantization_list(q: QuantizationSpec | None) -> list[Any] | None:
    if q is None:
        return None
    return [q.dtype, q.bits, q.axis, q.outliers, list(q.scales), list(q.zero_points)]


def _items(send: Node, key: str, count: int) -> list[Any]:
    """Return one of the three lists of attributes; defaults where it is absent."""
    items: Any = send.attributes.get(key)
    return [_DEFAULTS[key]] * count if items is None else list(items)
