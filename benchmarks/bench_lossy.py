"""How small a boundary becomes for a given accuracy: classifiers of the corpus, one uniform step, static-rans behind.

    python benchmarks/bench_lossy.py [--networks NAME,...] [--cuts 4] [--agreement 0.975] [--inputs 60]

For every cut the coarsest step with which the real server half gives the same class on that share of crops of two
pictures; ranges and tables come from crops of four others. Beside it the input itself as JPEG and lossless WebP, with
the agreement of the whole network on the decoded picture.
"""

import argparse
import io
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from boundaries import (
    CALIBRATION_PICTURES,
    CALIBRATION_SAMPLES,
    CORPUS,
    NETWORKS,
    TEST_PICTURES,
    Floats,
    Network,
    crops,
    feeds_of,
)
from numpy.typing import NDArray
from PIL import Image

import irsplit
from irsplit.boundary.agreement import agreement
from irsplit.boundary.codec import train
from irsplit.dialects.registry import dialect_of
from irsplit.ir import TensorType
from irsplit.passes import find_cuts
from irsplit.runtime import frame
from irsplit.runtime.boundary import Boundary, TensorSpec
from irsplit.runtime.engines import Engine, open_engine
from irsplit.runtime.manifest import Manifest

Array = NDArray[Any]

CLASSIFIERS = (
    "mobilenet_v1_025_128_uint8.tflite",
    "mobilenet_v2_inat_bird_uint8.tflite",
    "resnet8_cifar_float.tflite",
    "squeezenet_fp16.onnx",
)
LEVELS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4)
"""Steps over the calibration's range, fine to coarse."""
GIVE_UP = 3
"""So many levels in a row that miss: a step that is no multiple of an integer tensor's own may do worse."""


@dataclass(frozen=True)
class Step:
    """A uniform step over what calibration saw, zero exactly representable; `zero` is that of an integer tensor."""

    size: float
    low: int
    zero: int

    @classmethod
    def over(cls, samples: Sequence[Array], levels: int, zero: int) -> "Step":
        low = min(float(sample.min()) for sample in samples) - zero
        high = max(float(sample.max()) for sample in samples) - zero
        size = (max(high, 0.0) - min(low, 0.0)) / (levels - 1) or 1.0
        return cls(size, round(min(low, 0.0) / size), zero)

    def symbols(self, array: Array) -> NDArray[np.uint8]:
        return np.clip(np.rint((array.astype(np.float32) - self.zero) / self.size) - self.low, 0, 255).astype(np.uint8)

    def values(self, symbols: NDArray[np.uint8], dtype: np.dtype[Any]) -> Array:
        wide = (symbols.astype(np.float32) + self.low) * self.size + self.zero
        if dtype.kind == "f":
            return wide.astype(dtype)
        info = np.iinfo(dtype)
        return np.clip(np.rint(wide), info.min, info.max).astype(dtype)


@dataclass(frozen=True)
class Halves:
    """A classifier cut in two, in stock engines; one tensor crosses."""

    device: Engine
    server: Engine
    type: TensorType

    def near(self, feeds: Sequence[Array]) -> list[Array]:
        return [np.array(self.device.run([feed])[0]) for feed in feeds]

    def far(self, crossing: Sequence[Array]) -> list[Any]:
        return [np.array(self.server.run([array])[0]).ravel() for array in crossing]

    @property
    def zero(self) -> int:
        return self.type.quantization.zero_point[0] if self.type.quantization is not None else 0


def split(path: Path, cut: str, type: TensorType, folder: Path) -> Halves:
    irsplit.compile_model(path, folder, [cut], codec="raw", remember=False)
    manifest = Manifest.load(folder)
    files = [(manifest.path(segment.file), segment.format) for segment in manifest.segments]
    device, server = (open_engine(*file) for file in files)
    return Halves(device, server, type)


def frame_bytes(calibration: Sequence[Array], test: Sequence[Array], layout: str) -> float:
    """Mean frame of 8-bit symbols under a model trained on others."""
    spec = train(calibration, TensorSpec("x", "u8", test[0].shape), layout=layout, level=1)
    boundary = Boundary(0, "x", (spec,))
    return statistics.mean(len(frame.encode(boundary, [array])) for array in test)


def measure(halves: Halves, layout: str, calibration: Sequence[Array], test: Sequence[Array], least: float) -> str:
    """The coarsest step that still agrees, as the rest of a row."""
    near, crossing = halves.near(calibration), halves.near(test)
    expected = halves.far(crossing)
    kept: tuple[int, float, Step] | None = None
    failures = 0
    for levels in LEVELS:
        step = Step.over(near, levels, halves.zero)
        found = halves.far([step.values(step.symbols(array), array.dtype) for array in crossing])
        share = agreement(expected, found)
        failures = failures + 1 if share < least else 0
        if share >= least:
            kept = levels, share, step
        if failures == GIVE_UP:
            break
    raw = 4 * crossing[0].size
    if kept is None:
        return f"{raw} | - | - | - | - |"
    levels, share, step = kept
    size = frame_bytes([step.symbols(array) for array in near], [step.symbols(array) for array in crossing], layout)
    return f"{raw} | {levels} | {share:.3f} | {size:.0f} | {raw / size:.1f} |"


def pictures_row(
    path: Path, network: Network, pictures: Sequence[Floats], feeds: Sequence[Array], whole: Engine
) -> str:
    """Bytes of the input as a picture, and agreement of the whole network on what is decoded from it."""
    expected = [np.array(whole.run([feed])[0]).ravel() for feed in feeds]
    cells: list[str] = []
    for name, options in (("JPEG", {"quality": 95}), ("JPEG", {"quality": 75}), ("WebP", {"lossless": True})):
        files = [io.BytesIO() for _ in pictures]
        for file, picture in zip(files, pictures, strict=True):
            Image.fromarray(picture.astype(np.uint8)).save(file, name, **options)
        decoded = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]
        found = [np.array(whole.run([feed])[0]).ravel() for feed in typed(path, feeds_of(network, decoded))]
        size = statistics.mean(file.tell() or len(file.getvalue()) for file in files)
        label = "WebP lossless" if "lossless" in options else f"JPEG q{options['quality']}"
        cells.append(f"{label} {size:.0f} bytes at {agreement(expected, found):.3f}")
    return "; ".join(cells)


def typed(path: Path, feeds: Sequence[Floats]) -> list[Array]:
    """As the model wants them: bytes, or half precision."""
    type = dialect_of(path).read(path).entry.inputs[0].type
    storage = type.dtype.storage if isinstance(type, TensorType) else None
    return [feed.astype(storage or np.float32) for feed in feeds]


def cuts_of(path: Path, count: int) -> list[tuple[str, TensorType]]:
    """Evenly spaced legal cuts of one tensor that is smaller than the input as f32, with the tensor's type."""
    entry = dialect_of(path).read(path).entry
    legal = [cut for cut in find_cuts(entry) if cut.legal and len(cut.tensors) == 1 and cut.kind == "strict"]
    typed_cuts = [(cut.id, cut.tensors[0].type) for cut in legal[:-1]]
    useful = [(id, type) for id, type in typed_cuts if isinstance(type, TensorType) and (type.elements(1) or 0) >= 256]
    if len(useful) <= count:
        return useful
    return [useful[round(i * (len(useful) - 1) / max(1, count - 1))] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", default=",".join(CLASSIFIERS))
    parser.add_argument("--cuts", type=int, default=6, help="cuts of a network, first to last")
    parser.add_argument("--agreement", type=float, default=0.975)
    parser.add_argument("--inputs", type=int, default=80, help="crops of the test pictures")
    options = parser.parse_args()
    print("| network, cut | values | f32 bytes | levels | agreement | frame bytes | smaller |\n" + "|---" * 7 + "|")
    notes: list[str] = []
    for name in options.networks.split(","):
        network = next(network for network in NETWORKS if network.name == name)
        path = next(CORPUS.rglob(name))
        layout = "NCHW" if network.layout == "NCHW" else "NHWC"
        pictures = crops(TEST_PICTURES, options.inputs, network.size)
        test = typed(path, feeds_of(network, pictures))
        calibration = typed(path, feeds_of(network, crops(CALIBRATION_PICTURES, CALIBRATION_SAMPLES, network.size)))
        for cut, type in cuts_of(path, options.cuts):
            with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
                halves = split(path, cut, type, Path(folder) / "bundle")
                row = measure(halves, layout, calibration, test, options.agreement)
                signed = any(float(array.min()) < halves.zero for array in halves.near(calibration))
                print(f"| {name}, {cut} | {'linear' if signed else 'post-ReLU'} | {row}", flush=True)
        whole = open_engine(path, path.suffix[1:])
        notes.append(f"{name}: the input as {pictures_row(path, network, pictures, test, whole)}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
