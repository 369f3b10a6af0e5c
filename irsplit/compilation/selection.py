"""Which passes a compilation runs, and the cut that is taken where nobody names one."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from irsplit.base.errors import CutError
from irsplit.compilation.options import CompileOptions
from irsplit.ir import Graph, Model
from irsplit.passes import Context, Cut, Pipeline, Remark
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.dims import unsized
from irsplit.passes.base import Pass
from irsplit.passes.check_boundary import CheckBoundary
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.compress_boundary import CompressBoundary
from irsplit.passes.partition import Partition
from irsplit.passes.preparation import preparation
from irsplit.passes.prune_buffers import PruneBuffers
from irsplit.passes.remove_unused import RemoveUnused
from irsplit.passes.targets import bits_of, quantization_passes

_NEARLY_ALL = 0.99
"""Share of the multiply-accumulates from which on a cut leaves the server next to nothing to do."""


def passes_before(options: CompileOptions, assumed: Sequence[str]) -> Pipeline:
    """The passes that run before cuts are looked for.

    Args:
        options: What the user asked for.
        assumed: Sizes of open dimensions, "NAME=N", where the options name none.
    """
    if options.pipeline:
        return Pipeline(())
    return preparation(
        tuple(options.state),
        tuple(options.dims),
        assumed=assumed,
        rematerialise=options.rematerialise,
    )


def passes_after(options: CompileOptions, model: Model, context: Context) -> Pipeline:
    """The passes that choose the cut, make it, and code what crosses it.

    Args:
        options: What the user asked for.
        model: The model, after `passes_before` ran.
        context: What those passes found out.

    Raises:
        ParseError: The text of the pipeline has a mistake.
        CutError: No cut is named or planned, and none sends less than the inputs.
    """
    if options.pipeline:
        return Pipeline.parse(options.pipeline)
    chooser = options.chooser()
    if options.cuts:
        return Pipeline(_passes_at(tuple(options.cuts), options))
    if chooser is not None:
        return Pipeline((chooser, *_passes_at((), options)))
    cut = _default_cut(model, context, options.max_tensors)
    return Pipeline(_passes_at((cut.id,), options))


def _passes_at(cuts: tuple[str, ...], options: CompileOptions) -> tuple[Pass, ...]:
    """The passes that cut at `cuts`, or where a pass before them chose."""
    # Only a plan knows over which link the codec "auto" has to be the fastest.
    link = "" if cuts or options.codec != "auto" else options.link
    quantizing = quantization_passes(
        options.quantize, in_graph=options.boundary_ops, measure=options.agreement_measure
    )
    return (
        Partition(cuts, options.max_tensors, tuple(options.places)),
        RemoveUnused(),
        PruneBuffers(),
        *quantizing,
        CompressBoundary(options.codec, link=link),
        CheckBoundary(),
    )


def preparation_of(pipeline: Pipeline) -> Pipeline:
    """The passes of a compilation that came before cuts were looked for."""
    before = takewhile(lambda pass_: not isinstance(pass_, ChooseCut | Partition), pipeline.passes)
    return Pipeline(tuple(before))


def conditions_of(passes: Pipeline, chooser: ChooseCut | None = None) -> ChooseCut:
    """What a report begins with: the profiles that were planned for, and the boundary as made.

    Args:
        passes: The passes of a compilation.
        chooser: The plan that was asked for; by default the one among the passes.
    """
    chosen = chooser or ChooseCut()
    codec, max_tensors = "raw", 1
    for pass_ in passes.passes:
        if isinstance(pass_, ChooseCut) and chooser is None:
            chosen = pass_
        if isinstance(pass_, Partition):
            max_tensors = pass_.max_tensors
        if isinstance(pass_, CompressBoundary):
            codec = pass_.codec

    return replace(
        chosen,
        codec=chosen.codec or codec,
        bits=chosen.bits or bits_of(passes.passes),
        max_tensors=max(max_tensors, chosen.max_tensors),
    )


def _default_cut(model: Model, context: Context, max_tensors: int) -> Cut:
    """The cut with the smallest boundary; a remark says where that is a poor choice or a guess."""
    cut = smallest_boundary(model.entry, context.cuts(model, max_tensors))
    if open_dims := unsized(model.entry):
        text = (
            f"cut {cut.id} sends the fewest bytes if {', '.join(open_dims)} are 1; say how large "
            "they are with `dims`"
        )
        context.remarks.append(Remark("compile", text))
    if cut.macs_share is not None and cut.macs_share > _NEARLY_ALL:
        text = (
            f"cut {cut.id} sends the fewest bytes, and {100 * cut.macs_share:.1f} % of the "
            "multiply-accumulates come before it; choose another with `cuts`, or by time with "
            "`device` (see `irsplit.plan`)"
        )
        context.remarks.append(Remark("compile", text))
    return cut


def smallest_boundary(graph: Graph, cuts: Sequence[Cut]) -> Cut:
    """The legal cut that sends the fewest bytes; the latest one if several do.

    A cut that sends no less than the model's inputs is no gain, and is refused, unless open
    dimensions other than the batch leave the sizes unknown.

    Args:
        graph: The entry graph of the model.
        cuts: Its positions, legal or not.

    Raises:
        CutError: No cut is legal, or none sends less than the inputs.
    """
    legal = [cut for cut in cuts if cut.legal]
    if not legal:
        reason = (
            f"; the first position: {cuts[0].reason}" if cuts else ": it has fewer than two nodes"
        )
        raise CutError(
            f"the model has no legal cut{reason}",
            remedy="see `irsplit.find_cuts`, or allow more with `max_tensors`",
        )

    best = min(reversed(legal), key=lambda cut: cut.estimated_bytes)
    input_bytes = estimated_bytes([value for value in graph.inputs if value.constant is None])
    if best.estimated_bytes >= input_bytes and not unsized(graph):
        raise CutError(
            f"no legal cut sends less than the inputs ({input_bytes} bytes): the smallest is "
            f"{best.id} with {best.estimated_bytes} bytes",
            remedy="choose one with `cuts`, or send the inputs and run everything on the server",
        )
    return best
