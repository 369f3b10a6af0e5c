"""The measured columns of the Ushakov table: our ResNet-v2-101, really cut, on this machine."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.networks import resnet101_v2
from benchmarks.paper_ushakov import LEVELS
from benchmarks.resnet import build
from benchmarks.tables import fixed, markdown
from irsplit.compilation.compiler import whole_model
from irsplit.compilation.old_names import compile_model
from irsplit.engines.execute import SegmentFile
from irsplit.engines.isolate import isolated
from irsplit.engines.measure import measure_part
from irsplit.measure.measurement import machine
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.run.session import DeviceSession

ONE_THREAD = EngineOptions(threads=1)


def _frame_bytes(bundle: Path, call: dict[str, np.ndarray]) -> int:
    frame = DeviceSession(bundle, ONE_THREAD).start(call)
    assert isinstance(frame, bytes)
    return len(frame)


def table() -> str:
    with tempfile.TemporaryDirectory(prefix="irsplit-resnet-") as name:
        folder = Path(name)
        path = folder / "resnet-v2-101.onnx"
        parameters = build(path)
        assert parameters == resnet101_v2().parameters
        call = {"image": np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)}
        whole, _ = isolated(measure_part, whole_model(path)[0], call, ONE_THREAD, 1, 3)
        rows = [["whole model", _mb(path.stat().st_size), _mb(whole.peak_bytes), "-", "-", "-"]]
        for tensor, level in list(LEVELS.items())[:-1]:
            rows.append([level, *_level(path, folder, tensor, call)])
    head = [
        "cut after",
        "device file MB",
        "device peak RSS MB",
        "CPU ms",
        "lossless frame MB",
        "int8 frame MB",
    ]
    return "\n".join(
        [
            "## (a) measured: the same network as ONNX, seeded weights, one seeded picture",
            "",
            (
                f"{machine()}, one thread. Peak memory of a fresh process above its size before "
                "the model is loaded."
            ),
            "Weights and picture are random: coded sizes of a trained network differ.",
            "",
            markdown(head, rows),
        ]
    )


def _level(path: Path, folder: Path, tensor: str, call: dict[str, np.ndarray]) -> list[str]:
    lossless, int8 = folder / f"{tensor}-lossless", folder / f"{tensor}-int8"
    compile_model(path, lossless, [tensor])
    compile_model(path, int8, [tensor], boundary="int8", calibration=[call])
    manifest = Manifest.load(lossless)
    near = manifest.segments[0]
    file = SegmentFile(manifest.path(near.file), near.format, near.inputs, near.outputs)
    load, _ = isolated(measure_part, file, call, ONE_THREAD, 1, 3)
    frames = [_mb(isolated(_frame_bytes, bundle, call), 3) for bundle in (lossless, int8)]
    return [
        _mb(file.path.stat().st_size),
        _mb(load.peak_bytes),
        fixed(load.cpu_ns, 10**6, 0),
        *frames,
    ]


def _mb(size_bytes: int, digits: int = 1) -> str:
    return fixed(size_bytes, 10**6, digits)
