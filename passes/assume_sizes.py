"""assume-sizes: estimates count with the sizes of one run in which open dimensions are given."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from irsplit.base.errors import EngineError, UnsupportedError
from irsplit.base.lazy import LazyModule
from irsplit.ir import Model, TensorType, Value, required_inputs
from irsplit.passes.analysis.dims import given_sizes, open_dims
from irsplit.passes.base import Context

if TYPE_CHECKING:
    from irsplit.passes.analysis import observed
else:
    observed = LazyModule("irsplit.passes.analysis.observed")


@dataclass(frozen=True)
class AssumeSizes:
    """Find the sizes of all tensors by one run of the engine.

    `dim` says how large open dimensions of inputs are: "symbol=320", "in=320" or "in.axis=320".
    What it leaves open is as large as the engine takes. Types, files and what is a legal cut stay
    as they are; prices, and what is chosen by them, count with these sizes. A model that the engine
    does not run keeps ones, with a warning, and so does IR text.
    """

    name: ClassVar[str] = "assume-sizes"
    dim: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        """Set `assumed` of the types of all tensors that leave some dimension open."""
        sizes = given_sizes(self.dim, model.entry)
        if context.dialect is None:
            problem = "IR text holds nothing that runs; give the model's file"
            self._warn(context, problem)
            return False

        try:
            shapes = observed.observed_shapes(context.dialect, model, sizes)
        except (EngineError, UnsupportedError) as error:
            # The engine refuses the model, or no inputs for it can be made up.
            self._warn(context, f"the model does not run: {error}")
            return False

        for value, shape in shapes.items():
            if isinstance(value.type, TensorType):
                value.type = replace(value.type, assumed=shape)
        context.remark(self, f"estimates count with {_sizes_text(model, shapes)}")
        return bool(shapes)

    def _warn(self, context: Context, problem: str) -> None:
        text = f"open dimensions count as 1, because {problem}"
        context.remark(self, text, warning=True)


def _sizes_text(model: Model, shapes: Mapping[Value, tuple[int, ...]]) -> str:
    """Word how large the open dimensions of inputs are."""
    words: list[str] = []
    for dim in open_dims(required_inputs(model.entry)):
        if dim.value in shapes:
            words.append(f"{dim.name}={shapes[dim.value][dim.axis]}")
    return ", ".join(words) or "one run of the model, whose inputs leave nothing open"
