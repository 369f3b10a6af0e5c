"""The `Dialect` protocol: everything that irsplit asks of a model format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from irsplit.ir import Graph, HeadRole, Model, Node, Value

Layout = Literal["NCHW", "NHWC"]
"""Where images and activations keep their channels: after the batch, or last."""

OperatorClass = Literal["conv", "depthwise", "matmul", "other"]
"""Classes of operators for which the profile of a device has a rate of its own."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a writer stores the weights.

    Args:
        external_over: Size in bytes. Weights go into a file beside the model when the model file
            would be larger. None: only when the format's own size limit forces it.
        share_weights: Leave weights that already lie in files beside the source in those files,
            and put the files beside the new model, without a second copy where the file system
            can do that.
    """

    external_over: int | None = None
    share_weights: bool = False


class Dialect(Protocol):
    """A model format: reads and writes its files, and knows its operators.

    A package offers an instance through an entry point of the group `irsplit.dialects`, named
    like the dialect. Reading a model and writing it unchanged must give an equal model.
    """

    name: str
    """Name of the dialect, which is also `Model.dialect` of the models that it reads."""

    extensions: tuple[str, ...]
    """Endings of its files, in lower case and with the dot; written files get the first."""

    engine: str
    """Name of the engine that runs its files: an entry point of the group `irsplit.engines`."""

    layout: Layout
    """Layout of images, which tells the passes which axis holds the channels."""

    def read(self, path: Path, entry: str | None = None) -> Model:
        """Read a model file. Large weights stay in the mapped file.

        Args:
            path: The file.
            entry: The signature or graph that becomes the model's entry, for files with several.

        Raises:
            ModelError: The file is damaged or no model. The text names file, place and remedy.
            UnsupportedError: The file is valid, but irsplit cannot carry it without loss.
        """
        ...

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]:
        """Write one graph of a model as the entry of a model file of its own.

        The file gets exactly the callees, functions, operator codes, opset imports, quantization
        annotations and metadata that the graph uses. Several graphs of one model may be written
        at the same time, from threads.

        Args:
            model: The model that the graph belongs to.
            graph: A graph without irsplit.* nodes (see `irsplit.ir.engine_graph`).
            path: The file to write.
            options: How to store the weights.

        Returns:
            The files that were written, the model first.
        """
        ...

    def array(self, value: Value) -> Any:
        """Return the elements of a constant as a numpy array (a copy or a view)."""
        ...

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        """Make the nodes that quantize or dequantize a value.

        Args:
            model: The model that the nodes will be part of.
            source: The value to convert.
            target: The value to compute. Exactly one of the two has a quantized type.

        Returns:
            New constants, and the nodes that compute `target` from `source`.
        """
        ...

    def macs(self, node: Node) -> int:
        """Count multiply-accumulate operations, with the estimated shapes of the node's tensors.

        Nodes inside the node count too (see `summed`). Operators that multiply nothing cost 0.
        """
        ...

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        """Return the cost of `node` including everything it contains.

        A plain node costs `own(node)`. A node with bodies or callees costs the sum over its inner
        nodes instead: for a conditional, only the most expensive branch; for a loop, multiplied
        by the trip count if that is constant, otherwise once.
        """
        ...

    def operator_class(self, node: Node) -> OperatorClass:
        """Return the class of the operator, which selects the rate of a device."""
        ...

    def is_cheap(self, node: Node) -> bool:
        """Whether the node is pure and costs less to compute again than to send its result."""
        ...

    def is_shape(self, node: Node) -> bool:
        """Whether the node reads only the shape of its operand, none of its elements."""
        ...

    def head_role(self, node: Node) -> HeadRole:
        """Return what the node does to the outputs of a model that ends with it.

        Most operators do nothing of interest: their role is the empty string.
        """
        ...
