"""What it costs to split an ONNX model: against copying its bytes, and against other tools.

    python -m benchmarks.bench_split_onnx [--json] [--rounds 5] [--peers] [--small]

Four models are made, each cut in the middle into two saved files:

* `inline`: a transformer of 1.2 GB in one file.
* `external`: a transformer of 3 GB with its weights in a file beside it, written out into the
  halves.
* `shared`: the same, the halves referring to the same weights (`--share-weights`).
* `graph`: 50 000 nodes; also with 1 000 and 10 000, to show that the cost grows as the graph does.

`irsplit` reads, finds all cuts with reasons, partitions, verifies and writes; `cp` copies the
model's files: the bytes that any splitter has to move. With `--peers` (pip install irsplit[bench])
onnx's extract_model and onnx-ir split too; extract_model needs 8 GB of memory for the large ones.
`--small` makes everything fifty times smaller, for a quick look.

Every split is a fresh process, pinned nowhere; methods take turns. Our byte code is made before, as
an installation makes it, whatever PYTHONDONTWRITEBYTECODE says. `wall` and `cpu` are those of the
whole process, its start and imports included; `work` is without our imports, but with the part of
onnx that a model needs which leaves types out; `peak` is resident memory. Before anything is timed,
the halves of a small transformer are run and must give the bits of the whole, and the halves of
each large model must hold its weights.
"""

import argparse
import compileall
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import irsplit

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Case:
    """A model, the tensor to cut it at, and how irsplit is asked to do it."""

    name: str
    source: Path
    cut: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One process: seconds and bytes."""

    wall: float
    cpu: float
    work: float
    peak: int


def make_cases(folder: Path, scale: int) -> list[Case]:
    """Make the models in a process of their own, so that this one stays small."""
    command = [sys.executable, "-m", "benchmarks.onnx_cases", str(folder), str(scale)]
    made = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return [
        Case(name, Path(source), cut, tuple(options))
        for name, source, cut, options in json.loads(made)
    ]


def commands(case: Case, peers: bool, out: Path) -> dict[str, list[str]]:
    split = [
        sys.executable,
        "-m",
        "benchmarks.onnx_split",
        str(case.source),
        str(out),
        case.cut,
        *case.options,
    ]
    files = [str(path) for path in (case.source, Path(f"{case.source}.data")) if path.exists()]
    methods = {"irsplit": split, "cp": ["cp", *files, str(out)]}
    if peers and not case.options:
        script = [sys.executable, "-m", "benchmarks.onnx_peers"]
        for peer in ("onnx-ir", "extract-model"):
            methods[peer] = [*script, peer, str(case.source), str(out), case.cut]
    return methods


def run(command: list[str]) -> Run:
    """Run one split to its end. What it wrote is left to the kernel, as `cp` leaves it."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} failed")
    report: dict[str, Any] = json.loads(said) if said else {"seconds": wall, "peak": 0}
    return Run(wall, usage.ru_utime + usage.ru_stime, report["seconds"], report["peak"])


def measure(case: Case, rounds: int, peers: bool) -> dict[str, Any]:
    runs: dict[str, list[Run]] = {}
    for _ in range(rounds):
        for method in commands(case, peers, Path()):
            with tempfile.TemporaryDirectory(dir=case.source.parent) as out:
                command = commands(case, peers, Path(out))[method]
                runs.setdefault(method, []).append(run(command))
            os.sync()  # what one method wrote must not slow the next
    return {
        "case": case.name,
        "size_mb": size(case) / 1e6,
        "methods": {m: row(r, runs["cp"]) for m, r in runs.items()},
    }


def size(case: Case) -> int:
    return sum(
        path.stat().st_size for path in (case.source, Path(f"{case.source}.data")) if path.exists()
    )


def row(runs: list[Run], copies: list[Run]) -> dict[str, Any]:
    walls = sorted(run.wall for run in runs)
    return {
        "wall_s": statistics.median(walls),
        "spread_s": [walls[0], walls[-1]],
        "cpu_s": statistics.median(run.cpu for run in runs),
        "work_s": statistics.median(run.work for run in runs),
        "wall_times_cp": statistics.median(
            a.wall / b.wall for a, b in zip(runs, copies, strict=True)
        ),
        "cpu_times_cp": statistics.median(a.cpu / b.cpu for a, b in zip(runs, copies, strict=True)),
        "peak_mb": max(run.peak for run in runs) / 1e6,
    }


def report(results: dict[str, Any]) -> None:
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    for result in results["cases"]:
        print(f"\n{result['case']}: {result['size_mb']:.1f} MB")
        print(
            f"{'':14}{'wall s':>9}{'min':>8}{'max':>8}{'cpu s':>8}{'work s':>8}"
            f"{'wall/cp':>9}{'cpu/cp':>8}{'MB':>7}"
        )
        for method, r in result["methods"].items():
            low, high = r["spread_s"]
            times = f"{r['wall_s']:9.3f}{low:8.3f}{high:8.3f}{r['cpu_s']:8.3f}{r['work_s']:8.3f}"
            print(
                f"{method:14}{times}{r['wall_times_cp']:9.2f}{r['cpu_times_cp']:8.2f}"
                f"{r['peak_mb']:7.0f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also time extract_model and onnx-ir")
    parser.add_argument("--small", action="store_true", help="models of one fiftieth")
    parser.add_argument(
        "--folder", type=Path, help="where to make the models; 8 GB are needed there"
    )
    options = parser.parse_args()
    package = Path(irsplit.__file__).parent
    for part in (
        package,
        package / "passes",
        package / "runtime",
    ):  # links, in a checkout: not followed
        compileall.compile_dir(part.resolve(), quiet=1)
    folder = Path(tempfile.mkdtemp(prefix="irsplit-bench-", dir=options.folder)).absolute()
    try:
        cases = make_cases(folder, 50 if options.small else 1)
        measured = [measure(case, options.rounds, options.peers) for case in cases]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    packages = ("onnx", "numpy", *(("onnx-ir",) if options.peers else ()))
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "rounds": options.rounds,
        **{name: version(name) for name in packages},
    }
    results = {"machine": machine, "cases": measured}
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        report(results)


if __name__ == "__main__":
    main()
