"""compress-boundary: the lossless codec of every tensor that crosses."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import PassError
from irsplit.codec_training.codec import CodecRates, choose_codec, train
from irsplit.codec_training.symbols import supports
from irsplit.ir import Model
from irsplit.passes.base import Context, Samples, channel_layout
from irsplit.passes.send_attributes import sends, set_specs, specs
from irsplit.planner import human
from irsplit.profiles import codec_estimates, level_speeds, link
from irsplit.runtime.frame.descriptor import TensorSpec, codec_names, zstandard_parameters

TRAINED = ("static-rans", "auto")
"""The codecs that learn from samples."""
_LEVELS = {"zstandard": 3, "static-rans": 1}
"""The default level of each codec that has levels."""


@dataclass(frozen=True)
class CompressBoundary:
    """Code every tensor of every boundary with `codec`: raw, zstandard, static-rans, or auto.

    static-rans and auto learn from samples; a tensor that static-rans does not take is coded by
    zstandard. `level` is zstandard's (3 by default) or that of static-rans (0 is the fastest, 1 the
    default, 2 the smallest).

    auto takes the codec with the smallest frame on held-out samples. With a `link` it takes the one
    with the shortest time to encode, send and decode, at the published speeds of the codecs
    (profiles/codecs.toml), by which cuts are chosen too.
    """

    name: ClassVar[str] = "compress-boundary"
    codec: str = "zstandard"
    level: int = -1
    link: str = ""

    def run(self, model: Model, context: Context) -> bool:
        """Choose the codec of every tensor, then write all of them into the graphs."""
        known = (*codec_names(), "auto")
        if self.codec not in known:
            raise PassError(
                f"pass '{self.name}': unknown codec '{self.codec}'; "
                f"known codecs: {', '.join(known)}"
            )

        samples = context.crossing_samples(model) if self.codec in TRAINED else {}
        layout = channel_layout(model)
        coded_sends = [
            (send, self._coded(specs(send), samples, layout, context)) for _, send in sends(model)
        ]

        # Every codec is chosen before the first one is written: an error changes nothing.
        changed = [set_specs(send, coded) for send, coded in coded_sends]
        return any(changed)

    def _coded(
        self,
        boundary: list[TensorSpec],
        samples: Mapping[str, Samples],
        layout: str,
        context: Context,
    ) -> list[TensorSpec]:
        """Return the specs of a boundary's tensors with their codecs."""
        coded: list[TensorSpec] = []
        for spec in boundary:
            if self.codec == "static-rans" and not supports(spec):
                text = f"%{spec.name}: static-rans does not code {spec.dtype}; zstandard does"
                context.remark(self, text)
                coded.append(self._untrained(spec, "zstandard"))
            elif self.codec not in TRAINED:
                coded.append(self._untrained(spec, self.codec))
            else:
                coded.append(self._trained(spec, samples.get(spec.name, ()), layout, context))
        return coded

    def _trained(
        self, spec: TensorSpec, samples: Samples, layout: str, context: Context
    ) -> TensorSpec:
        """Return the spec with a codec that learned from the tensor's samples."""
        if not samples:
            raise PassError(
                f"pass '{self.name}': codec {self.codec} learns from calibration data; "
                "give inputs to calibrate with (--calibration)"
            )

        arrays = as_framed(spec, samples)
        if self.codec == "static-rans":
            level = _LEVELS["static-rans"] if self.level < 0 else self.level
            return train(arrays, spec, layout=layout, level=level)

        rate = link(self.link).up_goodput_bit_s if self.link else None
        choice = choose_codec(
            arrays, spec, layout=layout, rate_bit_s=rate, speeds=_published_speeds()
        )
        coded = human("bytes", choice.size_bytes())
        raw = human("bytes", choice.size_bytes("raw"))
        context.remark(self, f"%{spec.name}: codec {choice.name}, {coded} a frame, raw {raw}")
        return choice.spec

    def _untrained(self, spec: TensorSpec, codec: str) -> TensorSpec:
        """Return the spec with a codec that learns nothing, at the level that was asked for it."""
        is_default = self.level < 0 or codec != self.codec
        return plain(spec, codec, _LEVELS.get(codec, 0) if is_default else self.level)


def _published_speeds() -> CodecRates:
    """Return the bytes a second that each codec encodes and decodes."""
    speeds = {name: codec.speed for name, codec in codec_estimates().items()} | level_speeds()
    return {name: (speed.encode_bytes_s, speed.decode_bytes_s) for name, speed in speeds.items()}


def plain(spec: TensorSpec, codec: str, level: int = _LEVELS["zstandard"]) -> TensorSpec:
    """Return the spec with a codec that learns nothing.

    Args:
        spec: How a tensor crosses.
        codec: The name of the codec.
        level: The level of zstandard; other codecs have none.
    """
    parameters = zstandard_parameters(level) if codec == "zstandard" else b""
    return dataclasses.replace(spec, codec=codec, parameters=parameters, chunk=0)


def as_framed(spec: TensorSpec, samples: Samples) -> list[NDArray[np.generic]]:
    """Return samples in the element type in which frames take them."""
    # numpy has no bfloat16: its arrays are in the type of a frame already.
    if spec.dtype == "bf16":
        return [np.asarray(sample) for sample in samples]
    return [np.asarray(sample, spec.storage) for sample in samples]
