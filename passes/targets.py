"""What a boundary may be asked for in words, and the passes that do it.

A target is one word, such as lossless, int8 or agreement=0.99, with options behind commas.
"""

from collections.abc import Sequence
from dataclasses import replace

from irsplit.base.errors import CutError
from irsplit.codec_training.ranges import METHODS
from irsplit.passes.base import Pass
from irsplit.passes.boundary_ops import BoundaryOps
from irsplit.passes.quantize_boundary import QuantizeBoundary

TARGETS = ("lossless", "int8", "int6", "int4", "agreement=SHARE", "snr=DECIBELS")
"""What a target may be."""

TARGET_OPTIONS = ("range=METHOD", "per-channel", "clip")
"""What may follow it with commas: how the range of a quantized tensor is found (see
quantize-boundary). After a target in numbers, the other one may follow too:
agreement=0.98,snr=20."""

_WIDTHS = {"int8": 8, "int6": 6, "int4": 4}


def quantization_passes(
    boundary: str, *, in_graph: bool = False, measure: str = ""
) -> tuple[Pass, ...]:
    """Return the passes before compress-boundary that reach a target.

    Args:
        boundary: One of TARGETS, with TARGET_OPTIONS behind it.
        in_graph: Whether operators of the model's format quantize, instead of the frame's codec.
        measure: How an agreement reads outputs; see quantize-boundary.

    Raises:
        CutError: The target or an option is unknown, or one of the arguments has no effect.

    Example:
        >>> from irsplit.passes import Pipeline
        >>> str(Pipeline(quantization_passes("int4,per-channel")))
        'quantize-boundary{bits=4 per-channel=true}'
    """
    target, *options = boundary.split(",")
    if measure and not any(word.startswith("agreement=") for word in (target, *options)):
        raise CutError(
            f"an agreement measure ('{measure}') has no effect without agreement=SHARE; give it "
            "as boundary"
        )

    if target == "lossless":
        if not options and not in_graph:
            return ()
        what = f"'{options[0]}'" if options else "operators at the boundary"
        raise CutError(
            f"boundary 'lossless' quantizes nothing, and {what} would have no effect; give int8 or "
            "a target"
        )

    quantize = _quantize_for(target)
    for option in options:
        quantize = _with_option(quantize, option)
    quantize = replace(quantize, measure=measure)

    # No outliers can travel beside integers that the graph itself makes.
    return (replace(quantize, clip=True), BoundaryOps()) if in_graph else (quantize,)


def boundary_bits(boundary: str) -> int:
    """Return the bits in which floats cross for a target.

    They are 0 when floats are not quantized, and 8, the most, where the target decides.
    """
    return bits_of(quantization_passes(boundary))


def bits_of(passes: Sequence[Pass]) -> int:
    """Return the bits in which passes let floats cross; 0 when none of them quantizes."""
    return next((pass_.bits for pass_ in passes if isinstance(pass_, QuantizeBoundary)), 0)


def _quantize_for(target: str) -> QuantizeBoundary:
    """Return the pass for one of TARGETS that quantizes. Raises CutError for another word."""
    if target in _WIDTHS:
        return QuantizeBoundary(bits=_WIDTHS[target])

    quantize = _with_number(QuantizeBoundary(), target)
    if quantize is None:
        raise CutError(f"unknown boundary '{target}'; give one of {', '.join(TARGETS)}")
    return quantize


def _with_number(quantize: QuantizeBoundary, word: str) -> QuantizeBoundary | None:
    """Return the pass with a target in numbers; None for a word that is no such target."""
    kind, _, text = word.partition("=")
    if kind not in ("agreement", "snr"):
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    if kind == "agreement":
        return replace(quantize, agreement=number)
    return replace(quantize, snr=number)


def _with_option(quantize: QuantizeBoundary, word: str) -> QuantizeBoundary:
    """Return the pass with one more option. Raises CutError for an unknown one."""
    if quantize.agreement or quantize.snr:
        with_both = _with_number(quantize, word)
        if with_both is not None:
            return with_both

    key, _, value = word.partition("=")
    if key == "range" and value in METHODS:
        return replace(quantize, range=value)
    if word == "per-channel":
        return replace(quantize, per_channel=True)
    if word == "clip":
        return replace(quantize, clip=True)
    raise CutError(
        f"unknown option '{word}' of the boundary; known: {', '.join(TARGET_OPTIONS)} with METHOD "
        f"one of {', '.join(METHODS)}"
    )
