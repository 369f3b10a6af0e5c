"""What the ways to send a tensor cost: as measured, or else by the published ratios and speeds of the codecs."""

from collections.abc import Mapping
from fractions import Fraction

from irsplit.ir import TensorType, Value
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.planning.stages import Stages
from irsplit.profiles import CodecSpeed, codec_estimates
from irsplit.profiles.measured import MeasuredTransfer

_FLOATS = {"f32": 4, "f16": 2, "bf16": 2}
_EIGHT_BITS = ("i8", "u8")
_OF_INPUTS = ("raw", "zstandard")  # what the baselines send, whatever codes the boundary

Speeds = Mapping[str, CodecSpeed]
Codings = Mapping[str, tuple[MeasuredTransfer, ...]]


def codings(
    parts: Stages, codec: str, bits: int, here: Speeds, there: Speeds, measured: Codings
) -> Codings:
    """Ways to send every boundary tensor and input: those of `codec`, a name or `auto` for the best of all.

    `bits` is the width to which floats are quantized at the boundary, 0 when they are not; what was measured is of
    tensors as they are. `here` encodes and `there` decodes at the speeds of their profiles.
    """
    crossing = crossing_values(parts)
    wanted = ("raw", *codec_estimates()) if codec == "auto" else (codec,)
    found: dict[str, tuple[MeasuredTransfer, ...]] = {}
    for value in crossing:
        narrowed = bits if dtype_name(value) in _FLOATS else 0
        known = (
            {} if narrowed else {coding.codec: coding for coding in measured.get(value.name, ())}
        )
        found[value.name] = tuple(
            known.get(name) or estimate(value, name, narrowed, here, there) for name in wanted
        )
    for value in parts.plan.inputs:
        known = {coding.codec: coding for coding in measured.get(value.name, ())}
        names = dict.fromkeys((*_OF_INPUTS, *wanted))
        found[value.name] = tuple(
            known.get(name) or estimate(value, name, 0, here, there) for name in names
        )
    return found


def crossing_values(parts: Stages) -> list[Value]:
    """Everything that crosses at one of the cuts."""
    return list(dict.fromkeys(value for cut in parts.cuts for value in cut.boundary))


def estimate(value: Value, codec: str, bits: int, here: Speeds, there: Speeds) -> MeasuredTransfer:
    """A tensor in a codec by the published ratio of its type; floats in `bits` bits shrink as 8-bit tensors do.

    A codec without figures, raw above all, neither shrinks anything nor takes time.
    """
    raw, dtype = estimated_bytes([value]), dtype_name(value)
    kind, size = ("eight_bits", raw // _FLOATS[dtype]) if bits else (dtype, raw)
    kind = "eight_bits" if kind in _EIGHT_BITS else kind
    known = codec_estimates().get(codec)
    if known is None:
        return MeasuredTransfer(codec, size, 0, 0)
    ratio = known.ratios.get(kind, Fraction(1)) * (Fraction(8, bits) if bits else 1)
    encode = raw * 10**9 // here.get(codec, known.speed).encode_bytes_s
    decode = raw * 10**9 // there.get(codec, known.speed).decode_bytes_s
    return MeasuredTransfer(codec, -(-size * ratio.denominator // ratio.numerator), encode, decode)


def dtype_name(value: Value) -> str:
    """The element type of a tensor; nothing for other values."""
    return value.type.dtype.name if isinstance(value.type, TensorType) else ""
