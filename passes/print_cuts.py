"""print-cuts: every position of the entry graph as a remark, legal or rejected with its reason."""

from dataclasses import dataclass
from typing import ClassVar

from irsplit.ir import Model
from irsplit.passes.analysis.cut import Cut
from irsplit.passes.base import Context


@dataclass(frozen=True)
class PrintCuts:
    """List where the model can be cut, in the order of execution; change nothing.

    A legal cut is listed with its id, kind, tensors, size, and the bytes of the weights before it;
    a rejected position with the reason. `max-tensors` says how many tensors may cross. Cuts count
    what passes before this one allow, such as rematerialise.
    """

    name: ClassVar[str] = "print-cuts"
    max_tensors: int = 1

    def run(self, model: Model, context: Context) -> bool:
        """Leave one remark for every position."""
        for cut in context.cuts(model, self.max_tensors):
            context.remark(self, f"{cut.id} {_description(cut)}")
        return False


def _description(cut: Cut) -> str:
    """Word what the cut sends, or why it is not legal."""
    if not cut.legal:
        return f"- {cut.reason}"

    tensors = " + ".join(map(str, cut.tensors))
    size = f"{cut.size_bytes()} bytes"
    if cut.size_bytes() is None:
        # Open dimensions count as 1, or as they are assumed.
        size = f"about {cut.estimated_bytes} bytes"

    words = [f"{cut.kind} {tensors}, {size}, weights {cut.weight_bytes}"]
    beside = {
        "shapes": cut.shapes,
        "recomputes": cut.rematerialised,
        "forwards": cut.forwards,
        "early outputs": cut.early_outputs,
    }
    for word, values in beside.items():
        if values:
            words.append(f"{word} {' '.join(map(str, values))}")
    return ", ".join(words)
