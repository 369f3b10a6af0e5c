"""One split of an ONNX model; as a script it prints seconds and peak memory in bytes as JSON.

    python -m benchmarks.onnx_split SOURCE FOLDER CUT [--share-weights]

It imports nothing but irsplit, so that the figures are those of a user's process; like the command
line it does without garbage collections, which would walk a large graph again and again.
"""

import atexit
import gc
import json
import sys
import time
from pathlib import Path

from irsplit.dialects.base import WriteOptions
from irsplit.dialects.onnx import ONNX
from irsplit.dialects.writing import write_graphs
from irsplit.ir import engine_graph, verify
from irsplit.passes.analysis.cuts import find_cuts, schedule, select_cut
from irsplit.passes.partition import split

PLACES = ("device", "server")


def split_with_irsplit(
    source: Path, folder: Path, cut: str, share_weights: bool = False
) -> list[Path]:
    """Read, find cuts with reasons, partition at this id or tensor, verify, write both halves."""
    model = ONNX.read(source)
    plan = schedule(model.entry)
    model.graphs[:1] = split(plan, [select_cut(find_cuts(plan), cut)], PLACES)
    verify(model)
    options = WriteOptions(share_weights=share_weights)
    halves = [(engine_graph(part), folder / f"{part.name}.onnx") for part in model.segments]
    return [files[0] for files in write_graphs(ONNX, model, halves, options)]


def peak_bytes() -> int:
    """Peak resident memory of this process alone (`getrusage` would inherit its parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    if len(sys.argv) not in (4, 5):
        sys.exit(f"usage: {sys.argv[0]} SOURCE FOLDER CUT [--share-weights]")
    gc.disable()
    atexit.register(gc.freeze)
    start = time.perf_counter()
    split_with_irsplit(
        Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "--share-weights" in sys.argv
    )
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
