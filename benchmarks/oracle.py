"""Is the planned cut the best when measured? All cuts, run: `python -m benchmarks.oracle`.

The device is emulated by one thread at a stated slow-down, the server by one thread. Every legal
cut becomes a bundle, and the planner sees nothing of it: it plans from a profile that was measured
before, part by part. Two ways to measure the cuts: by CPU time with the link's rates on a virtual
clock, on any machine, however busy; and with `--end-to-end` by the clock on the wall, through
client, shaped link and server process, on a quiet machine.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import ONE_THREAD, race, run_on_device, split_runs, whole_on_server
from benchmarks.tables import markdown
from irsplit.compilation.compiler import whole_model
from irsplit.compilation.old_names import compile_model
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import seeded_calls
from irsplit.measure.measurement import Effort, machine
from irsplit.measure.profiling import profile_model
from irsplit.passes.analysis.cuts import legal_cuts
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.preparation import prepared
from irsplit.profiles import Link, Message, link
from irsplit.profiles.measured import to_json
from irsplit.runtime.run.engines import Engine, open_engine
from irsplit.runtime.run.session import DeviceSession, Frame, ServerSession

MODELS = (
    "mobilenet_v1_025_128_uint8.tflite",
    "yamnet_wav_int8.tflite",
    "mobilenet_v2_inat_bird_uint8.tflite",
    "squeezenet_fp16.onnx",
    "fastestdet.onnx",
    "ultraface_rfb320.onnx",
)
LINKS = ("3g", "4g", "wifi,rtt=10ms")
SLOWDOWN = 32
DEVICE_ONLY, SERVER_ONLY = "device only", "server only"
_LEAST = 0.8
"""Of the time that CPU and wire need by themselves: what a run by the clock takes at least."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to run a model: thread time on either side, bytes up and down."""

    device_ns: int
    server_ns: int
    up_bytes: int
    down_bytes: int

    def total_ns(self, over: Link) -> int:
        """End to end over a link: nothing is sent when the model stays on the device."""
        if not self.up_bytes:
            return SLOWDOWN * self.device_ns
        sent = (
            self.up_bytes * 8 * 10**9 // over.up_bit_s
            + self.down_bytes * 8 * 10**9 // over.down_bit_s
        )
        return SLOWDOWN * self.device_ns + self.server_ns + sent + over.rtt_ns


def _thread_ns(call: Callable[[], Any]) -> tuple[int, Any]:
    """The calling thread's CPU time, which a busy machine does not change; engines use no other."""
    start = time.thread_time_ns()
    result = call()
    return time.thread_time_ns() - start, result


@dataclass(frozen=True, slots=True)
class Subject:
    """One model with all it takes to run it: a bundle per legal cut, the whole model, one call."""

    path: Path
    bundles: dict[str, Path]
    whole: Engine
    inputs: tuple[str, ...]
    call: dict[str, Any]


def prepare(path: Path, folder: Path) -> Subject:
    entry = dialect_of(path).read(path).entry
    bundles = {cut.id: folder / cut.id for cut in legal_cuts(entry)}
    for cut, bundle in bundles.items():
        compile_model(path, bundle, [cut])
    file, infos = whole_model(path)
    whole = open_engine(file.path, file.format, ONE_THREAD)
    return Subject(path, bundles, whole, file.inputs, seeded_calls(infos, 1)[0])


def sweep(subject: Subject, rounds: int) -> dict[str, Measured]:
    """Every legal cut, and the whole at either place, `rounds` times in turns: median CPU times."""
    sessions = {
        cut: (DeviceSession(bundle, ONE_THREAD), ServerSession(bundle, ONE_THREAD))
        for cut, bundle in subject.bundles.items()
    }
    fed = [subject.call[name] for name in subject.inputs]
    times: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for turn in range(rounds + 1):
        for name, (device, server) in sessions.items():
            near, frame = _thread_ns(lambda d=device: d.start(subject.call))
            far, outputs = _thread_ns(lambda s=server, f=frame: s.resume(f))
            early = frame.results if isinstance(frame, Frame) else {}
            late = [value for key, value in outputs.items() if key not in early]
            sizes[name] = len(frame), sum(value.nbytes for value in late)
            times.setdefault(name, []).extend([(near, far)] if turn else [])
        alone, outputs = _thread_ns(lambda: subject.whole.run(fed))
        sizes[DEVICE_ONLY] = 0, 0
        sizes[SERVER_ONLY] = (
            sum(array.nbytes for array in fed),
            sum(value.nbytes for value in outputs),
        )
        for name, pair in ((DEVICE_ONLY, (alone, 0)), (SERVER_ONLY, (0, alone))):
            times.setdefault(name, []).extend([pair] if turn else [])
    medians = {
        name: (
            round(statistics.median(near for near, _ in pairs)),
            round(statistics.median(far for _, far in pairs)),
        )
        for name, pairs in times.items()
    }
    return {name: Measured(near, far, *sizes[name]) for name, (near, far) in medians.items()}


def clock_times(
    subject: Subject, seen: dict[str, Measured], over: Link, planned: str, rounds: int
) -> dict[str, int]:
    """End-to-end latencies by the clock, in ns, of all that can be best by what the sweep saw."""
    least_s = {name: _LEAST * measured.total_ns(over) / 1e9 for name, measured in seen.items()}
    with contextlib.ExitStack() as stack:
        runs = stack.enter_context(split_runs(subject.bundles, subject.call, over, SLOWDOWN))
        far = stack.enter_context(
            whole_on_server(subject.whole, subject.call, subject.inputs, over)
        )
        runs |= {
            DEVICE_ONLY: lambda: run_on_device(
                subject.whole, subject.call, subject.inputs, SLOWDOWN
            ),
            SERVER_ONLY: far,
        }
        found = race(runs, least_s, rounds, (planned, DEVICE_ONLY))
    return {name: round(seconds * 1e9) for name, seconds in found.items()}


def rows(path: Path, rounds: int, *, end_to_end: bool) -> list[list[str]]:
    """One row a link: what was planned, what is best, and how far the plan is from it."""
    with tempfile.TemporaryDirectory(prefix="irsplit-oracle-") as name:
        folder = Path(name)
        profile = folder / "profile.json"
        parts = profile_model(path, effort=Effort(runs=25, fresh=False))
        if not end_to_end:  # nothing is exchanged then
            parts = replace(parts, message=Message(parts.message.device_ns))
        profile.write_text(to_json(parts), encoding="utf-8")
        dialect = dialect_of(path)
        subject = prepare(path, folder)
        seen = sweep(subject, rounds)
        lines: list[list[str]] = []
        for text in LINKS:
            choose = ChooseCut(
                device=f"{profile},clock=cpu,slowdown={SLOWDOWN}", link=text, codec="zstandard"
            )
            model = dialect.read(path)
            choice = choose.choose(model, prepared(model, dialect))
            planned = choice.ranked[0].label
            totals = {cut: measured.total_ns(link(text)) for cut, measured in seen.items()}
            if end_to_end:
                totals = clock_times(subject, seen, link(text), planned, rounds)
            best = min(totals, key=lambda cut: totals[cut])
            over = 100 * (totals[planned] / totals[best] - 1)
            alone = [
                f"{totals[one] / 1e6:.1f}" if one in totals else "-"
                for one in (DEVICE_ONLY, SERVER_ONLY)
            ]
            times = (choice.ranked[0].row.value, totals[planned], totals[best])
            predicted, measured_ms, best_ms = (f"{ns / 1e6:.1f}" for ns in times)
            cells = [
                path.name,
                text,
                str(len(subject.bundles)),
                planned,
                predicted,
                measured_ms,
                best,
                best_ms,
            ]
            lines.append([*cells, f"{over:.1f} %", *alone])
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent.parent / "shared" / "models"
    parser.add_argument(
        "--corpus", type=Path, default=Path(os.environ.get("IRSPLIT_CORPUS", default))
    )
    parser.add_argument(
        "--rounds", type=int, default=0, help="runs of each cut; default 15, or 25 end to end"
    )
    parser.add_argument(
        "--end-to-end", action="store_true", help="by the clock, through client, link and server"
    )
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    head = [
        "model",
        "link",
        "cuts",
        "planned",
        "predicted ms",
        "measured ms",
        "best",
        "measured ms",
        "over the best",
    ]
    head += ["device only ms", "server only ms"]
    rounds = arguments.rounds or (25 if arguments.end_to_end else 15)
    print(
        f"{machine()}; one thread each side, device {SLOWDOWN} times slower, median of {rounds}\n"
    )
    for model in arguments.models:
        lines = rows(arguments.corpus / "models" / model, rounds, end_to_end=arguments.end_to_end)
        print(markdown(head, lines) + "\n", flush=True)


if __name__ == "__main__":
    main()
