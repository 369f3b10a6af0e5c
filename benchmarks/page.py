"""Run the suite and write docs/benchmarks.md with its plots.

    python -m benchmarks.page [--json SUITE.json]

With `--json`, the page is made of an earlier run: `pytest benchmarks --benchmark-only
--benchmark-json SUITE.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.plots import Bar, bar_chart, duration
from benchmarks.tables import markdown
from irsplit.measure.measurement import machine

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"
TOPICS = {
    "split": (
        "Splitting a model file",
        "Reading a model, finding its cuts, cutting in the middle, writing both halves. Copying "
        "the file is what any splitter has to do; irsplit's writers copy spans of the file and "
        "look at no weight. With many small nodes the cost is that of the graph: irsplit also "
        "looks at every other position and says why it is no cut. "
        "`benchmarks/bench_split_onnx.py` and `bench_split_tflite.py` go to 3 GB and measure "
        "memory.",
    ),
    "compile": (
        "Compiling a bundle",
        "All of `compile_model`; static-rans also runs and trains on 32 inputs.",
    ),
    "cuts": (
        "Finding cuts",
        (
            "All legal cuts of a residual chain, and a reason for every other position; "
            "`onnx.load` for comparison."
        ),
    ),
    "encode": (
        "Encoding a boundary",
        "Whole frames with header and checksum, of real activations; trained codecs saw other "
        "inputs. One thread. [codec.md](codec.md) has all networks.",
    ),
    "decode": ("Decoding a boundary", "The same frames, back into tensors."),
    "plan": (
        "Planning",
        "From a cost table to a placement that is proved best. DADS is that paper's algorithm "
        "over the same table, without limits and for one cut. [planner.md](planner.md) says what "
        "is exact.",
    ),
    "resume": (
        "A split inference",
        "Both halves and the frame between them in one process, one thread, against the whole "
        "model and against halves made with onnx's `extract_model` that pass the bare tensor.",
    ),
    "server": (
        "The service",
        "A resume of a 100 kB frame over gRPC on loopback, against the resume itself and a "
        "grpc.aio server that does nothing. `python -m benchmarks.serving` has throughput.",
    ),
}
VERSIONS = (
    "numpy",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "zstandard",
    "onnx-ir",
    "grpcio",
    "blosc2",
    "pcodec",
)


def run_suite(path: Path) -> None:
    """Runs pytest; raises CalledProcessError when a benchmark fails, and then there is no page."""
    words = (
        "--benchmark-only",
        "--benchmark-quiet",
        "--benchmark-max-time=0.5",
        f"--benchmark-json={path}",
    )
    subprocess.run([sys.executable, "-m", "pytest", "benchmarks", *words], cwd=ROOT, check=True)


def page(suite: dict[str, Any]) -> str:
    sections = [_section(topic, suite["benchmarks"]) for topic in TOPICS]
    return "\n\n".join([_head(suite), *filter(None, sections)]) + "\n"


def plots(suite: dict[str, Any]) -> dict[str, str]:
    """SVG by file name, one a topic."""
    found = {topic: _groups(topic, suite["benchmarks"]) for topic in TOPICS}
    return {
        f"{topic}.svg": bar_chart(
            [(name, [_bar(each) for each in timings]) for name, timings in groups.items()]
        )
        for topic, groups in found.items()
        if groups
    }


def _head(suite: dict[str, Any]) -> str:
    installed = [f"{name} {found}" for name in VERSIONS if (found := _version(name))]
    about = suite["machine_info"]
    cpus = about["cpu"].get("count", "?")
    return (
        "# Benchmarks\n\n"
        "Made by `python -m benchmarks.page`, which runs the suite (`pytest benchmarks "
        "--benchmark-only`). Every result is checked before it is timed; times are medians over "
        "rounds, with the distance between the quartiles. Other tools are measured where they are "
        "installed (`pip install 'irsplit[bench]'`). What each cut of *your* model costs is for "
        "[`irsplit bench`](how-to/benchmark-cuts.md).\n\n"
        f"{machine()}, {cpus} CPUs; Python {about['python_version']}; {', '.join(installed)}; "
        f"{suite['datetime'][:10]}."
    )


def _section(topic: str, timings: Sequence[dict[str, Any]]) -> str:
    groups = _groups(topic, timings)
    if not groups:
        return ""
    title, text = TOPICS[topic]
    parts = [f"## {title}", text, f"![{title}: times as bars](benchmarks/{topic}.svg)"]
    parts += [f"{name}\n\n{_table(rows)}" for name, rows in groups.items()]
    return "\n\n".join(parts)


def _groups(topic: str, timings: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The timings of a topic by what follows its name in the group's, in the order of the run."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for timing in timings:
        first, _, rest = timing["group"].partition(": ")
        if first == topic:
            groups.setdefault(rest, []).append(timing)
    return groups


def _table(timings: Sequence[dict[str, Any]]) -> str:
    """Times, each over that of the group's first row; and a frame's share of the raw bytes."""
    first = timings[0]["stats"]["median"]
    coded = all("frame_bytes" in timing["extra_info"] for timing in timings)
    rows: list[list[str]] = []
    for timing in timings:
        stats, info = timing["stats"], timing["extra_info"]
        ratio = stats["median"] / first
        over = f"{ratio:.3g}" if ratio < 1000 else f"{ratio:.0f}"
        row = [info["label"], duration(stats["median"]), duration(stats["iqr"]), over]
        share = [f"{100 * info['frame_bytes'] / info['raw_bytes']:.1f} %"] if coded else []
        rows.append([*row, *share, str(stats["rounds"])])
    first_label = timings[0]["extra_info"]["label"]
    return markdown(
        ["", "median", "spread", f"over {first_label}", *(["bytes"] if coded else []), "rounds"],
        rows,
    )


def _bar(timing: dict[str, Any]) -> Bar:
    info, stats = timing["extra_info"], timing["stats"]
    return Bar(info["label"], info["kind"], stats["median"], stats["iqr"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="make the page of this run")
    given: Path | None = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        path = given or Path(folder) / "suite.json"
        if given is None:
            run_suite(path)
        suite = json.loads(path.read_text(encoding="utf-8"))
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    for name, text in plots(suite).items():
        (PLOTS / name).write_text(text, encoding="utf-8")
    PAGE.write_text(page(suite), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
