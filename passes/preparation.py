"""What comes before cuts are looked for, the same for every command: so that all see one list of cuts."""

from collections.abc import Sequence

from irsplit.dialects.base import Dialect
from irsplit.ir import Model
from irsplit.passes.base import Context, Pass
from irsplit.passes.bind_state import BindState
from irsplit.passes.pipeline import Pipeline
from irsplit.passes.rematerialise import Rematerialise


def preparation(state: Sequence[str] = (), dim: Sequence[str] = (), *, rematerialise: bool = True) -> Pipeline:
    """The passes that come before cuts are looked for; `state` and `dim` as bind-state takes them."""
    binding: tuple[Pass, ...] = (BindState(tuple(state), tuple(dim)),) if state or dim else ()
    return Pipeline((*binding, Rematerialise()) if rematerialise else binding)


def context_of(dialect: Dialect) -> Context:
    """A context with what the dialect knows of its operators."""
    return Context(dialect.macs, dialect.is_cheap, dialect.is_shape, dialect.affine, summed=dialect.summed)


def prepared(model: Model, dialect: Dialect, state: Sequence[str] = (), *, rematerialise: bool = True) -> Context:
    """Run `preparation` over the model; the context, which then lists its cuts."""
    context = context_of(dialect)
    preparation(state, rematerialise=rematerialise).run(model, context)
    return context
