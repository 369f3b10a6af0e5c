"""assume-sizes: estimates count with the sizes that a model takes when some of its open dimensions are given."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from irsplit.base.errors import EngineError, UnsupportedError
from irsplit.base.lazy import LazyModule
from irsplit.ir import Model, TensorType, required_inputs
from irsplit.passes.analysis.dims import given_sizes, open_dims
from irsplit.passes.base import Context

if TYPE_CHECKING:
    from irsplit.passes.analysis import observed
else:
    observed = LazyModule("irsplit.passes.analysis.observed")


@dataclass(frozen=True)
class AssumeSizes:
    """Find the sizes of all tensors by one run of the engine, with open dimensions of inputs as `dim` says.

    `dim` is "symbol=320", "in=320" or "in.axis=320"; what it leaves open is as large as the engine takes. Types,
    files and what is a legal cut stay as they are: prices, and what is chosen by them, count with these sizes.
    A model that the engine does not run, or IR text, keeps ones, with a warning.
    """

    name: ClassVar[str] = "assume-sizes"
    dim: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        sizes = given_sizes(self.dim, model.entry)
        if context.dialect is None:
            text = "open dimensions count as 1, because IR text holds nothing that runs; give the model's file"
            context.remark(self, text, warning=True)
            return False
        try:
            shapes = observed.observed_shapes(context.dialect, model, sizes)
        except (
            EngineError,
            UnsupportedError,
        ) as error:  # it runs not, or on nothing that can be made up
            context.remark(
                self,
                f"open dimensions count as 1, because the model does not run: {error}",
                warning=True,
            )
            return False
        for value, shape in shapes.items():
            if isinstance(value.type, TensorType):
                value.type = replace(value.type, assumed=shape)
        said = ", ".join(
            f"{dim.name}={shapes[dim.value][dim.axis]}"
            for dim in open_dims(required_inputs(model.entry))
            if dim.value in shapes
        )
        context.remark(
            self,
            f"estimates count with {said or 'one run of the model, whose inputs leave nothing open'}",
        )
        return bool(shapes)
