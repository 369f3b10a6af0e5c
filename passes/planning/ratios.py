"""The size of boundary tensors in each codec, measured on calibration samples before planning."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from irsplit.codec_training.codec import draft, frame_bytes, held_out
from irsplit.codec_training.symbols import supports
from irsplit.ir import TensorType, Type, Value
from irsplit.passes.analysis.cut import Cut, estimated_bytes
from irsplit.passes.base import Samples
from irsplit.passes.compress_boundary import as_framed, plain
from irsplit.passes.planning.prices import OptionsByTensor, crossing_values, dtype_name
from irsplit.passes.planning.stages import Stages
from irsplit.passes.quantize_boundary import QuantizeBoundary
from irsplit.passes.send_attributes import spec_of
from irsplit.profiles.measured import MeasuredTransfer
from irsplit.runtime.frame.descriptor import TensorSpec

MOST_CUTS = 32
"""Number of cuts whose tensors are measured, the best ones by published ratios. The sizes of other
tensors are corrected by what the measured ones show."""
MOST_CALLS = 8
"""Number of samples that are looked at."""
MOST_BYTES = 1 << 28
"""Bytes of all samples together. More bytes mean fewer samples, but at least one."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Measured sizes of tensors in frames.

    Attributes:
        bits: The width to which floats were quantized; 0 if they were not.
        calls: The number of calibration samples.
        sizes: Mean bytes of a frame, by tensor name and codec.
        corrections: How many times larger frames are than published ratios say, by codec and
            element type: the geometric mean over the measured tensors. For all other tensors.
    """

    bits: int
    calls: int
    sizes: Mapping[tuple[str, str], int]
    corrections: Mapping[tuple[str, str], float]

    @property
    def tensors(self) -> int:
        """The number of measured tensors."""
        return len({name for name, _ in self.sizes})

    def applied(self, stages: Stages, published: OptionsByTensor) -> OptionsByTensor:
        """Replace published sizes by measured ones.

        Args:
            stages: The stages whose cuts have the boundaries.
            published: Transfer options of all their boundary tensors and graph inputs.

        Returns:
            The same options with measured or corrected sizes.
        """
        options: dict[str, tuple[MeasuredTransfer, ...]] = {}
        for value in (*crossing_values(stages), *stages.plan.inputs):
            options[value.name] = tuple(
                self._applied(value, option) for option in published[value.name]
            )
        return options

    def _applied(self, value: Value, option: MeasuredTransfer) -> MeasuredTransfer:
        """One option with its measured size, or else with its corrected one."""
        size = self.sizes.get((value.name, option.codec))
        if size is None:
            correction = self.corrections.get((option.codec, dtype_name(value)), 1.0)
            size = round(option.size_bytes * correction)
        return replace(option, size_bytes=size)

    def to_json(self) -> dict[str, int]:
        """What was measured, as numbers for manifests and reports."""
        return {"tensors": self.tensors, "calls": self.calls, "bits": self.bits}


def candidates(cuts: Iterable[Cut], inputs: Iterable[Value]) -> list[Value]:
    """The tensors to measure.

    Args:
        cuts: Cuts, the best first; the first MOST_CUTS of them are looked at.
        inputs: The inputs of the model.

    Returns:
        The boundary tensors of these cuts and the inputs, as far as frames can carry them.
    """
    values: dict[Value, None] = {}
    for cut in islice(cuts, MOST_CUTS):
        values.update(dict.fromkeys(cut.boundary))
    values.update(dict.fromkeys(inputs))
    return [value for value in values if _is_framable(value.type)]


def _is_framable(type: Type | None) -> bool:
    """Whether a frame can carry a value of this type."""
    return isinstance(type, TensorType) and type.dtype.framable and type.shape is not None


def sample_count(values: Sequence[Value]) -> int:
    """The number of samples of these values that stays within MOST_CALLS and MOST_BYTES."""
    return max(1, min(MOST_CALLS, MOST_BYTES // max(1, estimated_bytes(values))))


def measured_ratios(
    values: Sequence[Value],
    inputs: Collection[Value],
    published: OptionsByTensor,
    samples: Mapping[str, Samples],
    bits: int,
    layout: str,
) -> Ratios:
    """Measure the frames of tensors in all codecs that could carry them.

    Args:
        values: The tensors, from `candidates`.
        inputs: The inputs of the model, which are never quantized.
        published: Transfer options by published ratios; each names a codec to measure.
        samples: The arrays of every tensor, by name.
        bits: The width to which floats are quantized; 0 if they are not. Quantization covers the
            whole range of the samples.
        layout: Where images have their channels: NCHW or NHWC.

    Returns:
        The sizes. static-rans is trained briefly (see `codec_training.codec.draft`).
    """
    sizes: dict[tuple[str, str], int] = {}
    factors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for value in values:
        is_input = value in inputs
        spec = spec_of(value)
        if bits and not is_input:
            spec = QuantizeBoundary(bits).quantized(value, samples, layout)

        # The codec is trained on some samples and measured on the others.
        training, held = held_out(as_framed(spec, samples[value.name]))
        for option in published[value.name]:
            size = frame_bytes(_with_codec(spec, option.codec, training, layout), held)
            sizes[value.name, option.codec] = size
            if not is_input:
                factors[option.codec, spec.dtype].append(size / max(1, option.size_bytes))

    # Inputs do not count above: their values are not distributed like those of a boundary.
    corrections = {key: float(np.exp(np.mean(np.log(ratios)))) for key, ratios in factors.items()}
    calls = max((len(samples[value.name]) for value in values), default=0)
    return Ratios(bits, calls, sizes, corrections)


def _with_codec(spec: TensorSpec, codec: str, samples: Samples, layout: str) -> TensorSpec:
    """The spec as compress-boundary would make it, but briefly trained."""
    if codec != "static-rans":
        return plain(spec, codec)
    if not supports(spec) or not samples[0].size:
        return plain(spec, "zstandard")
    return draft(samples, spec, layout=layout)
