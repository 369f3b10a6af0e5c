"""The IR as text: what `str(model)` gives, pass tests compare and errors quote.

    graph @device(%x: f32[1,8]) {
      const %w: f32[8] = model.onnx[1024:32]
      %r = onnx.Mul(%x, %w) "mul_0" : f32[1,8]
      irsplit.send 0 %r
    }

The text has everything but `native`; `parse_model` reads it back to an equal model.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from irsplit.base.errors import short
from irsplit.ir.types import Dim, OpaqueType, Quantization, Type

if TYPE_CHECKING:
    # For annotations alone: core imports this module, so that str(model) is its text.
    from irsplit.ir.core import Attribute, Constant, Graph, Model, Node, Value

_PLAIN = re.compile(r"[A-Za-z0-9_][\w.$-]*\Z", re.ASCII)
_SYMBOL = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_LONGEST_NOTE = 400
"""The most letters of a node in a note under an error."""
PLACES = ("device", "server")
"""Where segments run. A graph with such a name runs there unless its text says otherwise."""
NOWHERE = "none"
"""The placement of a graph that has such a name and is no segment."""


def print_model(model: "Model") -> str:
    """The text of a whole model; ends with a newline."""
    graphs = "".join(print_graph(graph) for graph in model.graphs)
    return f"model {_name(model.dialect)}\n{graphs}"


def print_graph(graph: "Graph", indent: str = "") -> str:
    """The text of one graph with its bodies; ends with a newline.

    Args:
        graph: The graph.
        indent: What each line begins with.
    """
    return "".join(f"{line}\n" for line in _graph_lines(graph, indent))


def around(graph: "Graph", node: "Node | None", context: int = 2) -> str:
    """The lines around a node, as a note under an error.

    Args:
        graph: The graph that has the node.
        node: The node to mark, or None.
        context: How many nodes to show before and after it.

    Returns:
        Lines that begin with a newline; empty if there is no node, or it is not in the graph.
    """
    if node is None or node not in graph.nodes:
        return ""

    position = graph.nodes.index(node)
    first, end = max(0, position - context), min(len(graph.nodes), position + context + 1)
    lines = [f"\n  in graph @{short(_name(graph.name))}:"]
    for index in range(first, end):
        marker = ">" if index == position else " "
        text = short(print_node(graph.nodes[index]), _LONGEST_NOTE)
        lines.append(f"  {marker} {index:3}  {text}")
    return "\n".join(lines)


def print_node(node: "Node") -> str:
    """The text of a node on one line, without its bodies."""
    results = ", ".join(map(_optional, node.outputs))
    types = ", ".join(print_type(value.type) if value else "_" for value in node.outputs)

    text = f"{results} = {node.op}" if results else node.op
    text += _operands(node)
    text += "".join(_suffixes(node))
    return f"{text} : {types}" if types else text


def _operands(node: "Node") -> str:
    operands = ", ".join(map(_optional, node.inputs))
    if not _has_boundary(node):
        return f"({operands})"
    boundary = node.attributes["boundary"]
    return f" {boundary} {operands}" if operands else f" {boundary}"


def _has_boundary(node: "Node") -> bool:
    """Whether the text names the boundary before the operands, and not among the attributes."""
    return node.op in ("irsplit.send", "irsplit.recv")


def _suffixes(node: "Node") -> Iterator[str]:
    """What the text says behind the operands, if the node has it."""
    if node.name:
        yield " " + json.dumps(node.name)
    if node.callees:
        yield " calls " + ", ".join(f"@{_name(graph.name)}" for graph in node.callees)
    if node.states:
        yield " states " + ", ".join(map(json.dumps, node.states))
    if node.random:
        yield " random"

    attributes = dict(node.attributes)
    if _has_boundary(node):
        del attributes["boundary"]
    if attributes:
        texts = [f"{key}={_attribute(value)}" for key, value in attributes.items()]
        yield " {" + ", ".join(texts) + "}"


def print_type(type: Type | None) -> str:
    """The text of a type, such as `f32[1,8]`; `?` for an unknown one."""
    if type is None:
        return "?"
    if isinstance(type, OpaqueType):
        return f"!{json.dumps(type.text)}"

    shape = "*" if type.shape is None else ",".join(map(_dim, type.shape))
    text = f"{type.dtype}[{shape}]"
    if type.quantization is not None:
        text += _quantization(type.quantization)
    if type.assumed is not None:
        text += f" sized({', '.join(map(str, type.assumed))})"
    return text


def _graph_lines(graph: "Graph", indent: str) -> Iterator[str]:
    inputs = ", ".join(map(_declaration, graph.inputs))
    head = f"{indent}graph @{_name(graph.name)}({inputs})"
    if graph.outputs:
        head += f" -> ({', '.join(map(_value, graph.outputs))})"
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


def _declaration(value: "Value") -> str:
    text = f"{_value(value)}: {print_type(value.type)}"
    return text if value.constant is None else f"{text} = {_constant(value.constant)}"


def _constant(constant: "Constant") -> str:
    encoding = "" if constant.encoding == "raw" else f" as {_name(constant.encoding)}"
    if constant.buffer.name:
        return f"{_name(constant.buffer.name)}[{constant.offset}:{constant.length}]{encoding}"
    return f"0x{constant.view().hex()}{encoding}"


def _quantization(quantization: Quantization) -> str:
    channels = zip(quantization.scale, quantization.zero_point, strict=True)
    pairs = ", ".join(f"{scale!r}:{zero_point}" for scale, zero_point in channels)
    return f" q({pairs})" if quantization.axis is None else f" q({pairs}; axis {quantization.axis})"


def _dim(dim: Dim) -> str:
    if dim is None:
        return "?"
    if isinstance(dim, int) or _SYMBOL.match(dim):
        return str(dim)
    return json.dumps(dim)


def _attribute(value: "Attribute") -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if value is None or isinstance(value, bool | int | float | str):
        return json.dumps(value)
    return f"[{_joined(value)}]"


def _joined(values: "Iterable[Attribute]") -> str:
    return ", ".join(map(_attribute, values))


def _optional(value: "Value | None") -> str:
    return "_" if value is None else _value(value)


def _value(value: "Value") -> str:
    return f"%{_name(value.name)}"


def _name(name: str) -> str:
    """A name as it is if the parser takes it for one word, and quoted otherwise."""
    return name if _PLAIN.match(name) else json.dumps(name)
