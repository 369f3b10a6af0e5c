"""quantize-boundary: float tensors cross a boundary as integers of 2 to 8 bits."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irsplit.boundary.agreement import agreement
from irsplit.boundary.ranges import METHODS, quantization, signal_to_noise_db
from irsplit.boundary.train import channel_axis
from irsplit.errors import PassError
from irsplit.ir import Model
from irsplit.passes.base import Context, Samples, channel_layout
from irsplit.passes.boundaries import sends, set_specs, specs
from irsplit.runtime import frame
from irsplit.runtime.boundary import Boundary, TensorSpec
from irsplit.runtime.static_model import FLAT

FEWEST_BITS, MOST_BITS = 2, 8


@dataclass(frozen=True)
class QuantizeBoundary:
    """Affine quantization over the range seen in calibration; integers, and floats beyond the range, cross exactly.

    `bits` are fixed unless there is a target. `snr` (dB) takes for every tensor the fewest bits that reach it on the
    calibration data; `agreement` (0 to 1) the fewest bits for all with which the outputs of the whole model, through
    the real far side, have their largest element in the same place as without quantization. `range` is min-max,
    percentile, mse or entropy; `per-channel` gives every channel a range of its own. Raises PassError without
    calibration data, and when 8 bits miss the target.
    """

    name: ClassVar[str] = "quantize-boundary"
    bits: int = 8
    snr: float = 0.0
    agreement: float = 0.0
    range: str = "min-max"
    per_channel: bool = False
    clip: bool = False

    def run(self, model: Model, context: Context) -> bool:
        self._check()
        before = [(send, specs(send)) for _, send in sends(model)]
        samples = context.samples(model)
        for _, crossing in before:
            self._check_samples(crossing, samples)
        layout = channel_layout(model)
        if self.snr:
            chosen = [[self._by_snr(spec, samples, layout) for spec in crossing] for _, crossing in before]
        else:
            bits = self._by_agreement(model, context, samples, layout) if self.agreement else self.bits
            chosen = [[self.quantized(spec, samples, layout, bits) for spec in crossing] for _, crossing in before]
        changed = [set_specs(send, new) for (send, _), new in zip(before, chosen, strict=True)]
        if self.snr or self.agreement:
            self._remark_bits([spec for crossing in chosen for spec in crossing], context)
        return any(changed)

    def _remark_bits(self, chosen: Sequence[TensorSpec], context: Context) -> None:
        for spec in chosen:
            if spec.quantization is not None:
                context.remark(self, f"%{spec.name} crosses in {spec.quantization.bits} bits")

    def _check(self) -> None:
        if not FEWEST_BITS <= self.bits <= MOST_BITS:
            raise PassError(f"pass '{self.name}': {self.bits} bits; use {FEWEST_BITS} to {MOST_BITS}")
        if self.range not in METHODS:
            raise PassError(f"pass '{self.name}': unknown range '{self.range}'; known: {', '.join(METHODS)}")
        if self.snr and self.agreement:
            raise PassError(f"pass '{self.name}': give one target, snr or agreement")
        if not 0 <= self.agreement <= 1:
            raise PassError(f"pass '{self.name}': agreement {self.agreement} is a share, 0 to 1")

    def _check_samples(self, crossing: Sequence[TensorSpec], samples: Mapping[str, Samples]) -> None:
        missing = next((spec for spec in crossing if _wants(spec) and not samples.get(spec.name)), None)
        if missing is not None:
            raise PassError(
                f"pass '{self.name}' has no calibration data for %{missing.name}; "
                "give calibration inputs (--calibration) or keep the boundary lossless"
            )

    def quantized(self, spec: TensorSpec, samples: Mapping[str, Samples], layout: str, bits: int) -> TensorSpec:
        """The spec of a float tensor in so many bits, by its samples; another one as it is."""
        if not _wants(spec):
            return spec
        axis = channel_axis(spec, layout) if self.per_channel else FLAT
        per_channel = axis if axis != FLAT and spec.shape[axis] is not None else None
        q = quantization(
            _as_floats(spec, samples[spec.name]), bits, method=self.range, axis=per_channel, outliers=not self.clip
        )
        return dataclasses.replace(spec, quantization=q)

    def _by_snr(self, spec: TensorSpec, samples: Mapping[str, Samples], layout: str) -> TensorSpec:
        if not _wants(spec):
            return spec
        arrays = samples[spec.name]

        def reaches(bits: int) -> bool:
            found = [_roundtrip(self.quantized(spec, samples, layout, bits), array) for array in arrays]
            return signal_to_noise_db(_as_floats(spec, arrays), _as_floats(spec, found)) >= self.snr

        return self.quantized(
            spec, samples, layout, self._fewest(reaches, f"%{spec.name} does not reach {self.snr} dB")
        )

    def _by_agreement(self, model: Model, context: Context, samples: Mapping[str, Samples], layout: str) -> int:
        if context.evaluate is None:
            raise PassError(f"pass '{self.name}': an agreement is measured on calibration inputs; give some")
        expected = context.evaluate(model)
        before = [(send, specs(send)) for _, send in sends(model)]

        def reaches(bits: int) -> bool:
            for send, crossing in before:
                set_specs(send, [self.quantized(spec, samples, layout, bits) for spec in crossing])
            try:
                found = evaluate(model)
                return agreement(_flat(expected, expected), _flat(expected, found)) >= self.agreement
            finally:
                for send, crossing in before:
                    set_specs(send, crossing)

        evaluate = context.evaluate
        return self._fewest(reaches, f"the outputs do not agree in {self.agreement:.2%} of the cases")

    def _fewest(self, reaches: Callable[[int], bool], failure: str) -> int:
        """The fewest bits that reach a target, which more bits reach the better. Raises PassError when 8 do not."""
        if not reaches(MOST_BITS):
            raise PassError(f"pass '{self.name}': {failure} in 8 bits; lower the target or keep the boundary lossless")
        low, high = FEWEST_BITS, MOST_BITS
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle + 1, high)
        return high


def _flat(expected: Sequence[Mapping[str, object]], others: Sequence[Mapping[str, object]]) -> list[object]:
    """The outputs of all calls in one list, in the order of the expected ones."""
    return [other[name] for call, other in zip(expected, others, strict=True) for name in call]


def _wants(spec: TensorSpec) -> bool:
    return spec.dtype in ("f32", "f16", "bf16") and spec.quantization is None


def _as_floats(spec: TensorSpec, arrays: Samples) -> list[np.ndarray]:
    """bfloat16 travels as its upper 16 bits of an f32."""
    if spec.dtype == "bf16":
        return [(np.asarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32) for array in arrays]
    return [np.asarray(array, np.float32) for array in arrays]


def _roundtrip(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    boundary = Boundary(0, spec.name, (dataclasses.replace(spec, codec="raw", parameters=b"", chunk=0),))
    return frame.decode(boundary, frame.encode(boundary, [array]))[0]
