"""What comes before cuts are looked for, the same for every command: so that all see one list of cuts."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irsplit.dialects.base import Dialect
from irsplit.ir import HeadRole, Model, Node
from irsplit.passes.analysis.dims import sizes_of_call
from irsplit.passes.assume_sizes import AssumeSizes
from irsplit.passes.base import Context, Pass
from irsplit.passes.bind_state import BindState
from irsplit.passes.pipeline import Pipeline
from irsplit.passes.rematerialise import Rematerialise

if TYPE_CHECKING:
    from numpy.typing import NDArray


def preparation(
    state: Sequence[str] = (),
    dim: Sequence[str] = (),
    *,
    assumed: Sequence[str] = (),
    rematerialise: bool = True,
) -> Pipeline:
    """The passes that come before cuts are looked for; `state` and `dim` as bind-state and assume-sizes take them.

    Without `dim`, estimates count with what is `assumed`; states do not begin with it.
    """
    sizes: tuple[Pass, ...] = (AssumeSizes(tuple(dim or assumed)),) if dim or assumed else ()
    binding: tuple[Pass, ...] = (BindState(tuple(state), tuple(dim)),) if state else ()
    return Pipeline((*sizes, *binding, *((Rematerialise(),) if rematerialise else ())))


def context_of(dialect: Dialect) -> Context:
    """A context with what the dialect knows of its operators."""
    return Context(dialect)


def head_roles(dialect: Dialect) -> Callable[[Node], HeadRole] | None:
    """The dialect's `head_role`; None for a dialect of another package that was written before there was one."""
    return getattr(dialect, "head_role", None)


def prepared(
    model: Model,
    dialect: Dialect,
    state: Sequence[str] = (),
    dim: Sequence[str] = (),
    *,
    calls: Sequence["Mapping[str, NDArray[Any]]"] = (),
    rematerialise: bool = True,
) -> Context:
    """Run `preparation` over the model; the context, which then lists its cuts.

    Without `dim`, sizes are those of the first of the `calls`.
    """
    context = context_of(dialect)
    assumed = sizes_in(model, calls)
    preparation(state, dim, assumed=assumed, rematerialise=rematerialise).run(model, context)
    return context


def sizes_in(model: Model, calls: Sequence["Mapping[str, NDArray[Any]]"]) -> tuple[str, ...]:
    """Sizes of open dimensions as words for assume-sizes: those of the first of some calls, inputs by name."""
    return (
        sizes_of_call(model.entry, {name: array.shape for name, array in calls[0].items()})
        if calls
        else ()
    )
