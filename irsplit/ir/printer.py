"""The IR as text: what pass tests compare, `irsplit inspect` prints and errors quote.

    graph @device(%x: f32[1,8]) {
      const %w: f32[8] = model.onnx[1024:32]
      %r = onnx.Mul(%x, %w) "mul_0" : f32[1,8]
      irsplit.send 0 %r
    }

The text names everything but `native`; `parse` reads it back to an equal model.
"""

import json
import re
from collections.abc import Iterable, Iterator

from irsplit.base.errors import short
from irsplit.ir.core import Attribute, Constant, Graph, Model, Node, Value
from irsplit.ir.types import Dim, OpaqueType, Quantization, Type

_PLAIN = re.compile(r"[A-Za-z0-9_][\w.$-]*\Z", re.ASCII)
_SYMBOL = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_LONGEST_NOTE = 400
"""Letters of a node in a note under an error."""
PLACES = ("device", "server")
"""Where segments run; a graph that has such a name and says nothing else is a segment that runs there."""
NOWHERE = "none"
"""What a graph says that has such a name and is no segment."""


def print_model(model: Model) -> str:
    """The whole model; ends with a newline."""
    return f"model {_name(model.dialect)}\n" + "".join(print_graph(graph) for graph in model.graphs)


def print_graph(graph: Graph, indent: str = "") -> str:
    return "".join(f"{line}\n" for line in _graph_lines(graph, indent))


def around(graph: Graph, node: Node | None, context: int = 2) -> str:
    """The lines of the graph around `node`, the node marked, as a note under an error; empty without a node."""
    if node is None or node not in graph.nodes:
        return ""
    position = graph.nodes.index(node)
    lines = [f"\n  in graph @{short(_name(graph.name))}:"]
    for index in range(max(0, position - context), min(len(graph.nodes), position + context + 1)):
        marker = ">" if index == position else " "
        lines.append(
            f"  {marker} {index:3}  {short(print_node(graph.nodes[index]), _LONGEST_NOTE)}"
        )
    return "\n".join(lines)


def print_node(node: Node) -> str:
    """The node on one line, bodies left out."""
    operands = ", ".join("_" if value is None else _value(value) for value in node.inputs)
    types = ", ".join(print_type(value.type) if value else "_" for value in node.outputs)
    results = ", ".join("_" if value is None else _value(value) for value in node.outputs)
    attributes = dict(node.attributes)
    text = f"{results} = {node.op}" if results else node.op
    if node.op in ("irsplit.send", "irsplit.recv"):
        text += f" {attributes.pop('boundary')}" + (f" {operands}" if operands else "")
    else:
        text += f"({operands})"
    if node.name:
        text += f" {json.dumps(node.name)}"
    if node.callees:
        text += " calls " + ", ".join(f"@{_name(graph.name)}" for graph in node.callees)
    if node.states:
        text += " states " + ", ".join(json.dumps(state) for state in node.states)
    if node.random:
        text += " random"
    if attributes:
        text += (
            " {"
            + ", ".join(f"{key}={_attribute(value)}" for key, value in attributes.items())
            + "}"
        )
    return f"{text} : {types}" if types else text


def print_type(type: Type | None) -> str:
    if type is None:
        return "?"
    if isinstance(type, OpaqueType):
        return f"!{json.dumps(type.text)}"
    shape = "*" if type.shape is None else ",".join(_dim(dim) for dim in type.shape)
    quantized = "" if type.quantization is None else _quantization(type.quantization)
    assumed = "" if type.assumed is None else f" sized({', '.join(map(str, type.assumed))})"
    return f"{type.dtype}[{shape}]{quantized}{assumed}"


def _graph_lines(graph: Graph, indent: str) -> Iterator[str]:
    inputs = ", ".join(_declaration(value) for value in graph.inputs)
    head = f"{indent}graph @{_name(graph.name)}({inputs})"
    if graph.outputs:
        head += f" -> ({', '.join(_value(value) for value in graph.outputs)})"
    if graph.placement != (graph.name if graph.name in PLACES else None):
        head += f" on {_name(graph.placement or NOWHERE)}"
    yield head + " {"
    for value in graph.constants:
        yield f"{indent}  const {_declaration(value)}"
    for node in graph.nodes:
        if not node.graphs:
            yield f"{indent}  {print_node(node)}"
            continue
        yield f"{indent}  {print_node(node)} with {{"
        for body in node.graphs:
            yield from _graph_lines(body, indent + "    ")
        yield f"{indent}  }}"
    yield f"{indent}}}"


def _declaration(value: Value) -> str:
    text = f"{_value(value)}: {print_type(value.type)}"
    return text if value.constant is None else f"{text} = {_constant(value.constant)}"


def _constant(constant: Constant) -> str:
    encoding = "" if constant.encoding == "raw" else f" as {_name(constant.encoding)}"
    if constant.buffer.name:
        return f"{_name(constant.buffer.name)}[{constant.offset}:{constant.length}]{encoding}"
    return f"0x{constant.view().hex()}{encoding}"


def _quantization(quantization: Quantization) -> str:
    pairs = ", ".join(
        f"{scale!r}:{zero_point}"
        for scale, zero_point in zip(quantization.scale, quantization.zero_point, strict=True)
    )
    return f" q({pairs})" if quantization.axis is None else f" q({pairs}; axis {quantization.axis})"


def _dim(dim: Dim) -> str:
    if dim is None:
        return "?"
    if isinstance(dim, int) or _SYMBOL.match(dim):
        return str(dim)
    return json.dumps(dim)


def _attribute(value: Attribute) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if value is None or isinstance(value, bool | int | float | str):
        return json.dumps(value)
    return f"[{_joined(value)}]"


def _joined(values: Iterable[Attribute]) -> str:
    return ", ".join(_attribute(value) for value in values)


def _value(value: Value) -> str:
    return f"%{_name(value.name)}"


def _name(name: str) -> str:
    return name if _PLAIN.match(name) else json.dumps(name)
