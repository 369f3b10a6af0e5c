"""irsplit: the split compiler for neural networks.

    import irsplit
    irsplit.compile("digits.onnx", "build", device="pixel-2", link="lte")
    frame = irsplit.DeviceSession("build").start({"image": image})
    outputs = irsplit.ServerSession("build").resume(frame)

A function does exactly what the command of its name does. Names are imported when they are first
used: `import irsplit` costs nothing, and `irsplit.runtime` needs neither onnx nor flatbuffers.
"""

from typing import TYPE_CHECKING

from irsplit.base.errors import VERSION as __version__
from irsplit.base.errors import IrsplitError
from irsplit.base.lazy import exports

if TYPE_CHECKING:
    from irsplit import passes, runtime
    from irsplit.adapters.split_bytes import SplitModel, split_bytes
    from irsplit.compilation.compiler import Compiled, compile
    from irsplit.compilation.cost_report import CostReport, report
    from irsplit.compilation.cut_list import CutList, find_cuts
    from irsplit.compilation.delta import DeltaReport, delta
    from irsplit.compilation.old_names import compile_model, pack_bundle, verify_bundle
    from irsplit.compilation.options import CompileOptions
    from irsplit.compilation.pack import pack
    from irsplit.compilation.split_plan import SplitPlan, plan
    from irsplit.compilation.verification import Requirements, Verification, verify
    from irsplit.dialects.registry import read_model
    from irsplit.measure.bench import Bench
    from irsplit.measure.interface import bench, profile
    from irsplit.measure.measurement import Effort
    from irsplit.passes.pipeline import Pipeline
    from irsplit.runtime.run.session import (
        DeviceSession,
        Frame,
        LocalSession,
        ServerSession,
        Session,
    )
    from irsplit.runtime.serving.client.session import connect

_HOMES = {
    # Look at a model
    "read_model": "irsplit.dialects.registry",
    "find_cuts": "irsplit.compilation.cut_list",
    "CutList": "irsplit.compilation.cut_list",
    "plan": "irsplit.compilation.split_plan",
    "SplitPlan": "irsplit.compilation.split_plan",
    "report": "irsplit.compilation.cost_report",
    "CostReport": "irsplit.compilation.cost_report",
    # Compile it
    "compile": "irsplit.compilation.compiler",
    "Compiled": "irsplit.compilation.compiler",
    "CompileOptions": "irsplit.compilation.options",
    "Pipeline": "irsplit.passes.pipeline",
    "split_bytes": "irsplit.adapters.split_bytes",
    "SplitModel": "irsplit.adapters.split_bytes",
    # Check and measure
    "verify": "irsplit.compilation.verification",
    "Verification": "irsplit.compilation.verification",
    "Requirements": "irsplit.compilation.verification",
    "profile": "irsplit.measure.interface",
    "bench": "irsplit.measure.interface",
    "Bench": "irsplit.measure.bench",
    "Effort": "irsplit.measure.measurement",
    # Ship it
    "pack": "irsplit.compilation.pack",
    "delta": "irsplit.compilation.delta",
    "DeltaReport": "irsplit.compilation.delta",
    # Run it
    "DeviceSession": "irsplit.runtime.run.session",
    "ServerSession": "irsplit.runtime.run.session",
    "LocalSession": "irsplit.runtime.run.session",
    "Session": "irsplit.runtime.run.session",
    "Frame": "irsplit.runtime.run.session",
    "connect": "irsplit.runtime.serving.client.session",
    # Until the next release
    "compile_model": "irsplit.compilation.old_names",
    "pack_bundle": "irsplit.compilation.old_names",
    "verify_bundle": "irsplit.compilation.old_names",
}

__all__ = [
    "Bench",
    "CompileOptions",
    "Compiled",
    "CostReport",
    "CutList",
    "DeltaReport",
    "DeviceSession",
    "Effort",
    "Frame",
    "IrsplitError",
    "LocalSession",
    "Pipeline",
    "Requirements",
    "ServerSession",
    "Session",
    "SplitModel",
    "SplitPlan",
    "Verification",
    "__version__",
    "bench",
    "compile",
    "compile_model",
    "connect",
    "delta",
    "find_cuts",
    "pack",
    "pack_bundle",
    "passes",
    "plan",
    "profile",
    "read_model",
    "report",
    "runtime",
    "split_bytes",
    "verify",
    "verify_bundle",
]


def __dir__() -> list[str]:
    return __all__


__getattr__ = exports(__name__, _HOMES, ("passes", "runtime"))
