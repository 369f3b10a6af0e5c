"""The experiment of `benchmarks/experiment.py` with the real client, a server process, sockets.

python -m benchmarks.experiment_measured [-o docs/experiment-measured.md]     loopback, two minutes

The network is a stand-in with the frames of the simulated one (slices of bytes, so that the
machine's own speed does not matter), its device segments wait as long as the device profile says,
and a proxy makes the bytes obey the link.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import irsplit
import irsplit.runtime
from benchmarks.experiment import (
    DEADLINE_S,
    NAMES,
    PAPER,
    PICTURE,
    WIFI,
    Call,
    Schedule,
    Way,
    choices,
    client,
    told,
    ways,
)
from benchmarks.link import Proxy
from benchmarks.networks import resnet101_v2
from benchmarks.soak import process
from benchmarks.tables import markdown
from irsplit.runtime.run import segments
from irsplit.runtime.run.engines import EngineOptions, ModelFile
from irsplit.runtime.run.state import Segment, open_segment

SCHEDULE: Schedule = ((0.0, WIFI), (20.0, PAPER), (50.0, None), (70.0, PAPER), (105.0, WIFI))
ENDS_S = 125.0


def stand_in(path: Path, stops: Sequence[Way]) -> Path:
    """A model that hands bytes on, as many at each cut as the simulated network sends there."""
    sizes = [way.up_bytes for way in stops if way.up_bytes]
    nodes, constants, before = list[onnx.NodeProto](), list[onnx.TensorProto](), "picture"
    length = PICTURE
    for index, size in enumerate([*sizes, 100]):
        repeats = -(-size // length)
        for name, value in (
            (f"repeats{index}", [repeats]),
            (f"starts{index}", [0]),
            (f"ends{index}", [size]),
        ):
            constants.append(numpy_helper.from_array(np.array(value, np.int64), name))
        name = f"cut{index}" if index < len(sizes) else "answer"
        nodes.append(helper.make_node("Tile", [before, f"repeats{index}"], [f"tiled{index}"]))
        nodes.append(
            helper.make_node("Slice", [f"tiled{index}", f"starts{index}", f"ends{index}"], [name])
        )
        before, length = name, size
    infos = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [size])
        for name, size in (("picture", PICTURE), ("answer", 100))
    ]
    graph = helper.make_graph(nodes, "stand-in", infos[:1], infos[1:], constants)
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path
    )
    return path


@dataclass(frozen=True)
class Paced:
    """An engine that takes as long as it is told."""

    engine: Any
    seconds: float

    @property
    def optimized(self) -> bool:
        return self.engine.optimized

    def run(self, inputs: Any) -> Any:
        ends = time.monotonic() + self.seconds
        outputs = self.engine.run(inputs)
        time.sleep(max(ends - time.monotonic(), 0.0))
        return outputs

    def reset(self) -> None:
        self.engine.reset()


def pace(stops: Sequence[Way]) -> None:
    """Let the device's segments of this process take as long as the profile says."""
    ends = [way.device_s for way in stops]
    spans = [end - begin for begin, end in zip([0.0, *ends[:-1]], ends, strict=True)]
    names = {f"segment{index}": span for index, span in enumerate(spans)}

    def paced(file: ModelFile, segment: Segment, options: EngineOptions) -> Paced:
        return Paced(open_segment(file, segment, options), names[Path(file.name).stem])

    segments.open_segment = paced


def follow(proxy: Proxy, began: float) -> None:
    """Change the link by the schedule."""
    for at, over in SCHEDULE:
        time.sleep(max(began + at - time.monotonic(), 0.0))
        if over is None:
            proxy.freeze()
        else:
            proxy.link = over
            proxy.mend()


def measured(bundle: Path, port: int, names: Sequence[str]) -> list[Call]:
    """The calls of a session that chooses; every answer compared."""
    picture = np.random.default_rng(0).integers(0, 256, PICTURE, np.uint8)
    calls = list[Call]()
    with Proxy(port, WIFI, 2018).running() as proxy:
        url = f"grpc://127.0.0.1:{proxy.port}"
        with irsplit.runtime.connect(url, bundle, name="stand-in", timeout_s=DEADLINE_S) as session:
            expected = session.infer({"picture": picture}).outputs["answer"]
            began = time.monotonic()
            changing = threading.Thread(target=follow, args=(proxy, began))
            changing.start()
            while (at := time.monotonic() - began) < ENDS_S:
                answer = session.infer({"picture": picture})
                assert np.array_equal(answer.outputs["answer"], expected)
                known = names[int(answer.cut[3:])] if answer.cut.startswith("cut") else answer.cut
                calls.append(Call(at, answer.seconds, known, answer.path))
            changing.join()
    return calls


_PAGE = """# The experiment, measured

Made by `python -m benchmarks.experiment_measured -o docs/experiment-measured.md`. **Measured**: a
real session over gRPC, a server process, a proxy on loopback that does to the bytes what the link
does. The network is a stand-in whose frames are as large as those of the [simulated
one](experiment.md) and whose device segments wait as long as the device's profile says.
**Simulated**: the same changes of the link on the virtual clock.

Mean seconds of a call of the adaptive client by phase; every answer was compared.

{table}

The adaptive client took, measured: {measured}.
Simulated: {simulated}.
"""


def _row(kind: str, calls: Sequence[Call]) -> list[str]:
    begins = [*(at for at, _ in SCHEDULE), ENDS_S]
    cells = [kind, str(len(calls))]
    for begin, end in pairwise(begins):
        found = [call.seconds for call in calls if begin <= call.began_s < end]
        cells.append(f"{mean(found):.2f}" if found else "-")
    return cells


def page() -> str:
    stops = ways(resnet101_v2())
    pace(stops)
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        model, bundle = stand_in(Path(folder) / "stand-in.onnx", stops), Path(folder) / "bundle"
        cuts = [f"cut{index}" for index in range(len(stops) - 1)]
        irsplit.compile_model(model, bundle, cuts, autonomous=True, codec="raw", remember=False)
        serve = ("irsplit", "serve", "--port", "0", "--no-http", "--log-level", "error")
        with process(*serve, f"stand-in={bundle}") as (address, _):
            calls = measured(bundle, int(address.rpartition(":")[2]), [way.name for way in stops])
    simulated = client(None, stops, SCHEDULE, ENDS_S)
    head = ["", "calls", *(f"{NAMES[over]} from {at:.0f} s" for at, over in SCHEDULE)]
    table = markdown(head, [_row("measured", calls), _row("simulated", simulated)])
    return _PAGE.format(
        table=table, measured=told(choices(calls)), simulated=told(choices(simulated))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="write the page here; default: print it")
    arguments = parser.parse_args()
    text = page()
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
