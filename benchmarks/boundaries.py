"""Boundary tensors of trained networks, for codec measurements, from first to last useful cuts.

Calibration and test tensors come from different pictures (or different seconds of audio). Images
are random crops with the network's own preprocessing. Dumps are cached as .npz outside of the
project (IRSPLIT_BENCH_CACHE).
"""

import json
import os
import tempfile
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert import interpreter as litert
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

CORPUS = Path(
    os.environ.get("IRSPLIT_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "models")
)
CACHE = Path(
    os.environ.get("IRSPLIT_BENCH_CACHE", Path(tempfile.gettempdir()) / "irsplit-boundaries")
)
CALIBRATION_PICTURES = ("burger", "cats_and_dogs", "owl", "grace_hopper")
TEST_PICTURES = ("parrot", "pets")
CALIBRATION_SAMPLES = 8
TEST_SAMPLES = 4
MOST_CUTS = 12
LEAST_ELEMENTS = 256


@dataclass(frozen=True)
class Network:
    """How a network is fed: its input's height and width, and what becomes of RGB [h, w, 3]."""

    name: str
    size: tuple[int, int]
    prepare: Callable[[Floats], NDArray[np.floating]]
    layout: str = "NHWC"


def _as_is(x: Floats) -> Floats:
    return x


def _zero_to_one(x: Floats) -> Floats:
    return (x / 255).astype(np.float32)


def _signed(x: Floats) -> Floats:
    return (x / 127.5 - 1).astype(np.float32)


def _caffe(x: Floats) -> Floats:
    return x[..., ::-1] - np.array([104, 117, 123], np.float32)


def _bgr(x: Floats) -> Floats:
    return x[..., ::-1]


NETWORKS = (
    Network("mobilenet_v1_025_128_uint8.tflite", (128, 128), _as_is),
    Network("mobilenet_v2_inat_bird_uint8.tflite", (224, 224), _as_is),
    Network("resnet8_cifar_float.tflite", (32, 32), _as_is),
    Network("resnet8_cifar_int8.tflite", (32, 32), lambda x: x - 128),
    Network("deeplabv3_dm05_uint8.tflite", (513, 513), _as_is),
    Network("movenet_lightning_int8.tflite", (192, 192), _as_is),
    Network("ssd_mobilenet_v1_uint8.tflite", (300, 300), _as_is),
    Network("face_detection_short_fp16.tflite", (128, 128), _signed),
    Network("face_detection_full_sparse.tflite", (192, 192), _signed),
    Network("hand_landmark_lite_fp16.tflite", (224, 224), _zero_to_one),
    Network("ultraface_rfb320.onnx", (240, 320), lambda x: (x - 127) / 128, "NCHW"),
    Network("yunet_n_320.onnx", (320, 320), _bgr, "NCHW"),
    Network("squeezenet_fp16.onnx", (224, 224), _caffe, "NCHW"),
    Network("ppocr_cls_mobile.onnx", (48, 192), _signed, "NCHW"),
    Network("fastestdet.onnx", (352, 352), lambda x: _bgr(x) / 255, "NCHW"),
    Network("yolox_nano.onnx", (416, 416), _bgr, "NCHW"),
)
AUDIO_NETWORK = "yamnet_wav_int8.tflite"
TRANSFORMER = "vittrack.onnx"


@dataclass(frozen=True)
class Case:
    """One boundary tensor: samples to train on and samples to measure, all of one shape."""

    network: str
    tensor: str
    layout: str
    calibration: tuple[Array, ...]
    test: tuple[Array, ...]
    scale: float
    """Quantization scale of integer tensors, 0 when unknown."""

    @property
    def name(self) -> str:
        return f"{self.network.rsplit('.', 1)[0]}:{self.tensor.split(';')[0][-40:]}"


def crops(pictures: Sequence[str], count: int, size: tuple[int, int]) -> list[Floats]:
    """Random crops of at least half of a picture, some mirrored, resized to `size`."""
    rng = np.random.default_rng(20)
    found: list[Floats] = []
    for index in range(count):
        image = Image.open(CORPUS / "inputs" / f"{pictures[index % len(pictures)]}.jpg").convert(
            "RGB"
        )
        share = rng.uniform(0.5, 1.0)
        width, height = image.width * share, image.height * share
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        crop = image.resize(
            (size[1], size[0]), Image.Resampling.BILINEAR, (left, top, left + width, top + height)
        )
        pixels = np.asarray(crop, np.float32)
        found.append(pixels[:, ::-1] if rng.integers(2) else pixels)
    return found


def _seconds(count: int, start: float, stop: float, length: int) -> list[Floats]:
    """Windows of the speech recording between two fractions of it, at random gains."""
    with wave.open(str(CORPUS / "inputs" / "speech_16k.wav")) as file:
        samples = (
            np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        )
    rng = np.random.default_rng(21)
    first, last = int(start * len(samples)), int(stop * len(samples)) - length
    starts = rng.integers(first, max(last, first + 1), count)
    return [(samples[at : at + length] * rng.uniform(0.5, 1.5)).astype(np.float32) for at in starts]


def feeds_of(network: Network, pictures: Sequence[Floats]) -> list[Floats]:
    """The network's input for every picture of its size."""
    feeds = [network.prepare(picture)[None] for picture in pictures]
    if network.layout == "NCHW":
        feeds = [feed.transpose(0, 3, 1, 2) for feed in feeds]
    return [np.ascontiguousarray(feed, np.float32) for feed in feeds]


def _manifest() -> dict[str, Any]:
    models = json.loads((CORPUS / "MANIFEST.json").read_text())["models"]
    return {entry["name"]: entry for entry in models}


def _spread(names: list[str]) -> list[str]:
    """First, last and evenly spaced ones between."""
    if len(names) <= MOST_CUTS:
        return names
    return [names[round(i * (len(names) - 1) / (MOST_CUTS - 1))] for i in range(MOST_CUTS)]


_Dump = dict[str, tuple[float, list[Array]]]


def _dump_tflite(path: Path, cuts: list[str], feeds: list[Floats]) -> _Dump:
    runner = litert.Interpreter(
        str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    entry: dict[str, Any] = runner.get_input_details()[0]
    runner.resize_tensor_input(entry["index"], feeds[0].shape)
    runner.allocate_tensors()
    by_name = {detail["name"]: detail for detail in runner.get_tensor_details()}
    result: _Dump = {name: (float(by_name[name]["quantization"][0]), []) for name in cuts}
    for feed in feeds:
        runner.set_tensor(entry["index"], feed.astype(entry["dtype"]))
        runner.invoke()
        for name in cuts:
            result[name][1].append(runner.get_tensor(by_name[name]["index"]).copy())
    return result


def _dump_onnx(path: Path, cuts: list[str], feeds: Sequence[Mapping[str, Array]]) -> _Dump:
    model = onnx.load(path)
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in cuts if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: _Dump = {name: (0.0, []) for name in cuts}
    for feed in feeds:
        for name, value in zip(cuts, session.run(cuts, feed), strict=True):
            result[name][1].append(np.asarray(value))
    return result


def _dump(network: Network, entry: dict[str, Any], pictures: Sequence[str], count: int) -> _Dump:
    path, cuts = CORPUS / entry["file"], _spread(entry["cuts"])
    feeds = feeds_of(network, crops(pictures, count, network.size))
    if entry["format"] == "tflite":
        return _dump_tflite(path, cuts, feeds)
    name = entry["inputs"][0][0]
    kind = np.float16 if network.name.endswith("fp16.onnx") else np.float32
    return _dump_onnx(path, cuts, [{name: feed.astype(kind)} for feed in feeds])


def _dump_audio(entry: dict[str, Any], start: float, stop: float, count: int) -> _Dump:
    return _dump_tflite(
        CORPUS / entry["file"], _spread(entry["cuts"]), _seconds(count, start, stop, 15600)
    )


def _dump_transformer(entry: dict[str, Any], pictures: Sequence[str], count: int) -> _Dump:
    mean, spread = (
        np.array([0.485, 0.456, 0.406], np.float32),
        np.array([0.229, 0.224, 0.225], np.float32),
    )

    def prepared(size: int) -> list[Floats]:
        squares = crops(pictures, count, (size, size))
        scaled = [((square / 255 - mean) / spread).transpose(2, 0, 1)[None] for square in squares]
        return [np.ascontiguousarray(one, np.float32) for one in scaled]

    names = [name for name, _, _ in entry["inputs"]]
    feeds = [
        dict(zip(names, pair, strict=True))
        for pair in zip(prepared(128), prepared(256), strict=True)
    ]
    return _dump_onnx(CORPUS / entry["file"], _spread(entry["cuts"]), feeds)


def _cases(network: str, layout: str, calibration: _Dump, test: _Dump) -> list[Case]:
    cases: list[Case] = []
    for tensor, (scale, samples) in calibration.items():
        tests = test[tensor][1]
        if samples[0].size >= LEAST_ELEMENTS and samples[0].dtype.name in (
            "uint8",
            "int8",
            "float32",
            "float16",
        ):
            cases.append(Case(network, tensor, layout, tuple(samples), tuple(tests), scale))
    return cases


def _collect(name: str) -> list[Case]:
    entry = _manifest()[name]
    if name == AUDIO_NETWORK:
        return _cases(name, "NHWC", *(_dump_audio(entry, *r) for r in ((0, 0.6, 8), (0.6, 1, 4))))
    if name == TRANSFORMER:
        dumps = [(CALIBRATION_PICTURES, CALIBRATION_SAMPLES), (TEST_PICTURES, TEST_SAMPLES)]
        return _cases(name, "sequence", *(_dump_transformer(entry, *d) for d in dumps))
    network = next(network for network in NETWORKS if network.name == name)
    calibration = _dump(network, entry, CALIBRATION_PICTURES, CALIBRATION_SAMPLES)
    return _cases(
        name, network.layout, calibration, _dump(network, entry, TEST_PICTURES, TEST_SAMPLES)
    )


def _save(path: Path, cases: list[Case]) -> None:
    arrays: dict[str, Array] = {}
    index: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        index.append({"tensor": case.tensor, "layout": case.layout, "scale": case.scale})
        arrays[f"c{number}"], arrays[f"t{number}"] = np.stack(case.calibration), np.stack(case.test)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.npz")
    header = np.array(json.dumps(index))
    np.savez(temporary, index=header, **arrays)  # pyright: ignore[reportArgumentType]
    temporary.rename(path)


def _load(network: str, path: Path) -> list[Case]:
    with np.load(path) as file:
        index = json.loads(str(file["index"]))
        return [
            Case(
                network,
                item["tensor"],
                item["layout"],
                tuple(file[f"c{i}"]),
                tuple(file[f"t{i}"]),
                item["scale"],
            )
            for i, item in enumerate(index)
        ]


def network_names() -> list[str]:
    return [*(network.name for network in NETWORKS), AUDIO_NETWORK, TRANSFORMER]


def cases(network: str) -> list[Case]:
    """Every useful boundary tensor of one network of the corpus, first cut to last."""
    path = CACHE / f"{network}.npz"
    if not path.exists():
        _save(path, _collect(network))
    return _load(network, path)


if __name__ == "__main__":
    for name in network_names():
        for case in cases(name):
            print(f"{case.name:70} {case.test[0].dtype.name:8} {case.test[0].shape}")
