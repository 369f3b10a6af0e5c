"""One split of a TFLite model in the middle; as a script it prints its peak memory in bytes.

    python -m benchmarks.tflite_split SOURCE FOLDER

It imports nothing but irsplit, so that the figure is that of a user's process.
"""

import sys
from pathlib import Path

from irsplit.dialects.tflite import TFLITE
from irsplit.dialects.writing import write_graphs
from irsplit.ir import engine_graph
from irsplit.passes.analysis.cuts import legal_cuts, schedule
from irsplit.passes.partition import split

PLACES = ("device", "server")


def split_with_irsplit(source: Path, folder: Path) -> list[Path]:
    """Read, find the legal cuts, take the middle one, write both halves."""
    model = TFLITE.read(source)
    plan = schedule(model.entry)
    cuts = legal_cuts(plan)
    segments = split(plan, [cuts[len(cuts) // 2]], PLACES)
    halves = [(engine_graph(part), folder / f"{part.name}.tflite") for part in segments]
    return [files[0] for files in write_graphs(TFLITE, model, halves)]


def peak_bytes() -> int:
    """Peak resident memory of this process alone (`getrusage` would inherit its parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} SOURCE FOLDER")
    split_with_irsplit(Path(sys.argv[1]), Path(sys.argv[2]))
    print(peak_bytes())


if __name__ == "__main__":
    main()
