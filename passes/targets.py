"""What `--quantize` says, and the passes that do it: lossless, int8, agreement=0.99, with options behind."""

from collections.abc import Sequence
from dataclasses import replace

from irsplit.base.errors import CutError
from irsplit.codec_training.ranges import METHODS
from irsplit.passes.base import Pass
from irsplit.passes.boundary_ops import BoundaryOps
from irsplit.passes.quantize_boundary import QuantizeBoundary

TARGETS = ("lossless", "int8", "int6", "int4", "agreement=SHARE", "snr=DECIBELS")
"""What `boundary` may say first."""

TARGET_OPTIONS = ("range=METHOD", "per-channel", "clip")
"""What may follow, with commas: how a quantized tensor's range is found (see quantize-boundary). After a target in
numbers, the other one may follow too: agreement=0.98,snr=20."""


def quantization_passes(
    boundary: str, *, in_graph: bool = False, measure: str = ""
) -> tuple[Pass, ...]:
    """The passes before compress-boundary for one of TARGETS with TARGET_OPTIONS.

    `measure` says how an agreement reads outputs. Raises CutError for anything else, and for a measure without an
    agreement to measure.
    """
    target, *words = boundary.split(",")
    if measure and not any(word.startswith("agreement=") for word in (target, *words)):
        raise CutError(
            f"an agreement measure ('{measure}') has no effect without agreement=SHARE; give it as boundary"
        )
    if target == "lossless" and not words and not in_graph:
        return ()
    if target == "lossless":
        what = f"'{words[0]}'" if words else "operators at the boundary"
        raise CutError(
            f"boundary 'lossless' quantizes nothing, and {what} would have no effect; give int8 or a target"
        )
    quantize = _target(target)
    for word in words:
        quantize = _with_option(quantize, word)
    quantize = replace(quantize, measure=measure)
    return (replace(quantize, clip=True), BoundaryOps()) if in_graph else (quantize,)


def boundary_bits(boundary: str) -> int:
    """Bits in which floats cross a boundary, 0 when they are not quantized; 8, the most, where a target decides."""
    return bits_of(quantization_passes(boundary))


def bits_of(passes: Sequence[Pass]) -> int:
    return next((pass_.bits for pass_ in passes if isinstance(pass_, QuantizeBoundary)), 0)


def _target(text: str) -> QuantizeBoundary:
    """What one of TARGETS means."""
    if text in ("int8", "int6", "int4"):
        return QuantizeBoundary(bits=int(text[3:]))
    found = _with_number(QuantizeBoundary(), text)
    if found is None:
        raise CutError(f"unknown boundary '{text}'; give one of {', '.join(TARGETS)}")
    return found


def _with_number(quantize: QuantizeBoundary, text: str) -> QuantizeBoundary | None:
    """With a target in numbers; None for anything else."""
    kind, _, number = text.partition("=")
    try:
        if kind == "agreement":
            return replace(quantize, agreement=float(number))
        if kind == "snr":
            return replace(quantize, snr=float(number))
    except ValueError:
        pass
    return None


def _with_option(quantize: QuantizeBoundary, text: str) -> QuantizeBoundary:
    key, _, value = text.partition("=")
    if (quantize.agreement or quantize.snr) and (found := _with_number(quantize, text)) is not None:
        return found
    if key == "range" and value in METHODS:
        return replace(quantize, range=value)
    if text == "per-channel":
        return replace(quantize, per_channel=True)
    if text == "clip":
        return replace(quantize, clip=True)
    raise CutError(
        f"unknown option '{text}' of the boundary; known: {', '.join(TARGET_OPTIONS)} with METHOD one of "
        f"{', '.join(METHODS)}"
    )
