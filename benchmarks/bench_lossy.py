"""How small a boundary becomes when classifiers of the corpus are compiled for an agreement.

    python -m benchmarks.bench_lossy [--networks NAME,...] [--cuts 6] [--agreement 0.975]
                                     [--test PICTURE,...]

`compile --quantize agreement=... --codec auto` decides on crops of some pictures; frames and
agreement, through real frames and the real server half, are of crops of others. Beside them the
agreement when one element in a thousand is off by one step of 8 bits, which tells how sure the
network is of these crops, and the input itself as JPEG and lossless WebP, with the agreement of the
whole network on the decoded picture.
"""

import argparse
import io
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import irsplit
from benchmarks.boundaries import (
    CALIBRATION_PICTURES,
    CORPUS,
    NETWORKS,
    TEST_PICTURES,
    Floats,
    Network,
    crops,
    feeds_of,
)
from irsplit.codec_training.agreement.top1 import top1
from irsplit.dialects.registry import dialect_of
from irsplit.ir import TensorType, required_inputs
from irsplit.passes import find_cuts
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame.descriptor import QuantizationSpec
from irsplit.runtime.run.engines import Engine, open_engine

Array = NDArray[Any]

CLASSIFIERS = {
    "mobilenet_v1_025_128_uint8.tflite": (CALIBRATION_PICTURES, TEST_PICTURES),
    "mobilenet_v2_inat_bird_uint8.tflite": (("owl",), ("parrot",)),
    "resnet8_cifar_float.tflite": (CALIBRATION_PICTURES, TEST_PICTURES),
    "squeezenet_fp16.onnx": (CALIBRATION_PICTURES, TEST_PICTURES),
}
"""Pictures to calibrate with and to measure on, of what a network has classes for."""
FLIPPED = 0.001


def outputs(
    session: irsplit.LocalSession, calls: Sequence[dict[str, Any]]
) -> tuple[list[Array], float]:
    """The first output of every call, and the mean bytes of a frame."""
    found: list[Array] = []
    sizes: list[int] = []
    for call in calls:
        found.append(np.asarray(next(iter(session.run(call).values()))))
        sizes.append(session.frame_bytes[0])
    return found, statistics.mean(sizes)


def unsettled(
    folder: Path, feeds: Sequence[Array], zero: int
) -> tuple[list[Array], list[Array], bool]:
    """Outputs of the far half as they are and with few elements off by one step of 8 bits, and
    whether what crosses has values below `zero`.
    """
    manifest = Manifest.load(folder)
    files = [(manifest.path(segment.file), segment.format) for segment in manifest.segments]
    device, server = (open_engine(*file) for file in files)
    crossing = [np.array(device.run([feed])[0]) for feed in feeds]
    rng = np.random.default_rng(22)
    step = (
        1
        if crossing[0].dtype.kind in "iu"
        else max(float(np.ptp(array)) for array in crossing) / 255
    )
    moved: list[Array] = []
    for array in crossing:
        noise = rng.choice([-step, step], array.shape) * (rng.random(array.shape) < FLIPPED)
        limits = np.iinfo(array.dtype) if step == 1 else np.finfo(array.dtype)
        moved.append(
            np.clip(array.astype(np.float32) + noise, limits.min, limits.max).astype(array.dtype)
        )
    plain, disturbed = (
        [np.array(server.run([array])[0]) for array in arrays] for arrays in (crossing, moved)
    )
    return plain, disturbed, min(float(array.min()) for array in crossing) < zero


def row(
    path: Path,
    cut: str,
    type: TensorType,
    calibration: Sequence[Array],
    test: Sequence[Array],
    least: float,
) -> str:
    """What `compile` makes of one cut."""
    name = required_inputs(dialect_of(path).read(path).entry)[0].name
    calls = [{name: feed} for feed in test]
    with tempfile.TemporaryDirectory(prefix="irsplit-") as directory:
        plain, lossy = Path(directory) / "plain", Path(directory) / "lossy"
        irsplit.compile_model(path, plain, [cut], codec="raw", remember=False)
        expected, disturbed, linear = unsettled(
            plain, test, type.quantization.zero_point[0] if type.quantization else 0
        )
        learnt = [{name: feed} for feed in calibration]
        target = f"agreement={least}"
        irsplit.compile_model(
            path, lossy, [cut], boundary=target, codec="auto", calibration=learnt, remember=False
        )
        session = irsplit.LocalSession(lossy)
        spec = session.boundaries[0].tensors[0]
        found, size = outputs(session, calls)
    raw = 4 * (type.elements(1) or 0)
    cells = [
        f"{path.name}, {cut}", "linear" if linear else "post-ReLU", raw, _step(spec.quantization),
        f"{top1(expected, disturbed).share:.3f}", f"{top1(expected, found).share:.3f}",
        f"{size:.0f}", f"{raw / size:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _step(found: QuantizationSpec | None) -> str:
    return "as it is" if found is None else f"{found.scales[0]:.3g}"


def pictures_row(
    path: Path, network: Network, pictures: Sequence[Floats], feeds: Sequence[Array], whole: Engine
) -> str:
    """Bytes of the input as a picture, and how the whole network agrees on what it decodes to."""
    expected = [np.array(whole.run([feed])[0]).ravel() for feed in feeds]
    cells: list[str] = []
    for name, options in (
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 75}),
        ("WebP", {"lossless": True}),
    ):
        files = [io.BytesIO() for _ in pictures]
        for file, picture in zip(files, pictures, strict=True):
            Image.fromarray(picture.astype(np.uint8)).save(file, name, **options)
        decoded = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]
        found = [
            np.array(whole.run([feed])[0]).ravel()
            for feed in typed(path, feeds_of(network, decoded))
        ]
        size = statistics.mean(file.tell() or len(file.getvalue()) for file in files)
        label = "WebP lossless" if "lossless" in options else f"JPEG q{options['quality']}"
        cells.append(f"{label} {size:.0f} bytes at {top1(expected, found).share:.3f}")
    return "; ".join(cells)


def typed(path: Path, feeds: Sequence[Floats]) -> list[Array]:
    """As the model wants them: bytes, or half precision."""
    type = required_inputs(dialect_of(path).read(path).entry)[0].type
    storage = type.dtype.storage if isinstance(type, TensorType) else None
    return [feed.astype(storage or np.float32) for feed in feeds]


def cuts_of(
    path: Path, count: int, wanted: Sequence[str] | None = None
) -> list[tuple[str, TensorType]]:
    """The wanted or evenly spaced legal cuts of one tensor of 256 elements at least, with types."""
    entry = dialect_of(path).read(path).entry
    legal = [
        cut
        for cut in find_cuts(entry)
        if cut.legal and len(cut.tensors) == 1 and cut.kind == "strict"
    ]
    typed_cuts = [(cut.id, cut.tensors[0].type) for cut in legal[:-1]]
    useful = [
        (id, type)
        for id, type in typed_cuts
        if isinstance(type, TensorType) and (type.elements(1) or 0) >= 256
    ]
    if wanted is not None:
        return [found for found in useful if found[0] in wanted]
    if len(useful) <= count:
        return useful
    return [useful[round(i * (len(useful) - 1) / max(1, count - 1))] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", default=",".join(CLASSIFIERS))
    parser.add_argument("--cuts", type=int, default=6, help="cuts of a network, first to last")
    parser.add_argument("--at", help="these cuts instead, with commas")
    parser.add_argument(
        "--agreement", type=float, default=0.98, help="the target on the calibration crops"
    )
    parser.add_argument(
        "--calibration", type=int, default=80, help="crops of the calibration pictures"
    )
    parser.add_argument("--inputs", type=int, default=240, help="crops of the test pictures")
    parser.add_argument("--test", help="other test pictures, with commas")
    options = parser.parse_args()
    print(
        "| network, cut | values | f32 bytes | step | unsettled | agreement | frame bytes | "
        "smaller |"
    )
    print("|---" * 8 + "|")
    notes: list[str] = []
    for name in options.networks.split(","):
        network = next(network for network in NETWORKS if network.name == name)
        path = next(CORPUS.rglob(name))
        learnt, tested = CLASSIFIERS[name]
        pictures = crops(
            options.test.split(",") if options.test else tested, options.inputs, network.size
        )
        test = typed(path, feeds_of(network, pictures))
        calibration = typed(
            path, feeds_of(network, crops(learnt, options.calibration, network.size))
        )
        wanted = options.at.split(",") if options.at else None
        for cut, type in cuts_of(path, options.cuts, wanted):
            print(row(path, cut, type, calibration, test, options.agreement), flush=True)
        whole = open_engine(path, path.suffix[1:])
        notes.append(f"{name}: the input as {pictures_row(path, network, pictures, test, whole)}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
