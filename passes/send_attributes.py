"""How irsplit.send says what the codec does with each tensor: attributes of the node both ways.

Three lists with one item a tensor: `quantization` (null or [dtype, bits, axis, outliers, scales, zero points]),
`codec` (a name) and `parameters` (the codec's bytes). An absent list means the default: neither quantized nor coded.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from irsplit.base.errors import UnsupportedError
from irsplit.ir import Graph, Model, Node, TensorType, Value
from irsplit.runtime.frame.descriptor import QuantizationSpec, TensorSpec


def sends(model: Model) -> Iterable[tuple[Graph, Node]]:
    """Every irsplit.send with its segment, in order of boundaries."""
    for graph in model.segments:
        yield from ((graph, node) for node in graph.nodes if node.op == "irsplit.send")


def specs(send: Node) -> list[TensorSpec]:
    """What the boundary carries. Raises UnsupportedError, naming the tensor, for one that cannot be framed."""
    count = len(send.inputs)
    quantization = _listed(send, "quantization", None, count)
    codec = _listed(send, "codec", "raw", count)
    parameters = _listed(send, "parameters", b"", count)
    return [
        _spec(value, *fields)
        for value, *fields in zip(send.inputs, quantization, codec, parameters, strict=True)
        if value is not None
    ]


def spec_of(value: Value) -> TensorSpec:
    """How a value crosses unless a pass says otherwise. Raises UnsupportedError for one that cannot be framed."""
    return _spec(value, None, "raw", b"")


def set_specs(send: Node, new: Sequence[TensorSpec]) -> bool:
    """Write what the boundary carries into the node; whether that changed it."""
    before = dict(send.attributes)
    quantization = [_quantization_list(spec.quantization) for spec in new]
    send.attributes.update(quantization=quantization, codec=[spec.codec for spec in new])
    send.attributes["parameters"] = [spec.parameters for spec in new]
    for key, default in (("quantization", None), ("codec", "raw"), ("parameters", b"")):
        if all(item == default for item in _listed(send, key, default, len(new))):
            del send.attributes[key]
    return before != send.attributes


def _spec(value: Value, quantization: Any, codec: str, parameters: bytes) -> TensorSpec:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        raise UnsupportedError(f"{value} cannot cross a boundary: its type or rank is not known")
    shape = tuple(dim if isinstance(dim, int) else None for dim in value.type.shape)
    return TensorSpec(
        value.name, value.type.dtype.name, shape, _quantization(quantization), codec, parameters
    )


def _quantization(fields: Any) -> QuantizationSpec | None:
    if fields is None:
        return None
    dtype, bits, axis, outliers, scales, zero_points = fields
    return QuantizationSpec(tuple(scales), tuple(zero_points), dtype, bits, axis, outliers)


def _quantization_list(q: QuantizationSpec | None) -> list[Any] | None:
    return (
        None
        if q is None
        else [q.dtype, q.bits, q.axis, q.outliers, list(q.scales), list(q.zero_points)]
    )


def _listed(send: Node, key: str, default: Any, count: int) -> list[Any]:
    items: Any = send.attributes.get(key)
    return [default] * count if items is None else list(items)
