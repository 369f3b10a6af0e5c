"""check-boundary: every boundary can be framed and every segment does something; remarks on what is unwise."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.base.errors import PassError
from irsplit.ir import Graph, Model, Value, required_inputs
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.dims import unsized
from irsplit.passes.base import Context
from irsplit.passes.send_attributes import sends, specs
from irsplit.runtime.frame.limits import MAX_TENSORS


@dataclass(frozen=True)
class CheckBoundary:
    """Raise PassError, naming segment and tensor, for a partition that could not run; change nothing."""

    name: ClassVar[str] = "check-boundary"

    def run(self, model: Model, context: Context) -> bool:
        if not model.segments:
            raise PassError(
                f"pass '{self.name}': the model is not partitioned; put partition before it"
            )
        for graph in model.segments:
            if all(node.op.startswith("irsplit.") for node in graph.nodes):
                raise PassError(
                    f"pass '{self.name}': segment @{graph.name} has no node; remove one of the cuts"
                )
        for graph, send in sends(model):
            if not 1 <= len(send.inputs) <= MAX_TENSORS:
                raise PassError(
                    f"pass '{self.name}': segment @{graph.name} sends {len(send.inputs)} tensors; a frame carries 1 to "
                    f"{MAX_TENSORS}"
                )
            specs(send)
            self._remark_size(graph, [value for value in send.inputs if value is not None], context)
        return False

    def _remark_size(self, graph: Graph, crossing: list[Value], context: Context) -> None:
        inputs = required_inputs(graph)
        sent, received = estimated_bytes(crossing), estimated_bytes(inputs)
        if inputs and sent >= received and not unsized(graph):
            context.remark(
                self,
                f"segment @{graph.name} sends {sent} raw bytes, its inputs are {received}: "
                "sending the input and running everything on the far side moves less",
                warning=True,
            )
