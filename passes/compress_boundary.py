"""compress-boundary: the lossless codec of every tensor that crosses."""

import dataclasses
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
_LEVELS = {"zstandard": 3, "static-rans": 1}


@dataclass(frozen=True)
class CompressBoundary:
    """Code every tensor of every boundary with `codec`: raw, zstandard, static-rans, or auto.

    static-rans and auto learn from calibration data; a tensor that static-rans does not take is coded by zstandard.
    `level` is zstandard's (3 by default) or that of static-rans (0 fastest, 1 by default, 2 smallest). auto takes the
    smallest frame on held-out samples or, with `link`, the shortest encode + send + decode over it, at the published
    speeds of the codecs (profiles/codecs.toml), by which cuts are chosen too.
    """

    name: ClassVar[str] = "compress-boundary"
    codec: str = "zstandard"
    level: int = -1
    link: str = ""

    def run(self, model: Model, context: Context) -> bool:
        known = (*codec_names(), "auto")
        if self.codec not in known:
            raise PassError(
                f"pass '{self.name}': unknown codec '{self.codec}'; known codecs: {', '.join(known)}"
            )
        samples = context.crossing_samples(model) if self.codec in TRAINED else {}
        layout = channel_layout(model)
        changes = [
            (
                send,
                [
                    self._coded(spec, samples.get(spec.name, ()), layout, context)
                    for spec in specs(send)
                ],
            )
            for _, send in sends(model)
        ]
        changed = [set_specs(send, coded) for send, coded in changes]
        return any(changed)

    def _coded(
        self, spec: TensorSpec, samples: Samples, layout: str, context: Context
    ) -> TensorSpec:
        if self.codec == "static-rans" and not supports(spec):
            context.remark(
                self, f"%{spec.name}: static-rans does not code {spec.dtype}; zstandard does"
            )
            return self._plain(spec, "zstandard")
        if self.codec not in TRAINED:
            return self._plain(spec, self.codec)
        if not samples:
            raise PassError(
                f"pass '{self.name}': codec {self.codec} learns from calibration data; "
                "give inputs to calibrate with (--calibration)"
            )
        arrays = as_framed(spec, samples)
        if self.codec == "static-rans":
            return train(
                arrays,
                spec,
                layout=layout,
                level=_LEVELS["static-rans"] if self.level < 0 else self.level,
            )
        rate = link(self.link).up_goodput_bit_s if self.link else None
        choice = choose_codec(
            arrays, spec, layout=layout, rate_bit_s=rate, speeds=_published_speeds()
        )
        sizes = f"{human('bytes', choice.size_bytes())} a frame, raw {human('bytes', choice.size_bytes('raw'))}"
        context.remark(self, f"%{spec.name}: codec {choice.name}, {sizes}")
        return choice.spec

    def _plain(self, spec: TensorSpec, codec: str) -> TensorSpec:
        return plain(
            spec,
            codec,
            _LEVELS.get(codec, 0) if self.level < 0 or codec != self.codec else self.level,
        )


def _published_speeds() -> CodecRates:
    known = {name: codec.speed for name, codec in codec_estimates().items()} | level_speeds()
    return {name: (speed.encode_bytes_s, speed.decode_bytes_s) for name, speed in known.items()}


def plain(spec: TensorSpec, codec: str, level: int = _LEVELS["zstandard"]) -> TensorSpec:
    """The spec in a codec that learns nothing; `level` is for zstandard."""
    parameters = zstandard_parameters(level) if codec == "zstandard" else b""
    return dataclasses.replace(spec, codec=codec, parameters=parameters, chunk=0)


def as_framed(spec: TensorSpec, samples: Samples) -> list[NDArray[np.generic]]:
    """Samples in the type in which frames take them."""
    return [
        np.asarray(sample, spec.storage) if spec.dtype != "bf16" else np.asarray(sample)
        for sample in samples
    ]
