"""Transfer options of boundary tensors, measured or priced by published ratios and speeds."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from irsplit.ir import TensorType, Value
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.planning.stages import Stages
from irsplit.profiles import CodecSpeed, codec_estimates
from irsplit.profiles.measured import MeasuredTransfer

_FLOATS = {"f32": 4, "f16": 2, "bf16": 2}  # bytes of an element
_EIGHT_BITS = ("i8", "u8")
_CODECS_OF_BASELINES = ("raw", "zstandard")  # for graph inputs, whatever codes the boundary

Speeds = Mapping[str, CodecSpeed]
"""Speeds by codec name."""
OptionsByTensor = Mapping[str, tuple[MeasuredTransfer, ...]]
"""Transfer options by tensor name."""


def transfer_options(
    stages: Stages,
    codec: str,
    bits: int,
    device: Speeds,
    server: Speeds,
    measured: OptionsByTensor,
) -> OptionsByTensor:
    """The options to send every boundary tensor and every graph input.

    Args:
        stages: The stages whose cuts have the boundaries.
        codec: The name of a codec, or `auto` for all that have published figures.
        bits: The width to which floats are quantized at the boundary; 0 if they are not. Graph
            inputs are never quantized.
        device: Speeds at which the device encodes.
        server: Speeds at which the server decodes.
        measured: Measured options, which are of tensors that are not quantized. They take the place
            of published figures.

    Returns:
        Options by tensor name. Graph inputs also have those that the baselines need.
    """
    codecs = ("raw", *codec_estimates()) if codec == "auto" else (codec,)

    def options(value: Value, names: Iterable[str], width: int) -> tuple[MeasuredTransfer, ...]:
        # What was measured does not hold for a tensor that is quantized since.
        by_codec: dict[str, MeasuredTransfer] = {}
        if not width:
            by_codec = {transfer.codec: transfer for transfer in measured.get(value.name, ())}
        return tuple(
            by_codec.get(name) or estimate(value, name, width, device, server) for name in names
        )

    result: dict[str, tuple[MeasuredTransfer, ...]] = {}
    for value in crossing_values(stages):
        width = bits if dtype_name(value) in _FLOATS else 0
        result[value.name] = options(value, codecs, width)
    for value in stages.plan.inputs:
        result[value.name] = options(value, dict.fromkeys((*_CODECS_OF_BASELINES, *codecs)), 0)
    return result


def crossing_values(stages: Stages) -> list[Value]:
    """The values that cross at one cut or more, each once, in the order of the cuts."""
    values: dict[Value, None] = {}
    for cut in stages.cuts:
        values.update(dict.fromkeys(cut.boundary))
    return list(values)


def estimate(
    value: Value, codec: str, bits: int, device: Speeds, server: Speeds
) -> MeasuredTransfer:
    """Price one tensor in one codec by the published ratio of its element type.

    Floats that are quantized shrink to `bits` bits first, and then as tensors of 8 bits do. A codec
    without published figures, such as `raw`, neither shrinks the tensor nor takes time.

    Args:
        value: The tensor.
        codec: The name of the codec.
        bits: The width to which floats are quantized; 0 if they are not.
        device: Speeds at which the device encodes; a missing codec has its published speed.
        server: Speeds at which the server decodes; a missing codec has its published speed.

    Returns:
        Bytes in a frame, and nanoseconds to encode and decode.
    """
    # The bytes that the codec starts from, and the type whose published ratio applies to them.
    raw_bytes, dtype = estimated_bytes([value]), dtype_name(value)
    size_bytes, kind = raw_bytes, dtype
    if bits:
        size_bytes = raw_bytes // _FLOATS[dtype]
    if bits or dtype in _EIGHT_BITS:
        kind = "eight_bits"

    published = codec_estimates().get(codec)
    if published is None:
        return MeasuredTransfer(codec, size_bytes, 0, 0)

    # A type without a ratio, such as 64-bit integers, is taken to travel as it is.
    ratio = published.ratios.get(kind, Fraction(1))
    if bits:
        ratio *= Fraction(8, bits)
    coded_bytes = -(-size_bytes * ratio.denominator // ratio.numerator)  # rounded up
    encode_ns = raw_bytes * 10**9 // device.get(codec, published.speed).encode_bytes_s
    decode_ns = raw_bytes * 10**9 // server.get(codec, published.speed).decode_bytes_s
    return MeasuredTransfer(codec, coded_bytes, encode_ns, decode_ns)


def dtype_name(value: Value) -> str:
    """The element type of a tensor; an empty text for other values."""
    return value.type.dtype.name if isinstance(value.type, TensorType) else ""
