"""boundary-ops: quantized tensors become integers in the graphs themselves, by operators of the model's own format."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from irsplit.base import dtypes
from irsplit.base.errors import PassError
from irsplit.ir import Graph, Model, Node, TensorType, Value
from irsplit.ir import Quantization as Affine
from irsplit.passes.base import Context
from irsplit.passes.send_attributes import sends, set_specs, specs
from irsplit.runtime.frame.descriptor import QuantizationSpec, TensorSpec

_Affine = Callable[[Model, Value, Value], tuple[list[Value], list[Node]]]
_STORED = {"i8": dtypes.I8, "u8": dtypes.U8}


@dataclass(frozen=True)
class BoundaryOps:
    """Let a host without irsplit's runtime exchange integers: the near side gives them, the far side takes them.

    Takes what quantize-boundary decided, and puts QuantizeLinear and DequantizeLinear (ONNX) or QUANTIZE and
    DEQUANTIZE (TFLite) on both sides of it. Values beyond the range are clipped, as no outliers can travel. The
    manifest says scale and zero point of every such tensor. Raises PassError when nothing is quantized, and
    UnsupportedError for what the format's operators cannot do.
    """

    name: ClassVar[str] = "boundary-ops"

    def run(self, model: Model, context: Context) -> bool:
        if context.dialect is None:
            raise PassError(
                f"pass '{self.name}': no operators are known that quantize in a '{model.dialect}' graph"
            )
        changed = [
            self._lower(model, graph, send, context.dialect.affine, context)
            for graph, send in [*sends(model)]
        ]
        if not any(changed):
            raise PassError(
                f"pass '{self.name}': no tensor is quantized; put quantize-boundary before it"
            )
        context.forget_crossing_samples()
        return True

    def _lower(
        self, model: Model, near: Graph, send: Node, affine: _Affine, context: Context
    ) -> bool:
        far, receive = _receiver(model, send)
        after: list[TensorSpec] = []
        described: dict[str, object] = {}
        for place, (spec, real, received) in enumerate(
            zip(specs(send), send.inputs, receive.outputs, strict=True)
        ):
            q = spec.quantization
            if q is None or real is None or received is None:
                after.append(spec)
                continue
            name = _free_name(f"{spec.name}_{q.dtype}", near, far)
            sent, taken = _stored(name, real, q), _stored(name, received, q)
            _insert(near, near.nodes.index(send), affine(model, real, sent))
            send.set_input(place, sent)
            receive.outputs = (*receive.outputs[:place], taken, *receive.outputs[place + 1 :])
            taken.producer = receive
            _insert(far, far.nodes.index(receive) + 1, affine(model, taken, received))
            after.append(replace(spec, name=name, dtype=q.dtype, quantization=None))
            described[name] = {
                "of": spec.name, "scale": list(q.scales), "zero_point": list(q.zero_points), "axis": q.axis,
            }  # fmt: skip
        set_specs(send, after)
        context.details.setdefault("boundary_ops", []).append(described)
        return bool(described)


def _insert(graph: Graph, at: int, made: tuple[list[Value], list[Node]]) -> None:
    constants, nodes = made
    graph.constants += constants
    graph.nodes[at:at] = nodes


def _receiver(model: Model, send: Node) -> tuple[Graph, Node]:
    return next(
        (graph, node)
        for graph in model.segments
        for node in graph.nodes
        if node.op == "irsplit.recv" and node.attributes["boundary"] == send.attributes["boundary"]
    )


def _stored(name: str, real: Value, q: QuantizationSpec) -> Value:
    assert isinstance(real.type, TensorType)
    affine = Affine(q.scales, q.zero_points, q.axis)
    return Value(name, TensorType(_STORED[q.dtype], real.type.shape, affine, real.type.assumed))


def _free_name(wanted: str, *graphs: Graph) -> str:
    """The name with as many underscores behind it that neither it nor what is named after it is taken."""
    taken = {value.name for graph in graphs for value in (*graph.values(), *graph.outputs)}
    while any(name.startswith(wanted) for name in taken):
        wanted += "_"
    return wanted
