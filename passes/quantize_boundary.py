"""quantize-boundary: float tensors cross a boundary as 8-bit integers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irsplit.dtypes import BY_NAME
from irsplit.errors import PassError
from irsplit.ir import Model
from irsplit.passes.base import Context, Samples
from irsplit.passes.boundaries import sends, set_specs, specs
from irsplit.runtime.boundary import Quantization, TensorSpec


@dataclass(frozen=True)
class QuantizeBoundary:
    """Affine quantization per tensor over the range seen in calibration; integers cross as they are.

    Raises PassError for a float tensor without calibration data.
    """

    name: ClassVar[str] = "quantize-boundary"
    bits: int = 8

    def run(self, model: Model, context: Context) -> bool:
        if not 2 <= self.bits <= 8:
            raise PassError(f"pass '{self.name}': {self.bits} bits; use 2 to 8")
        samples = context.samples(model)
        changes = [(send, [self._quantized(spec, samples) for spec in specs(send)]) for _, send in sends(model)]
        changed = [set_specs(send, quantized) for send, quantized in changes]
        return any(changed)

    def _quantized(self, spec: TensorSpec, samples: Mapping[str, Samples]) -> TensorSpec:
        if not BY_NAME[spec.dtype].is_float or spec.quantization is not None:
            return spec
        if not samples.get(spec.name):
            raise PassError(
                f"pass '{self.name}' has no calibration data for %{spec.name}; "
                "give calibration inputs or keep the boundary lossless"
            )
        return dataclasses.replace(spec, quantization=full_range(samples[spec.name], self.bits))


def full_range(samples: Samples, bits: int = 8) -> Quantization:
    """Asymmetric quantization to `bits` bits over the range of the finite samples, zero exactly representable."""
    finite = [array[np.isfinite(array)] for array in samples]
    low = min((float(array.min()) for array in finite if array.size), default=0.0)
    high = max((float(array.max()) for array in finite if array.size), default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    steps = (1 << bits) - 1
    scale = max((high - low) / steps, float(np.finfo(np.float32).tiny))
    lowest = -(1 << (bits - 1))
    zero_point = min(max(round(lowest - low / scale), lowest), lowest + steps)
    return Quantization((scale,), (zero_point,), "i8", bits)
