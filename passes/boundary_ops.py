"""boundary-ops: quantized tensors become integers in the graphs, by operators of their format."""

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

_AffineMaker = Callable[[Model, Value, Value], tuple[list[Value], list[Node]]]
"""Makes constants and nodes that compute the second value from the first: `Dialect.affine`."""
_STORED = {"i8": dtypes.I8, "u8": dtypes.U8}


@dataclass(frozen=True)
class BoundaryOps:
    """Let a host without irsplit's runtime exchange integers with the other side.

    The pass takes what quantize-boundary decided. It puts QuantizeLinear and DequantizeLinear
    (ONNX) or QUANTIZE and DEQUANTIZE (TFLite) on the two sides of the boundary, so that the device
    side gives integers and the server side takes them. Values beyond the range are clipped, because
    no outliers can travel. The manifest has the scale and the zero point of every such tensor.

    Raises PassError when nothing is quantized, and UnsupportedError for what the operators of the
    format cannot do.
    """

    name: ClassVar[str] = "boundary-ops"

    def run(self, model: Model, context: Context) -> bool:
        """Lower the quantization of every boundary into the graphs."""
        if context.dialect is None:
            raise PassError(
                f"pass '{self.name}': no operators are known that quantize in a '{model.dialect}' "
                "graph"
            )

        any_quantized = False
        for graph, send in list(sends(model)):
            quantized = _lower(model, graph, send, context.dialect.affine)
            context.details.setdefault("boundary_ops", []).append(quantized)
            any_quantized = any_quantized or bool(quantized)
        if not any_quantized:
            raise PassError(
                f"pass '{self.name}': no tensor is quantized; put quantize-boundary before it"
            )

        context.forget_crossing_samples()
        return True


def _lower(
    model: Model, sender: Graph, send: Node, affine: _AffineMaker
) -> dict[str, dict[str, object]]:
    """Lower the quantization of one boundary.

    Returns:
        Scale and zero point of every quantized tensor, by the name of its integers.
    """
    receiver, receive = _receiver(model, send)
    new_specs: list[TensorSpec] = []
    quantized: dict[str, dict[str, object]] = {}
    pairs = list(zip(specs(send), send.inputs, receive.outputs, strict=True))
    for index, (spec, real, received) in enumerate(pairs):
        q = spec.quantization
        if q is None or real is None or received is None:
            new_specs.append(spec)
            continue

        # The sender quantizes the real value just before it sends.
        name = _free_name(f"{spec.name}_{q.dtype}", sender, receiver)
        sent = _stored(name, real, q)
        _insert(sender, sender.nodes.index(send), affine(model, real, sent))
        send.set_input(index, sent)

        # The receiver makes it real again just after it received.
        taken = _stored(name, received, q)
        receive.outputs = (*receive.outputs[:index], taken, *receive.outputs[index + 1 :])
        taken.producer = receive
        _insert(receiver, receiver.nodes.index(receive) + 1, affine(model, taken, received))

        new_specs.append(replace(spec, name=name, dtype=q.dtype, quantization=None))
        quantized[name] = {
            "of": spec.name,
            "scale": list(q.scales),
            "zero_point": list(q.zero_points),
            "axis": q.axis,
        }
    set_specs(send, new_specs)
    return quantized


def _insert(graph: Graph, index: int, made: tuple[list[Value], list[Node]]) -> None:
    """Put nodes before the one at `index`, and their constants into the graph."""
    constants, nodes = made
    graph.constants += constants
    graph.nodes[index:index] = nodes


def _receiver(model: Model, send: Node) -> tuple[Graph, Node]:
    """Return the irsplit.recv of the boundary that `send` sends, with its segment."""
    boundary = send.attributes["boundary"]
    for graph in model.segments:
        for node in graph.nodes:
            if node.op == "irsplit.recv" and node.attributes["boundary"] == boundary:
                return graph, node
    raise AssertionError(f"nothing receives boundary {boundary}")


def _stored(name: str, real: Value, q: QuantizationSpec) -> Value:
    """Return a value for the integers of a quantized one."""
    assert isinstance(real.type, TensorType)
    affine = Affine(q.scales, q.zero_points, q.axis)
    return Value(name, TensorType(_STORED[q.dtype], real.type.shape, affine, real.type.assumed))


def _free_name(name: str, *graphs: Graph) -> str:
    """Return the name, with underscores behind it until no value's name begins with it."""
    taken: set[str] = set()
    for graph in graphs:
        taken.update(value.name for value in (*graph.values(), *graph.outputs))
    while any(other.startswith(name) for other in taken):
        name += "_"
    return name
