"""check-boundary: every boundary can be framed, and every segment has a node to run."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.base.errors import PassError
from irsplit.ir import Graph, Model, Node, required_inputs
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.dims import unsized
from irsplit.passes.base import Context
from irsplit.passes.send_attributes import sends, specs
from irsplit.runtime.frame.limits import MAX_TENSORS


@dataclass(frozen=True)
class CheckBoundary:
    """Raise PassError, naming segment and tensor, for a partition that could not run.

    Nothing is changed. A boundary that is larger than what its segment receives gets a warning.
    """

    name: ClassVar[str] = "check-boundary"

    def run(self, model: Model, context: Context) -> bool:
        """Check all segments, then all boundaries."""
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
                    f"pass '{self.name}': segment @{graph.name} sends {len(send.inputs)} tensors; "
                    f"a frame carries 1 to {MAX_TENSORS}"
                )
            # Making the specs raises for a tensor that cannot be framed.
            specs(send)
            self._remark_size(graph, send, context)
        return False

    def _remark_size(self, graph: Graph, send: Node, context: Context) -> None:
        """Warn of a segment that sends no less than it receives."""
        # With open dimensions there is no telling which of the two is larger.
        inputs = required_inputs(graph)
        if not inputs or unsized(graph):
            return

        sent = estimated_bytes(value for value in send.inputs if value is not None)
        received = estimated_bytes(inputs)
        if sent >= received:
            text = (
                f"segment @{graph.name} sends {sent} raw bytes, its inputs are {received}: sending "
                "the input and running everything on the server side moves less"
            )
            context.remark(self, text, warning=True)
