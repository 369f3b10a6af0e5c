"""What rides along: the tables behind the IR's model, graphs, nodes and values, seen by this dialect alone."""

from dataclasses import dataclass, field

from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.ir import Constant, Node


@dataclass(frozen=True, slots=True, eq=False)
class TensorNative:
    """A tensor of a subgraph. `constant` is what its buffer holds, None for an empty one.

    `companions` are tensors that its quantization names by index: scales and zero points of blocks.
    """

    table: Table
    index: int
    buffer: int
    constant: Constant | None
    companions: "list[TensorNative]" = field(default_factory=list["TensorNative"])

    @property
    def is_external(self) -> bool:
        """Whether the source has the tensor's bytes in a file beside the model."""
        return self.table.integer("external_buffer") != 0


@dataclass(frozen=True, slots=True, eq=False)
class OperatorNative:
    """An operator. `intermediates` are tensors that it uses as scratch space, none of its operands.

    `large_options` are options of a custom operator that lie behind the flatbuffer.
    """

    table: Table
    index: int
    code: int
    intermediates: tuple[TensorNative | None, ...]
    large_options: Constant | None


@dataclass(frozen=True, slots=True, eq=False)
class SubgraphNative:
    """A subgraph. `initialisers` are its CALL_ONCE nodes: a segment gets what they do for the variables it touches."""

    table: Table
    index: int
    tensors: tuple[TensorNative, ...]
    initialisers: list[Node] = field(default_factory=list[Node])


@dataclass(frozen=True, slots=True, eq=False)
class ModelNative:
    """A model file. `contents` is what each buffer holds, None for an empty one;"""

    table: Table
    codes: tuple[Table, ...]
    buffers: tuple[Table, ...]
    contents: tuple[Constant | None, ...]
