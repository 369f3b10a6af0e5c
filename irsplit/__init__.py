"""irsplit: the split compiler for neural networks.

    import irsplit
    bundle = irsplit.compile_model("digits.onnx", "build", cuts=["bottleneck/relu"])
    frame = irsplit.DeviceSession("build").start({"image": image})
    outputs = irsplit.ServerSession("build").resume(frame)

Names are imported when they are first used: `import irsplit` costs nothing, and `irsplit.runtime` needs neither onnx
nor flatbuffers.
"""

from typing import TYPE_CHECKING

from irsplit.base.errors import VERSION as __version__
from irsplit.base.errors import IrsplitError
from irsplit.base.lazy import exports

if TYPE_CHECKING:
    from irsplit import passes, runtime
    from irsplit.adapters.split_bytes import SplitModel, split_bytes
    from irsplit.compilation.compiler import Compiled, compile_model
    from irsplit.compilation.pack import pack_bundle
    from irsplit.compilation.verification import Verification, verify_bundle
    from irsplit.dialects.registry import read_model
    from irsplit.passes.analysis.cuts import find_cuts
    from irsplit.passes.pipeline import Pipeline
    from irsplit.runtime.run.session import (
        DeviceSession,
        Frame,
        LocalSession,
        ServerSession,
        Session,
    )

_HOMES = {
    "Compiled": "irsplit.compilation.compiler",
    "DeviceSession": "irsplit.runtime.run.session",
    "Frame": "irsplit.runtime.run.session",
    "LocalSession": "irsplit.runtime.run.session",
    "Pipeline": "irsplit.passes.pipeline",
    "ServerSession": "irsplit.runtime.run.session",
    "Session": "irsplit.runtime.run.session",
    "SplitModel": "irsplit.adapters.split_bytes",
    "Verification": "irsplit.compilation.verification",
    "compile_model": "irsplit.compilation.compiler",
    "find_cuts": "irsplit.passes.analysis.cuts",
    "pack_bundle": "irsplit.compilation.pack",
    "read_model": "irsplit.dialects.registry",
    "split_bytes": "irsplit.adapters.split_bytes",
    "verify_bundle": "irsplit.compilation.verification",
}

__all__ = [
    "Compiled",
    "DeviceSession",
    "Frame",
    "IrsplitError",
    "LocalSession",
    "Pipeline",
    "ServerSession",
    "Session",
    "SplitModel",
    "Verification",
    "__version__",
    "compile_model",
    "find_cuts",
    "pack_bundle",
    "passes",
    "read_model",
    "runtime",
    "split_bytes",
    "verify_bundle",
]


def __dir__() -> list[str]:
    return __all__


__getattr__ = exports(__name__, _HOMES, ("passes", "runtime"))
