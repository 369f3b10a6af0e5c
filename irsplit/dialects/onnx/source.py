"""What the IR's `native` fields hold for ONNX: where each thing lies in the source file."""

from dataclasses import dataclass, field
from typing import NamedTuple

from irsplit.dialects.onnx.wire import ProtoField
from irsplit.ir import Buffer, Graph, Type


class SourceNode(NamedTuple):
    """`Node.native`: the NodeProto and the names of its operands and results.

    A node whose values still have these names is copied to the output as it is.
    """

    buffer: Buffer
    message: ProtoField
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    position: int
    """Position among the nodes of its source graph, which need not be sorted."""


class Annotation(NamedTuple):
    """A quantization annotation: its tensor, and the initializers that hold its parameters."""

    tensor: str
    parameters: tuple[str, ...]
    message: ProtoField


@dataclass(slots=True)
class SourceGraph:
    """`Graph.native`: the fields of a GraphProto or FunctionProto, by what they hold."""

    order: tuple[int, ...] = ()
    """Keys of the fields in order of first appearance."""

    rest: list[ProtoField] = field(default_factory=list[ProtoField])
    """Fields that are neither nodes nor in the mappings below: name, documentation, metadata,
    and whatever is unknown."""

    node_count: int = 0
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    # By the name of the value.
    inputs: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    outputs: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    value_info: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    initializers: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    sparse: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])

    annotations: list[Annotation] = field(default_factory=list[Annotation])

    types: dict[str, Type | None] = field(default_factory=dict[str, Type | None])
    """Type of every value right after reading. A value that still has it keeps its ValueInfo."""


FunctionKey = tuple[str, str, str]
"""Domain, name and overload of a function."""


@dataclass(slots=True)
class SourceModel:
    """`Model.native`: the file, the fields of its ModelProto, and the functions by key."""

    buffer: Buffer
    fields: list[ProtoField]
    """All fields in the order of the file."""
    ir_version: int
    opsets: dict[str, int]
    """Version of each imported operator set, by domain."""
    functions: dict[FunctionKey, Graph]
