"""What the IR's `native` fields hold for ONNX: where each thing lies in the source file."""

from dataclasses import dataclass, field
from typing import NamedTuple

from irsplit.dialects.onnx.wire import ProtoField
from irsplit.ir import Buffer, Graph, Type


class SourceNode(NamedTuple):
    """`Node.native`: the NodeProto, and the wiring it spells. A node whose wiring still reads so is copied verbatim."""

    buffer: Buffer
    message: ProtoField
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    position: int
    """Position among the nodes of its source graph, which need not be sorted."""


class Annotation(NamedTuple):
    """A quantization annotation: of which tensor, and which initializers hold its parameters."""

    tensor: str
    parameters: tuple[str, ...]
    message: ProtoField


@dataclass(slots=True)
class SourceGraph:
    """`Graph.native`: the fields of a GraphProto or FunctionProto by what they hold, and the order of the keys."""

    order: tuple[int, ...] = ()
    """The keys of the fields in order of first appearance."""
    rest: list[ProtoField] = field(default_factory=list[ProtoField])
    """Fields that are neither nodes nor named below: the name, documentation, metadata, whatever is unknown here."""
    node_count: int = 0
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    inputs: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    outputs: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    value_info: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    initializers: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    sparse: dict[str, ProtoField] = field(default_factory=dict[str, ProtoField])
    annotations: list[Annotation] = field(default_factory=list[Annotation])
    types: dict[str, Type | None] = field(default_factory=dict[str, Type | None])
    """The type of every value as the IR had it after reading: a value whose type is still so keeps its ValueInfo."""


FunctionKey = tuple[str, str, str]
"""Domain, name, overload."""


@dataclass(slots=True)
class SourceModel:
    """`Model.native`: the file, its ModelProto's fields in order, and the functions by key."""

    buffer: Buffer
    fields: list[ProtoField]
    ir_version: int
    opsets: dict[str, int]
    functions: dict[FunctionKey, Graph]
