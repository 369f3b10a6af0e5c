"""What boundary tensors take in each codec: tried on calibration samples before the cut is chosen."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irsplit.codec_training.codec import draft, frame_bytes, held_out
from irsplit.codec_training.symbols import supports
from irsplit.ir import TensorType, Type, Value
from irsplit.passes.analysis.cut import Cut, estimated_bytes
from irsplit.passes.base import Samples
from irsplit.passes.compress_boundary import as_framed, plain
from irsplit.passes.planning.prices import Codings, crossing_values, dtype_name
from irsplit.passes.planning.stages import Stages
from irsplit.passes.quantize_boundary import QuantizeBoundary
from irsplit.passes.send_attributes import spec_of
from irsplit.profiles.measured import MeasuredTransfer
from irsplit.runtime.frame.descriptor import TensorSpec

MOST_CUTS = 32
"""Cuts whose tensors are tried: the best ones by published ratios. Others are corrected by what is found on these."""
MOST_CALLS = 8
MOST_BYTES = 1 << 28
"""Of all samples together: fewer calls are looked at where more would not fit, one at least."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Mean bytes of a frame by tensor and codec, on so many calibration calls, where floats cross in `bits` bits.

    `corrections` say by codec and element type how many times larger frames are than the published ratios have it, the
    geometric mean of all tensors that were tried: for those that were not.
    """

    bits: int
    calls: int
    sizes: Mapping[tuple[str, str], int]
    corrections: Mapping[tuple[str, str], float]

    @property
    def tensors(self) -> int:
        """How many were tried."""
        return len({name for name, _ in self.sizes})

    def applied(self, parts: Stages, published: Codings) -> Codings:
        """The ways to send every boundary tensor and input, with measured sizes in place of the published ones."""
        values = (*crossing_values(parts), *parts.plan.inputs)
        return {
            value.name: tuple(self._applied(value, way) for way in published[value.name])
            for value in values
        }

    def _applied(self, value: Value, way: MeasuredTransfer) -> MeasuredTransfer:
        size = self.sizes.get((value.name, way.codec))
        if size is None:
            size = round(way.size_bytes * self.corrections.get((way.codec, dtype_name(value)), 1.0))
        return replace(way, size_bytes=size)

    def to_json(self) -> dict[str, int]:
        return {"tensors": self.tensors, "calls": self.calls, "bits": self.bits}


def candidates(cuts: Iterable[Cut], inputs: Iterable[Value]) -> list[Value]:
    """What to try: all that crosses at the first MOST_CUTS cuts, the best first, and the model's inputs."""
    best = [cut for cut, _ in zip(cuts, range(MOST_CUTS), strict=False)]
    values = dict.fromkeys([*(value for cut in best for value in cut.boundary), *inputs])
    return [value for value in values if _framable(value.type)]


def _framable(type: Type | None) -> bool:
    return isinstance(type, TensorType) and type.dtype.framable and type.shape is not None


def calls_wanted(values: Sequence[Value]) -> int:
    """How many calls to look at, so that the samples of these values fit."""
    return max(1, min(MOST_CALLS, MOST_BYTES // max(1, estimated_bytes(values))))


def measured_ratios(
    values: Sequence[Value],
    inputs: Collection[Value],
    published: Codings,
    samples: Mapping[str, Samples],
    bits: int,
    layout: str,
) -> Ratios:
    """Frames of every value in the codecs that `published` has for it; floats but those of `inputs` in `bits` bits.

    static-rans is trained in short (see `draft`), and quantization covers the whole range.
    """  # fmt: skip
    sizes: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for value in values:
        lossy = bits and value not in inputs
        spec = QuantizeBoundary(bits).quantized(value, samples, layout) if lossy else spec_of(value)
        fitted, held = held_out(as_framed(spec, samples[value.name]))
        for way in published[value.name]:
            size = frame_bytes(_coded(spec, way.codec, fitted, layout), held)
            sizes[value.name, way.codec] = size
            if value not in inputs:
                found[way.codec, spec.dtype].append(size / max(1, way.size_bytes))
    corrections = {key: float(np.exp(np.mean(np.log(ratios)))) for key, ratios in found.items()}
    calls = max((len(samples[value.name]) for value in values), default=0)
    return Ratios(bits, calls, sizes, corrections)


def _coded(spec: TensorSpec, codec: str, samples: Samples, layout: str) -> TensorSpec:
    """The spec as compress-boundary would make it, trained in short."""
    if codec != "static-rans":
        return plain(spec, codec)
    trains = supports(spec) and samples[0].size
    return draft(samples, spec, layout=layout) if trains else plain(spec, "zstandard")
