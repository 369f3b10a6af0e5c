"""rematerialise: cheap side values are computed on both sides of a cut instead of being sent."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Model
from irsplit.passes.analysis.recompute import Recompute
from irsplit.passes.base import Context


@dataclass(frozen=True)
class Rematerialise:
    """Let the cuts of later passes recompute masks, shapes, positions and casts.

    The model stays as it is: which values the server side recomputes depends on where it is cut.
    Sizes are in bytes:

    * `input`: a graph input that is forwarded only for this is no larger;
    * `constant`: a constant that is held on both sides is no larger;
    * `shape`: a shape that cannot be recomputed is sent if it is no larger;
    * `depth`: the longest chain of nodes that is cloned.
    """

    name: ClassVar[str] = "rematerialise"
    input: int = Recompute.input_bytes
    constant: int = Recompute.constant_bytes
    shape: int = Recompute.shape_bytes
    depth: int = Recompute.depth

    def run(self, model: Model, context: Context) -> bool:
        """Set what cuts may recompute; warn where nothing is known of the operators."""
        dialect = context.dialect
        if dialect is None:
            text = f"nothing is known of cheap operators of '{model.dialect}'"
            context.remark(self, text, warning=True)
            return False

        context.recompute = Recompute(
            dialect.is_cheap,
            dialect.is_shape,
            input_bytes=self.input,
            constant_bytes=self.constant,
            depth=self.depth,
            shape_bytes=self.shape,
        )
        return False
