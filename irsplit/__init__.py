"""irsplit: the split compiler for neural networks.

    import irsplit
    bundle = irsplit.compile_model("digits.onnx", "build", cuts=["bottleneck/relu"])
    frame = irsplit.DeviceSession("build").start({"image": image})
    outputs = irsplit.ServerSession("build").resume(frame)

Names are imported when they are first used: `import irsplit` costs nothing, and `irsplit.runtime` needs neither onnx
nor flatbuffers.
"""

from typing import TYPE_CHECKING

from irsplit.errors import VERSION as __version__
from irsplit.errors import IrsplitError
from irsplit.lazy import exports

if TYPE_CHECKING:
    from irsplit.adapters.split_bytes import SplitModel, split_bytes
    from irsplit.compiler import Compiled, compile_model
    from irsplit.dialects.registry import read_model
    from irsplit.pack import pack_bundle
    from irsplit.passes.cuts import find_cuts
    from irsplit.passes.pipeline import Pipeline
    from irsplit.runtime.session import DeviceSession, Frame, LocalSession, ServerSession, Session
    from irsplit.verification import Verification, verify_bundle

_HOMES = {
    "Compiled": "irsplit.compiler",
    "DeviceSession": "irsplit.runtime.session",
    "Frame": "irsplit.runtime.session",
    "LocalSession": "irsplit.runtime.session",
    "Pipeline": "irsplit.passes.pipeline",
    "ServerSession": "irsplit.runtime.session",
    "Session": "irsplit.runtime.session",
    "SplitModel": "irsplit.adapters.split_bytes",
    "Verification": "irsplit.verification",
    "compile_model": "irsplit.compiler",
    "find_cuts": "irsplit.passes.cuts",
    "pack_bundle": "irsplit.pack",
    "read_model": "irsplit.dialects.registry",
    "split_bytes": "irsplit.adapters.split_bytes",
    "verify_bundle": "irsplit.verification",
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
    "read_model",
    "split_bytes",
    "verify_bundle",
]


def __dir__() -> list[str]:
    return __all__


__getattr__ = exports(__name__, _HOMES)
