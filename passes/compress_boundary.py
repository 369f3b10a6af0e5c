"""compress-boundary: the lossless codec of every tensor that crosses."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from irsplit.errors import PassError
from irsplit.ir import Model
from irsplit.passes.base import Context
from irsplit.passes.boundaries import sends, set_specs, specs
from irsplit.runtime.boundary import codec_names, zstandard_parameters


@dataclass(frozen=True)
class CompressBoundary:
    """Code every tensor of every boundary with `codec`; `level` is zstandard's."""

    name: ClassVar[str] = "compress-boundary"
    codec: str = "zstandard"
    level: int = 3

    def run(self, model: Model, context: Context) -> bool:
        known = codec_names()
        if self.codec not in known:
            raise PassError(f"pass '{self.name}': unknown codec '{self.codec}'; known codecs: {', '.join(known)}")
        parameters = zstandard_parameters(self.level) if self.codec == "zstandard" else b""
        changed = False
        for _, send in sends(model):
            coded = [dataclasses.replace(s, codec=self.codec, parameters=parameters, chunk=0) for s in specs(send)]
            changed |= set_specs(send, coded)
        return changed
