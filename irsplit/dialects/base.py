"""What a model format must offer: the only door between files and the IR."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from irsplit.ir import Graph, HeadRole, Model, Node, Value


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a writer lays out weights.

    `external_over` bytes: weights go into a file beside the model when the model would be larger (None: never unless
    the format's own limit forces it). `share_weights`: weights that lie in files beside the source stay in those, and
    the files are brought beside the model without a second copy where the file system can.
    """

    external_over: int | None = None
    share_weights: bool = False


class Dialect(Protocol):
    """A model format.

    `read` leaves weights in the mapped file and raises ModelError (damaged), UnsupportedError (valid, but not ours)
    with text that names file, place and remedy. `write` writes `graph` (without irsplit.* nodes, see
    `irsplit.ir.engine_graph`) as the entry of a model file of its own, with exactly the callees, functions, operator
    codes, opset imports, quantization annotations and metadata that it uses, and returns the files it wrote, the
    model first; several graphs of a model may be written at once, from threads. Reading and writing an untouched model
    gives an equal model.
    """

    name: str
    extensions: tuple[str, ...]

    def read(self, path: Path, entry: str | None = None) -> Model:
        """`entry` names the signature or graph that becomes the model's entry, where a file has several."""
        ...

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]: ...

    def array(self, value: Value) -> Any:
        """The elements of a constant as a numpy array (a copy or a view); for people and for shape arithmetic."""
        ...

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        """Constants and nodes that compute `target` from `source`, one of which has a quantized type, the other not."""
        ...

    def macs(self, node: Node) -> int:
        """Multiply-accumulate operations of the node in its tensors' estimated shapes; 0 for operators without any."""
        ...

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        """`own` of the node, or of the nodes inside where it has bodies or calls graphs: the dearest branch, and loops
        as many times as is written down, else once; `macs` counts so."""
        ...

    def is_cheap(self, node: Node) -> bool:
        """Whether the node is a pure function that costs less to compute again than to send its result."""
        ...

    def is_shape(self, node: Node) -> bool:
        """Whether the node reads the shape of its operand, and nothing of its elements."""
        ...

    def head_role(self, node: Node) -> HeadRole:
        """What the node does to the outputs of a model that ends with it; nothing for most operators."""
        ...
