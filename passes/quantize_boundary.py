"""quantize-boundary: floats cross a boundary as integers of 2 to 8 bits.

Integers that stand for numbers cross in coarser steps than their own.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irsplit.base.errors import PassError
from irsplit.codec_training.agreement.base import Agreement, OutputHead, measured
from irsplit.codec_training.agreement.measures import check_measure, heads_of
from irsplit.codec_training.agreement.reach import reached_outputs
from irsplit.codec_training.agreement.recognise import View
from irsplit.codec_training.ranges import METHODS, quantization, requantization, signal_to_noise_db
from irsplit.codec_training.train import channel_axis
from irsplit.ir import HeadRole, Model, Node, TensorType, Value
from irsplit.passes.base import Context, Samples, channel_layout
from irsplit.passes.send_attributes import sends, set_specs, spec_of, specs
from irsplit.runtime.frame import frame
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.frame.rans_model import FLAT

FEWEST_BITS, MOST_BITS = 2, 8
LEVELS = tuple(round(2 ** (quarter / 4)) for quarter in range(4 * FEWEST_BITS, 4 * MOST_BITS + 1))
"""The numbers of levels among which a target decides, a quarter of a bit apart."""

_NOTHING = {
    "top1": "no output has rows of several numbers, of which one could be the largest",
    "iou": "label maps are empty",
    "f1": "nothing was detected in any call",
}
"""What it means that a measure had nothing to compare."""


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a boundary; `zero` is the integer that stands for 0, None in other types."""

    spec: TensorSpec
    zero: int | None

    @property
    def quantizable(self) -> bool:
        """Whether it is to be quantized: floats, and integers with a zero."""
        if self.spec.quantization is not None:
            return False
        return self.spec.dtype in ("f32", "f16", "bf16") or self.zero is not None

    def values(self, arrays: Samples) -> list[np.ndarray]:
        """Return the numbers that the elements stand for, up to the scale of integers."""
        if self.spec.dtype != "bf16":
            return [np.asarray(array, np.float32) - (self.zero or 0) for array in arrays]

        # A bfloat16 travels as the upper 16 bits of a float32.
        widened = [np.asarray(array).view(np.uint16).astype(np.uint32) << 16 for array in arrays]
        return [bits.view(np.float32) for bits in widened]


_Boundaries = Sequence[tuple[Node, Sequence[_Tensor]]]
"""Every irsplit.send with its tensors, as they were before the pass."""


@dataclass(frozen=True)
class QuantizeBoundary:
    """Quantize over the range that is seen in samples; floats beyond the range cross exactly.

    A tensor whose type says that its 8-bit integers stand for numbers, as in a quantized TFLite
    model, crosses in coarser steps, or as it is where those would be no coarser than its own. Other
    integers cross exactly.

    * `bits` is the width, unless there is a target.
    * `snr` (dB) is a target: every tensor takes the fewest of LEVELS that reach it on the samples.
    * `agreement` (0 to 1) is a target: all tensors take the fewest of LEVELS with which the outputs
      of the whole model, through the real server side, agree so far with those without
      quantization. Where `snr` is given too, every tensor has to reach it as well: a floor where
      samples are few or easy. Of the outputs that the boundary reaches, the one that agrees least
      counts.
    * `measure` says how outputs are read: top1, iou, f1, an entry point or FILE.py:function.
      Without one, detections and label maps are recognised.
    * `range` is how a range is found: min-max, percentile, mse or entropy.
    * `per-channel` gives every channel a range of its own.
    * `clip` clips what is beyond the range instead of sending it exactly.

    Raises PassError without samples, and when 8 bits miss the target.
    """

    name: ClassVar[str] = "quantize-boundary"
    bits: int = 8
    snr: float = 0.0
    agreement: float = 0.0
    measure: str = ""
    range: str = "min-max"
    per_channel: bool = False
    clip: bool = False

    def run(self, model: Model, context: Context) -> bool:
        """Choose how every tensor crosses, then write all of it into the graphs."""
        self._check()
        before = _boundaries(model)
        samples = context.crossing_samples(model)
        for _, tensors in before:
            self._check_samples(tensors, samples)

        chosen = self._chosen(model, context, before, samples)
        changed = [set_specs(send, new) for (send, _), new in zip(before, chosen, strict=True)]
        if self.snr or self.agreement:
            for (_, tensors), new in zip(before, chosen, strict=True):
                self._remark_steps(tensors, new, context)
        return any(changed)

    def _chosen(
        self,
        model: Model,
        context: Context,
        before: _Boundaries,
        samples: Mapping[str, Samples],
    ) -> list[list[TensorSpec]]:
        """Return how the tensors of every boundary are to cross."""
        layout = channel_layout(model)
        if self.snr and not self.agreement:
            return [
                [self._by_snr(tensor, samples, layout) for tensor in tensors]
                for _, tensors in before
            ]

        levels = 1 << self.bits
        if self.agreement:
            levels = self._levels_by_agreement(model, context, samples, layout)
        return [self._all_coarser(tensors, samples, layout, levels) for _, tensors in before]

    def _remark_steps(
        self, before: Sequence[_Tensor], chosen: Sequence[TensorSpec], context: Context
    ) -> None:
        """Tell what the target decided for each tensor.

        Args:
            before: The tensors of one boundary.
            chosen: How they are to cross, in the same order.
            context: Takes the remarks.
        """
        for tensor, spec in zip(before, chosen, strict=True):
            if not tensor.quantizable:
                continue

            q = spec.quantization
            if q is None:
                text = "crosses as it is: coarser steps than its own miss the target"
            elif tensor.zero is not None:
                text = f"crosses in steps of {max(q.scales):.3g} of its integers"
            else:
                text = f"crosses in {q.bits} bits"
            context.remark(self, f"%{spec.name} {text}")

    def _check(self) -> None:
        """Raise PassError for an option that is out of range or unknown."""
        if not FEWEST_BITS <= self.bits <= MOST_BITS:
            raise PassError(
                f"pass '{self.name}': {self.bits} bits; use {FEWEST_BITS} to {MOST_BITS}"
            )
        if self.range not in METHODS:
            raise PassError(
                f"pass '{self.name}': unknown range '{self.range}'; known: {', '.join(METHODS)}"
            )
        if not 0 <= self.agreement <= 1:
            raise PassError(f"pass '{self.name}': agreement {self.agreement} is a share, 0 to 1")
        check_measure(self.measure)

    def _check_samples(self, tensors: Sequence[_Tensor], samples: Mapping[str, Samples]) -> None:
        """Raise PassError for a tensor without samples, or with samples that have no range."""
        quantizable = [tensor for tensor in tensors if tensor.quantizable]
        for tensor in quantizable:
            if not samples.get(tensor.spec.name):
                raise PassError(
                    f"pass '{self.name}' has no calibration data for %{tensor.spec.name}; "
                    "give calibration inputs (--calibration) or keep the boundary lossless"
                )

        for tensor in quantizable:
            if tensor.zero is not None:
                continue
            if _has_no_range(tensor.values(samples[tensor.spec.name])):
                raise PassError(
                    f"pass '{self.name}': the calibration inputs make %{tensor.spec.name} NaN or "
                    "infinite; give inputs that the model is made for"
                )

    def quantized(self, value: Value, samples: Mapping[str, Samples], layout: str) -> TensorSpec:
        """Return how a value crosses in the fixed number of bits.

        Args:
            value: A value of the model.
            samples: Its arrays, by its name.
            layout: Where images have their channels; see `channel_layout`.
        """
        return self._coarser(_Tensor(spec_of(value), _zero(value)), samples, layout, 1 << self.bits)

    def _all_coarser(
        self,
        tensors: Sequence[_Tensor],
        samples: Mapping[str, Samples],
        layout: str,
        levels: int,
    ) -> list[TensorSpec]:
        return [self._coarser(tensor, samples, layout, levels) for tensor in tensors]

    def _coarser(
        self, tensor: _Tensor, samples: Mapping[str, Samples], layout: str, levels: int
    ) -> TensorSpec:
        """Return how a tensor crosses in so many levels.

        Args:
            tensor: The tensor; one that is not to be quantized crosses as it is.
            samples: The arrays of all values that cross, by name.
            layout: Where images have their channels.
            levels: How many different integers there may be.
        """
        spec = tensor.spec
        if not tensor.quantizable:
            return spec

        # A channel axis whose size is open cannot have a scale for each channel.
        channels = channel_axis(spec, layout) if self.per_channel else FLAT
        axis = channels if channels != FLAT and spec.shape[channels] is not None else None

        arrays = samples[spec.name]
        if tensor.zero is None:
            values, outliers = tensor.values(arrays), not self.clip
            q = quantization(values, levels, method=self.range, axis=axis, outliers=outliers)
        else:
            q = requantization(arrays, levels, tensor.zero, method=self.range, axis=axis)
        return dataclasses.replace(spec, quantization=q)

    def _by_snr(self, tensor: _Tensor, samples: Mapping[str, Samples], layout: str) -> TensorSpec:
        """Return how a tensor crosses in the fewest levels that reach the signal to noise ratio."""
        if not tensor.quantizable:
            return tensor.spec

        def reaches(levels: int) -> bool:
            return self._has_snr(tensor, samples, layout, levels)

        levels = self._fewest(reaches, f"%{tensor.spec.name} does not reach {self.snr} dB")
        return self._coarser(tensor, samples, layout, levels)

    def _has_snr(
        self, tensor: _Tensor, samples: Mapping[str, Samples], layout: str, levels: int
    ) -> bool:
        """Return whether a tensor reaches the signal to noise ratio in so many levels."""
        if not tensor.quantizable:
            return True
        arrays = samples[tensor.spec.name]
        spec = self._coarser(tensor, samples, layout, levels)
        decoded = [_roundtrip(spec, array) for array in arrays]
        return signal_to_noise_db(tensor.values(arrays), tensor.values(decoded)) >= self.snr

    def _levels_by_agreement(
        self, model: Model, context: Context, samples: Mapping[str, Samples], layout: str
    ) -> int:
        """Return the fewest levels with which the outputs agree as far as asked.

        Each number of levels that is tried is written into the graphs, the outputs are measured
        through them, and the graphs are put back.

        Args:
            model: A partitioned model.
            context: Its samples.
            samples: The arrays of all values that cross, by name.
            layout: Where images have their channels.

        Raises:
            PassError: 8 bits do not reach it; the error has the best agreement that was seen.
        """
        if context.samples is None:
            raise PassError(
                f"pass '{self.name}': an agreement is measured on calibration inputs; give some"
            )
        source = context.samples
        expected = source.outputs(model)
        heads = self._heads(model, context, expected)
        before = _boundaries(model)
        measures: dict[int, Agreement] = {}

        def reaches(levels: int) -> bool:
            # The floor is cheap to check; the outputs take a run of the model.
            if not self._all_have_snr(before, samples, layout, levels):
                return False

            for send, tensors in before:
                set_specs(send, self._all_coarser(tensors, samples, layout, levels))
            try:
                measures[levels] = measured(heads, expected, source.outputs(model))
                return measures[levels].share >= self.agreement
            finally:
                for send, tensors in before:
                    set_specs(send, [tensor.spec for tensor in tensors])

        try:
            levels = self._fewest(reaches, self._failure())
        except PassError as error:
            best = max(measures.values(), key=lambda agreement: agreement.share, default=None)
            if best is None or best.worst is None:
                raise
            raise PassError(f"{error}; at best the worst output has {best.worst}") from error

        self._remark_agreement(context, measures[levels], len(expected))
        return levels

    def _all_have_snr(
        self,
        before: _Boundaries,
        samples: Mapping[str, Samples],
        layout: str,
        levels: int,
    ) -> bool:
        """Return whether all tensors reach the signal to noise ratio, if one is asked for."""
        if not self.snr:
            return True
        crossing: list[_Tensor] = []
        for _, tensors in before:
            crossing += tensors
        return all(self._has_snr(tensor, samples, layout, levels) for tensor in crossing)

    def _failure(self) -> str:
        floor = f", with {self.snr} dB in every tensor" if self.snr else ""
        return f"the outputs do not agree in {self.agreement:.2%} of the cases{floor}"

    def _heads(
        self, model: Model, context: Context, expected: Sequence[Mapping[str, Any]]
    ) -> list[OutputHead]:
        """Return how the outputs that the boundary reaches are read.

        Raises:
            PassError: No output depends on what is quantized, or there is nothing to compare.
        """
        # Nothing arrives at the first segment; at every other one, what its boundary quantizes.
        arriving = [set[str]()]
        for _, tensors in _boundaries(model):
            arriving.append({tensor.spec.name for tensor in tensors if tensor.quantizable})
        reached = reached_outputs(model.segments, arriving)
        outputs = expected[0]
        if reached.isdisjoint(outputs):
            raise PassError(
                f"pass '{self.name}': no output depends on what is quantized; keep the boundary "
                "lossless, or give a signal to noise ratio (snr) instead of an agreement"
            )

        # A dialect of another package may be older than the method.
        role_of: Callable[[Node], HeadRole] = getattr(context.dialect, "head_role", _no_role)
        layout = channel_layout(model)
        view = View(tuple(model.segments), tuple(outputs), role_of, layout, outputs)
        all_heads = heads_of(self.measure, view)
        heads = [head for head in all_heads if not reached.isdisjoint(head.outputs)]
        if measured(heads, expected, expected).worst is None:
            kinds = [head.measure.partition("@")[0] for head in heads]
            what = " or ".join(dict.fromkeys(_NOTHING.get(kind, "") for kind in kinds))
            raise PassError(
                f"pass '{self.name}': nothing to compare: {what}; give other calibration inputs, "
                "another measure (--agreement-measure), or a signal to noise ratio (snr) instead "
                "of an agreement"
            )

        self._remark_heads(context, [name for name in outputs if name not in reached], heads)
        return heads

    def _remark_heads(
        self, context: Context, unreached: Sequence[str], heads: Sequence[OutputHead]
    ) -> None:
        """Tell which outputs are not measured, and that reading them as rows is a guess."""
        if unreached:
            text = "cannot change at the boundary, and no agreement is asked of them"
            context.remark(self, f"{_listed(unreached)} {text}")
        if not self.measure and len(heads) > 1 and all(head.measure == "top1" for head in heads):
            text = (
                "no detections or label maps were recognised: every output is compared by its "
                "largest elements (top1); say how to read them with --agreement-measure"
            )
            context.remark(self, text)

        context.details["agreement"] = {
            "target": self.agreement,
            "asked": self.measure,
            "unreached": list(unreached),
        }

    def _remark_agreement(self, context: Context, agreement: Agreement, calls: int) -> None:
        """Tell the agreement that was reached, and put it into the manifest."""
        context.details["agreement"] |= {"calls": calls, **agreement.to_json()}
        compared = [head for head in agreement.heads if head.compared]
        others = ""
        if len(compared) > 1:
            others = f", the worst of {len(compared)} readings of the outputs"
        context.remark(self, f"agreement {agreement.worst} on {calls} calls{others}")

        empty: list[str] = []
        for head in agreement.heads:
            if not head.compared:
                empty += head.outputs
        if empty:
            text = f"nothing to compare in {_listed(empty)}, and no agreement is asked of it"
            context.remark(self, text)

    def _fewest(self, reaches: Callable[[int], bool], failure: str) -> int:
        """Return the fewest of LEVELS that reach a target.

        The search goes from coarse to fine, in whole bits, and then among the quarters below the
        first width that reaches it. On few samples more levels do not always agree better; where
        many would do, these are the coarsest.

        Raises:
            PassError: 8 bits do not reach it; `failure` says what was missed.
        """
        whole_bits = range(0, len(LEVELS), 4)
        first = next((index for index in whole_bits if reaches(LEVELS[index])), None)
        if first is None:
            raise PassError(
                f"pass '{self.name}': {failure} in 8 bits; lower the target or keep the boundary "
                "lossless"
            )

        quarters = range(max(0, first - 3), first)
        return LEVELS[next((index for index in quarters if reaches(LEVELS[index])), first)]


def _boundaries(model: Model) -> list[tuple[Node, list[_Tensor]]]:
    """Return every irsplit.send with its tensors."""
    return [(send, _tensors(send)) for _, send in sends(model)]


def _tensors(send: Node) -> list[_Tensor]:
    zeros = [_zero(value) for value in send.inputs if value is not None]
    return [_Tensor(spec, zero) for spec, zero in zip(specs(send), zeros, strict=True)]


def _zero(value: Value) -> int | None:
    """Return the integer that stands for 0 in all of an 8-bit tensor, by its type."""
    if not isinstance(value.type, TensorType) or value.type.dtype.name not in ("i8", "u8"):
        return None
    affine = value.type.quantization
    if affine is None or affine.axis is not None or not affine.zero_point:
        return None
    return affine.zero_point[0]


def _no_role(_: Node) -> HeadRole:
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"%{name}" for name in names)


def _roundtrip(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """Return what arrives when an array is framed as `spec` says; the codec changes nothing."""
    uncoded = dataclasses.replace(spec, codec="raw", parameters=b"", chunk=0)
    schema = FrameSchema(0, spec.name, (uncoded,))
    return frame.decode(schema, frame.encode(schema, [array]))[0]


def _has_no_range(arrays: Samples) -> bool:
    """Return whether some values are NaN, or all are infinite.

    An infinite value among finite ones is an outlier.
    """
    filled = [array for array in arrays if array.size]
    if any(np.isnan(array).any() for array in filled):
        return True
    return bool(filled) and not any(np.isfinite(array).any() for array in filled)
