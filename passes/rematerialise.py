"""rematerialise: side values that are cheap to compute are computed on both sides of a cut instead of being sent."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Model
from irsplit.passes.analysis.recompute import Recompute
from irsplit.passes.base import Context


@dataclass(frozen=True)
class Rematerialise:
    """Let the cuts of later passes recompute masks, shapes, positions and casts on the far side.

    The model stays as it is: which values are recomputed depends on where it is cut. Sizes are in bytes: `input` of a
    graph input that is forwarded only for this, `constant` of a constant that is held on both sides, `shape` of a
    shape that is sent because it cannot be recomputed. `depth` is the longest chain of nodes that is cloned.
    """

    name: ClassVar[str] = "rematerialise"
    input: int = Recompute.input_bytes
    constant: int = Recompute.constant_bytes
    shape: int = Recompute.shape_bytes
    depth: int = Recompute.depth

    def run(self, model: Model, context: Context) -> bool:
        dialect = context.dialect
        if dialect is None:
            context.remark(
                self, f"nothing is known of cheap operators of '{model.dialect}'", warning=True
            )
            return False
        context.recompute = Recompute(
            dialect.is_cheap, dialect.is_shape, self.input, self.constant, self.depth, self.shape
        )
        return False
