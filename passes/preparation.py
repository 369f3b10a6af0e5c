"""What comes before cuts are looked for, the same for every command: all see one list of cuts."""

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
    """Return the passes that come before cuts are looked for.

    Args:
        state: Pairs of inputs and outputs that are state, as bind-state takes them.
        dim: Sizes of open dimensions, as assume-sizes takes them. Estimates count with them, and
            states begin in them.
        assumed: Sizes with which estimates count where `dim` is empty; states do not begin in them.
        rematerialise: Whether the server side may compute values again instead of receiving them.
    """
    passes: list[Pass] = []
    if dim or assumed:
        passes.append(AssumeSizes(tuple(dim or assumed)))
    if state:
        passes.append(BindState(tuple(state), tuple(dim)))
    if rematerialise:
        passes.append(Rematerialise())
    return Pipeline(tuple(passes))


def context_of(dialect: Dialect) -> Context:
    """Return a context with what the dialect knows of its operators, and without samples."""
    return Context(dialect)


def head_roles(dialect: Dialect | None) -> Callable[[Node], HeadRole] | None:
    """Return the dialect's `head_role`.

    It is None without a dialect, and for one of another package that is older than the method.
    """
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
    """Run `preparation` over the model.

    Args:
        model: A model that is not partitioned; it is changed.
        dialect: Its dialect.
        state: See `preparation`.
        dim: See `preparation`; without it, sizes are those of the first sample.
        calls: Samples of the model's inputs, by name.
        rematerialise: See `preparation`.

    Returns:
        The context of the run, whose `cuts` lists the model's cuts.
    """
    context = context_of(dialect)
    assumed = sizes_in(model, calls)
    preparation(state, dim, assumed=assumed, rematerialise=rematerialise).run(model, context)
    return context


def sizes_in(model: Model, calls: Sequence["Mapping[str, NDArray[Any]]"]) -> tuple[str, ...]:
    """Return the sizes of open dimensions as words for assume-sizes: those of the first sample.

    Args:
        model: The model whose inputs are looked at.
        calls: Samples of its inputs, by name; without any, no sizes are known.
    """
    if not calls:
        return ()
    shapes = {name: array.shape for name, array in calls[0].items()}
    return sizes_of_call(model.entry, shapes)
