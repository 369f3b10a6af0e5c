"""limit-boundary: no boundary may send more than the link can bear."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.base.errors import PassError
from irsplit.ir import Model, TensorType
from irsplit.passes.base import Context
from irsplit.passes.send_attributes import sends


@dataclass(frozen=True)
class LimitBoundary:
    """Refuse a model of which a boundary sends more than `size_bytes`, uncoded; warn from 80 % on.

    Dimensions that are not known count as 1. The fields are the options:
    `limit-boundary{size-bytes=4096}`.
    """

    name: ClassVar[str] = "limit-boundary"
    size_bytes: int = 4096

    def run(self, model: Model, context: Context) -> bool:
        for graph, send in sends(model):
            types = [value.type for value in send.inputs if value is not None]
            sent = sum(type.size_bytes(1) or 0 for type in types if isinstance(type, TensorType))
            if sent > self.size_bytes:
                raise PassError(
                    f"pass '{self.name}': segment @{graph.name} sends {sent} bytes, "
                    f"{self.size_bytes} are allowed; cut elsewhere or raise the limit"
                )
            if 10 * sent > 8 * self.size_bytes:
                context.remark(
                    self,
                    f"segment @{graph.name} sends {sent} of {self.size_bytes} bytes",
                    warning=True,
                )
        return False
