"""What the IR of a TFLite model keeps in `native`: tables of the source, for this dialect alone."""

from dataclasses import dataclass, field

from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.ir import Constant, Node


@dataclass(frozen=True, slots=True, eq=False)
class TensorNative:
    """A tensor of a subgraph.

    Attributes:
        table: Its table in the file.
        index: Its number in the subgraph.
        buffer: The number of its buffer.
        constant: What its buffer holds; None for an empty one.
        companions: Tensors that its quantization names: scales and zero points of blocks.
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
    """An operator of a subgraph.

    Attributes:
        table: Its table in the file.
        index: Its number in the subgraph.
        code: The number of its operator code.
        intermediates: Tensors that it uses as scratch space, and that are not operands.
        large_options: Options of a custom operator that are stored behind the flatbuffer.
    """

    table: Table
    index: int
    code: int
    intermediates: tuple[TensorNative | None, ...]
    large_options: Constant | None


@dataclass(frozen=True, slots=True, eq=False)
class SubgraphNative:
    """A subgraph.

    Attributes:
        table: Its table in the file.
        index: Its number in the file.
        tensors: All its tensors by number.
        initialisers: Its CALL_ONCE nodes. A segment gets what they do for its own variables.
    """

    table: Table
    index: int
    tensors: tuple[TensorNative, ...]
    initialisers: list[Node] = field(default_factory=list[Node])


@dataclass(frozen=True, slots=True, eq=False)
class ModelNative:
    """A model file.

    Attributes:
        table: The root table.
        codes: The operator codes by number.
        buffers: The tables of the buffers by number.
        contents: What each buffer holds; None for an empty one.
    """

    table: Table
    codes: tuple[Table, ...]
    buffers: tuple[Table, ...]
    contents: tuple[Constant | None, ...]
