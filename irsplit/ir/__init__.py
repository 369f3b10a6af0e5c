"""The neutral intermediate representation: model, graph, node, value, constant."""

from irsplit.ir.calls import callees_first, graphs_inside, name_apart
from irsplit.ir.clone import clone_graph, clone_node, clone_value
from irsplit.ir.collector import without_collector
from irsplit.ir.compare import equal
from irsplit.ir.core import (
    DEEPEST_BODIES,
    Attribute,
    Buffer,
    Constant,
    Graph,
    Model,
    Node,
    Value,
    captures,
    required_inputs,
    uses_with_captures,
    walk,
)
from irsplit.ir.lower import engine_graph, is_of_the_runtime, states
from irsplit.ir.parser import parse_model
from irsplit.ir.printer import around, print_graph, print_model, print_node, print_type
from irsplit.ir.roles import HeadRole
from irsplit.ir.types import Dim, OpaqueType, Quantization, TensorType, Type
from irsplit.ir.verify import verify

__all__ = [
    "DEEPEST_BODIES",
    "Attribute",
    "Buffer",
    "Constant",
    "Dim",
    "Graph",
    "HeadRole",
    "Model",
    "Node",
    "OpaqueType",
    "Quantization",
    "TensorType",
    "Type",
    "Value",
    "around",
    "callees_first",
    "captures",
    "clone_graph",
    "clone_node",
    "clone_value",
    "engine_graph",
    "equal",
    "graphs_inside",
    "is_of_the_runtime",
    "name_apart",
    "parse_model",
    "print_graph",
    "print_model",
    "print_node",
    "print_type",
    "required_inputs",
    "states",
    "uses_with_captures",
    "verify",
    "walk",
    "without_collector",
]  # fmt: skip
