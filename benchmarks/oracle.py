"""Is the planned cut the best one when measured? Every cut of some models, run for real: `python -m benchmarks.oracle`.

The device is emulated by one thread at a stated slow-down, the link by its rates on a virtual clock, the server by one
thread. Every legal cut becomes a bundle; its halves run through real frames, interleaved over all cuts. The planner
sees nothing of that: it plans from a profile that was measured before, part by part.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown
from irsplit.bundle import tensor_info
from irsplit.compiler import compile_model, whole_model
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import seeded_calls
from irsplit.passes.choose_cut import ChooseCut, label
from irsplit.passes.cuts import legal_cuts
from irsplit.profiles import Link, link
from irsplit.profiles.measured import to_json
from irsplit.profiling import Effort, machine, profile_model
from irsplit.runtime.engines import EngineOptions, open_engine
from irsplit.runtime.session import DeviceSession, Frame, ServerSession

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
ONE_THREAD = EngineOptions(threads=1)


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
        sent = self.up_bytes * 8 * 10**9 // over.up_bit_s + self.down_bytes * 8 * 10**9 // over.down_bit_s
        return SLOWDOWN * self.device_ns + self.server_ns + sent + over.rtt_ns


def _thread_ns(call: Callable[[], Any]) -> tuple[int, Any]:
    """The calling thread's CPU time, which a busy machine does not change; engines here have no other thread."""
    start = time.thread_time_ns()
    result = call()
    return time.thread_time_ns() - start, result


def sweep(path: Path, folder: Path, rounds: int) -> dict[str, Measured]:
    """Every legal cut, and the whole model at either place, run `rounds` times in turns; medians."""
    dialect = dialect_of(path)
    entry = dialect.read(path).entry
    infos = [tensor_info(value) for value in entry.inputs if value.constant is None]
    inputs = seeded_calls(infos, 1)[0]
    sessions: dict[str, tuple[DeviceSession, ServerSession]] = {}
    for cut in legal_cuts(entry):
        bundle = folder / cut.id
        compile_model(path, bundle, [cut.id])
        sessions[cut.id] = DeviceSession(bundle, ONE_THREAD), ServerSession(bundle, ONE_THREAD)
    file, _ = whole_model(path)
    whole = open_engine(file.path, file.format, ONE_THREAD)
    fed = [inputs[name] for name in file.inputs]
    times: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for turn in range(rounds + 1):
        for name, (device, server) in sessions.items():
            near, frame = _thread_ns(lambda d=device: d.start(inputs))
            far, outputs = _thread_ns(lambda s=server, f=frame: s.resume(f))
            early = frame.results if isinstance(frame, Frame) else {}
            late = [value for key, value in outputs.items() if key not in early]
            sizes[name] = len(frame), sum(value.nbytes for value in late)
            times.setdefault(name, []).extend([(near, far)] if turn else [])
        alone, outputs = _thread_ns(lambda: whole.run(fed))
        sizes["device only"] = 0, 0
        sizes["server only"] = sum(array.nbytes for array in fed), sum(value.nbytes for value in outputs)
        for name, pair in (("device only", (alone, 0)), ("server only", (0, alone))):
            times.setdefault(name, []).extend([pair] if turn else [])
    medians = {
        name: (round(statistics.median(near for near, _ in pairs)), round(statistics.median(far for _, far in pairs)))
        for name, pairs in times.items()
    }
    return {name: Measured(near, far, *sizes[name]) for name, (near, far) in medians.items()}


def rows(path: Path, rounds: int) -> list[list[str]]:
    """One row a link: what was planned, what is best, and how far the plan is from it."""
    with tempfile.TemporaryDirectory(prefix="irsplit-oracle-") as name:
        folder = Path(name)
        profile = folder / "profile.json"
        profile.write_text(to_json(profile_model(path, effort=Effort(runs=25, fresh=False))), encoding="utf-8")
        dialect = dialect_of(path)
        found = sweep(path, folder, rounds)
        lines: list[list[str]] = []
        for text in LINKS:
            choose = ChooseCut(device=f"{profile},clock=cpu,slowdown={SLOWDOWN}", link=text, codec="zstandard")
            choice = choose.choose(dialect.read(path), dialect.macs)
            planned = label(choice.parts, choice.ranked[0])
            totals = {cut: measured.total_ns(link(text)) for cut, measured in found.items()}
            best = min(totals, key=lambda cut: totals[cut])
            over = 100 * (totals[planned] / totals[best] - 1)
            times = (
                choice.ranked[0].value,
                totals[planned],
                totals[best],
                totals["device only"],
                totals["server only"],
            )
            predicted, measured_ms, best_ms, *alone = (f"{ns / 1e6:.1f}" for ns in times)
            cells = [path.name, text, str(len(found) - 2), planned, predicted, measured_ms, best, best_ms]
            lines.append([*cells, f"{over:.1f} %", *alone])
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent.parent / "shared" / "models"
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("IRSPLIT_CORPUS", default)))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    head = ["model", "link", "cuts", "planned", "predicted ms", "measured ms", "best", "measured ms", "over the best"]
    head += ["device only ms", "server only ms"]
    print(f"{machine()}; one thread each side, device {SLOWDOWN} times slower, median of {arguments.rounds}\n")
    for model in arguments.models:
        print(markdown(head, rows(arguments.corpus / "models" / model, arguments.rounds)) + "\n", flush=True)


if __name__ == "__main__":
    main()
