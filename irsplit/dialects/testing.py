"""The `test` dialect: operators that mean nothing, so that a pass can be tested by IR text alone.

Any `test.NAME` is an operator. A few have a property that a pass may ask for: `test.cheap` costs
less to compute again than to send, `test.shape` reads nothing but the shape of its operand,
`test.largest` picks the largest element, and `test.affine` quantizes or dequantizes. No file has
this dialect and no engine runs it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irsplit.base.errors import UnsupportedError
from irsplit.dialects.base import Layout, OperatorClass, WriteOptions
from irsplit.ir import Graph, HeadRole, Model, Node, TensorType, Value

_OPEN = 7
"""The size of an open dimension about which nothing is said."""


class TextDialect:
    """What passes may ask of `test` operators; see `irsplit.dialects.base.Dialect`."""

    name = "test"
    extensions: tuple[str, ...] = ()
    engine = "none"
    layout: Layout = "NHWC"

    def read(self, path: Path, entry: str | None = None) -> Model:
        """Raise UnsupportedError: no file has this dialect."""
        raise UnsupportedError(f"{path}: the dialect 'test' has no files; write IR text instead")

    def write(
        self, model: Model, graph: Graph, path: Path, options: WriteOptions = WriteOptions()
    ) -> list[Path]:
        """Raise UnsupportedError: no file has this dialect."""
        raise UnsupportedError(f"{path}: the dialect 'test' has no files; write IR text instead")

    def array(self, value: Value) -> Any:
        """Raise UnsupportedError: constants of IR text have no elements."""
        raise UnsupportedError(f"{value}: constants of the dialect 'test' have no elements")

    def affine(self, model: Model, source: Value, target: Value) -> tuple[list[Value], list[Node]]:
        """Return one `test.affine` that computes `target` from `source`."""
        return [], [Node("test.affine", (source,), (target,))]

    def macs(self, node: Node) -> int:
        """Return 0: operators that mean nothing multiply nothing."""
        return 0

    def summed(self, node: Node, own: Callable[[Node], int]) -> int:
        """Return `own` of the node; what its bodies cost is not known."""
        return own(node)

    def operator_class(self, node: Node) -> OperatorClass:
        """Return "other": operators that mean nothing have no rate of their own."""
        return "other"

    def is_cheap(self, node: Node) -> bool:
        """Return whether the node is `test.cheap` or `test.shape`."""
        return node.op in ("test.cheap", "test.shape")

    def is_shape(self, node: Node) -> bool:
        """Return whether the node is `test.shape`."""
        return node.op == "test.shape"

    def head_role(self, node: Node) -> HeadRole:
        """Return "largest" for `test.largest`."""
        return "largest" if node.op == "test.largest" else ""

    def shapes(self, model: Model, sizes: Mapping[str, int]) -> dict[Value, tuple[int, ...]]:
        """Return the shapes of all values that leave dimensions open, as `sizes` says or 7 else.

        Args:
            model: A model whose entry graph is looked at.
            sizes: Sizes of open dimensions by "<value>.<axis>".
        """
        shapes: dict[Value, tuple[int, ...]] = {}
        for value in model.entry.values():
            if isinstance(value.type, TensorType) and not value.type.is_static:
                shapes[value] = tuple(
                    dim if isinstance(dim, int) else sizes.get(f"{value.name}.{axis}", _OPEN)
                    for axis, dim in enumerate(value.type.shape or ())
                )
        return shapes


TEST = TextDialect()
