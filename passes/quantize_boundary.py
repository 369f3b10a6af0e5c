"""quantize-boundary: floats cross a boundary as integers of 2 to 8 bits, and integers in coarser steps."""

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
"""The levels among which a target decides, a quarter of a bit apart."""

_NOTHING = {
    "top1": "no output has rows of several numbers, of which one could be the largest",
    "iou": "label maps are empty",
    "f1": "nothing was detected in any call",
}
"""What it means that a measure found nothing to compare."""


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a boundary; `zero` is the integer that stands for 0 in one of i8 or u8, None in others."""

    spec: TensorSpec
    zero: int | None

    @property
    def wanted(self) -> bool:
        is_float = self.spec.dtype in ("f32", "f16", "bf16")
        return self.spec.quantization is None and (is_float or self.zero is not None)

    def values(self, arrays: Samples) -> list[np.ndarray]:
        """What the elements stand for, up to the scale of integers; bfloat16 travels as its upper 16 bits of an f32."""
        if self.spec.dtype == "bf16":
            return [
                (np.asarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
                for array in arrays
            ]
        return [np.asarray(array, np.float32) - (self.zero or 0) for array in arrays]


@dataclass(frozen=True)
class QuantizeBoundary:
    """Affine quantization over the range seen in calibration; floats beyond the range cross exactly.

    A tensor whose type says that its 8-bit integers stand for numbers, as in a quantized TFLite model, crosses in
    coarser steps, or as it is where those would be no coarser than its own; other integers cross exactly.
    `bits` are fixed unless there is a target. `snr` (dB) takes for every tensor the fewest of LEVELS that reach it on
    the calibration data; `agreement` (0 to 1) the fewest for all with which the outputs of the whole model, through
    the real far side, agree so far with those without quantization, and with which every
    tensor has the `snr`, where both are given: a floor where calibration inputs are few or easy. `measure` says how
    outputs are read: top1, iou, f1, an entry point or FILE.py:function; without one, detections and label maps are
    recognised. Of the outputs that the boundary reaches, the one that agrees least counts. `range` is min-max,
    percentile, mse or entropy; `per-channel` gives every channel a range of its own. Raises PassError without
    calibration data, and when 8 bits miss the target.
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
        self._check()
        before = [(send, _tensors(send)) for _, send in sends(model)]
        samples = context.crossing_samples(model)
        for _, tensors in before:
            self._check_samples(tensors, samples)
        layout = channel_layout(model)
        if self.snr and not self.agreement:
            chosen = [
                [self._by_snr(tensor, samples, layout) for tensor in tensors]
                for _, tensors in before
            ]
        else:
            levels = (
                self._by_agreement(model, context, samples, layout)
                if self.agreement
                else 1 << self.bits
            )
            chosen = [
                [self._coarser(tensor, samples, layout, levels) for tensor in tensors]
                for _, tensors in before
            ]
        changed = [set_specs(send, new) for (send, _), new in zip(before, chosen, strict=True)]
        if self.snr or self.agreement:
            for (_, tensors), new in zip(before, chosen, strict=True):
                self._remark_steps(tensors, new, context)
        return any(changed)

    def _remark_steps(
        self, before: Sequence[_Tensor], chosen: Sequence[TensorSpec], context: Context
    ) -> None:
        for tensor, spec in zip(before, chosen, strict=True):
            if (q := spec.quantization) is None:
                if tensor.wanted:
                    context.remark(
                        self,
                        f"%{spec.name} crosses as it is: coarser steps than its own miss the target",
                    )
            elif tensor.zero is not None:
                context.remark(
                    self, f"%{spec.name} crosses in steps of {max(q.scales):.3g} of its integers"
                )
            elif tensor.wanted:
                context.remark(self, f"%{spec.name} crosses in {q.bits} bits")

    def _check(self) -> None:
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
        missing = next(
            (tensor for tensor in tensors if tensor.wanted and not samples.get(tensor.spec.name)),
            None,
        )
        if missing is not None:
            raise PassError(
                f"pass '{self.name}' has no calibration data for %{missing.spec.name}; "
                "give calibration inputs (--calibration) or keep the boundary lossless"
            )
        for tensor in tensors:
            if (
                tensor.wanted
                and tensor.zero is None
                and _has_no_range(tensor.values(samples[tensor.spec.name]))
            ):
                raise PassError(
                    f"pass '{self.name}': the calibration inputs make %{tensor.spec.name} NaN or infinite; "
                    "give inputs that the model is made for"
                )

    def quantized(self, value: Value, samples: Mapping[str, Samples], layout: str) -> TensorSpec:
        """How a value crosses in the fixed number of bits, by its samples."""
        return self._coarser(_Tensor(spec_of(value), _zero(value)), samples, layout, 1 << self.bits)

    def _coarser(
        self, tensor: _Tensor, samples: Mapping[str, Samples], layout: str, levels: int
    ) -> TensorSpec:
        """The spec of a tensor in so many levels, by its samples; of one that is not quantized as it is."""
        spec = tensor.spec
        if not tensor.wanted:
            return spec
        arrays, method = samples[spec.name], self.range
        channels = channel_axis(spec, layout) if self.per_channel else FLAT
        axis = channels if channels != FLAT and spec.shape[channels] is not None else None
        if tensor.zero is None:
            q = quantization(
                tensor.values(arrays), levels, method=method, axis=axis, outliers=not self.clip
            )
        else:
            q = requantization(arrays, levels, tensor.zero, method=method, axis=axis)
        return dataclasses.replace(spec, quantization=q)

    def _by_snr(self, tensor: _Tensor, samples: Mapping[str, Samples], layout: str) -> TensorSpec:
        if not tensor.wanted:
            return tensor.spec

        def reaches(levels: int) -> bool:
            return self._has_snr(tensor, samples, layout, levels)

        levels = self._fewest(reaches, f"%{tensor.spec.name} does not reach {self.snr} dB")
        return self._coarser(tensor, samples, layout, levels)

    def _has_snr(
        self, tensor: _Tensor, samples: Mapping[str, Samples], layout: str, levels: int
    ) -> bool:
        if not tensor.wanted:
            return True
        arrays, spec = samples[tensor.spec.name], self._coarser(tensor, samples, layout, levels)
        found = [_roundtrip(spec, array) for array in arrays]
        return signal_to_noise_db(tensor.values(arrays), tensor.values(found)) >= self.snr

    def _by_agreement(
        self, model: Model, context: Context, samples: Mapping[str, Samples], layout: str
    ) -> int:
        if context.samples is None:
            raise PassError(
                f"pass '{self.name}': an agreement is measured on calibration inputs; give some"
            )
        evaluate = context.samples.outputs
        expected = evaluate(model)
        before = [(send, _tensors(send)) for _, send in sends(model)]
        heads = self._heads(model, context, expected)
        measures: dict[int, Agreement] = {}

        def reaches(levels: int) -> bool:
            crossing = [tensor for _, tensors in before for tensor in tensors]
            if self.snr and not all(
                self._has_snr(tensor, samples, layout, levels) for tensor in crossing
            ):
                return False
            for send, tensors in before:
                set_specs(
                    send, [self._coarser(tensor, samples, layout, levels) for tensor in tensors]
                )
            try:
                measures[levels] = measured(heads, expected, evaluate(model))
                return measures[levels].share >= self.agreement
            finally:
                for send, tensors in before:
                    set_specs(send, [tensor.spec for tensor in tensors])

        try:
            levels = self._fewest(reaches, self._failure())
        except PassError as error:
            best = max(measures.values(), key=lambda found: found.share, default=None)
            worst = (
                ""
                if best is None or best.worst is None
                else f"; at best the worst output has {best.worst}"
            )
            raise PassError(f"{error}{worst}") from error
        self._tell(context, measures[levels], len(expected))
        return levels

    def _failure(self) -> str:
        floor = f", with {self.snr} dB in every tensor" if self.snr else ""
        return f"the outputs do not agree in {self.agreement:.2%} of the cases{floor}"

    def _heads(
        self, model: Model, context: Context, expected: Sequence[Mapping[str, Any]]
    ) -> list[OutputHead]:
        """How the outputs that the boundary reaches are read. Raises PassError where there is nothing to compare."""
        arriving = [set[str]()]
        for _, send in sends(model):
            arriving.append({tensor.spec.name for tensor in _tensors(send) if tensor.wanted})
        reached = reached_outputs(model.segments, arriving)
        if reached.isdisjoint(expected[0]):
            raise PassError(
                f"pass '{self.name}': no output depends on what is quantized; keep the boundary lossless, or give a "
                "signal to noise ratio (snr) instead of an agreement"
            )
        role_of = getattr(context.dialect, "head_role", _no_role)
        view = View(
            tuple(model.segments), tuple(expected[0]), role_of, channel_layout(model), expected[0]
        )
        heads = [
            head for head in heads_of(self.measure, view) if not reached.isdisjoint(head.outputs)
        ]
        if measured(heads, expected, expected).worst is None:
            what = " or ".join(
                dict.fromkeys(_NOTHING.get(head.measure.partition("@")[0], "") for head in heads)
            )
            raise PassError(
                f"pass '{self.name}': nothing to compare: {what}; give other calibration inputs, another measure "
                "(--agreement-measure), or a signal to noise ratio (snr) instead of an agreement"
            )
        self._tell_of_heads(context, [name for name in expected[0] if name not in reached], heads)
        return heads

    def _tell_of_heads(
        self, context: Context, unreached: Sequence[str], heads: Sequence[OutputHead]
    ) -> None:
        """Say what the agreement is not of, and that nothing but rows was recognised where those are a guess."""
        if unreached:
            context.remark(
                self,
                f"{_listed(unreached)} cannot change at the boundary, and no agreement is asked of them",
            )
        if not self.measure and len(heads) > 1 and all(head.measure == "top1" for head in heads):
            text = "no detections or label maps were recognised: every output is compared by its largest elements "
            context.remark(self, f"{text}(top1); say how to read them with --agreement-measure")
        context.details["agreement"] = {
            "target": self.agreement,
            "asked": self.measure,
            "unreached": list(unreached),
        }

    def _tell(self, context: Context, found: Agreement, calls: int) -> None:
        """Print the measure that was taken and put it into the manifest."""
        context.details["agreement"] |= {"calls": calls, **found.to_json()}
        compared = [head for head in found.heads if head.compared]
        others = (
            f", the worst of {len(compared)} readings of the outputs" if len(compared) > 1 else ""
        )
        context.remark(self, f"agreement {found.worst} on {calls} calls{others}")
        if nothing := [name for head in found.heads if not head.compared for name in head.outputs]:
            context.remark(
                self, f"nothing to compare in {_listed(nothing)}, and no agreement is asked of it"
            )

    def _fewest(self, reaches: Callable[[int], bool], failure: str) -> int:
        """The fewest of LEVELS that reach a target. Raises PassError when 8 bits do not.

        From coarse to fine, in whole bits and then among the quarters below the first that do: on few calls more
        levels do not always reach an agreement the better, and where many would do, these are the coarsest.
        """
        whole = next((place for place in range(0, len(LEVELS), 4) if reaches(LEVELS[place])), None)
        if whole is None:
            raise PassError(
                f"pass '{self.name}': {failure} in 8 bits; lower the target or keep the boundary lossless"
            )
        between = range(max(0, whole - 3), whole)
        return LEVELS[next((place for place in between if reaches(LEVELS[place])), whole)]


def _tensors(send: Node) -> list[_Tensor]:
    zeros = [_zero(value) for value in send.inputs if value is not None]
    return [_Tensor(spec, zero) for spec, zero in zip(specs(send), zeros, strict=True)]


def _zero(value: Value) -> int | None:
    """The integer that stands for 0 where the type of an 8-bit tensor says so for the whole of it."""
    if not isinstance(value.type, TensorType) or value.type.dtype.name not in ("i8", "u8"):
        return None
    affine = value.type.quantization
    return (
        affine.zero_point[0]
        if affine is not None and affine.axis is None and affine.zero_point
        else None
    )


def _no_role(_: Node) -> HeadRole:
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"%{name}" for name in names)


def _roundtrip(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    boundary = FrameSchema(
        0, spec.name, (dataclasses.replace(spec, codec="raw", parameters=b"", chunk=0),)
    )
    return frame.decode(boundary, frame.encode(boundary, [array]))[0]


def _has_no_range(arrays: Samples) -> bool:
    """Whether some values are NaN, or all are infinite: an infinite one among others is an outlier."""
    filled = [array for array in arrays if array.size]
    return any(np.isnan(array).any() for array in filled) or (
        bool(filled) and not any(np.isfinite(array).any() for array in filled)
    )
