"""Boundary codecs side by side on tensors of trained networks: ratio and speed of whole frames.

    python -m benchmarks.bench_codec [--kinds int8,f32,f16,bf16,raw] [--networks NAME,...]
                                     [--cuts 3] [--json]

One thread, every tensor's codecs interleaved, results checked before timing, best of several
repeats; ours are trained on other pictures than those measured. Anchors come from PyPI (`pip
install irsplit[bench-codec]`, and zipnn); one that is not installed is named and left out. After
every table comes a line for each goal, met or missed.
"""

import argparse
import importlib
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.boundaries import Case, cases, network_names
from benchmarks.codec_goals import judged
from irsplit.codec_training.codec import train, with_zstandard
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.frame.frame import open_codec

Array = NDArray[np.generic]
Encode = Callable[[Array], bytes]
Decode = Callable[[bytes], Array | bytes]

REPEATS = 5
LINKS_BIT_S = (10e6, 100e6, 400e6, 1000e6)


@dataclass(frozen=True)
class Coder:
    """Encoder and decoder of one tensor; without a decoder, only size and encoding are measured."""

    encode: Encode
    decode: Decode | None
    descriptor_bytes: int = 0


@dataclass(frozen=True)
class Result:
    kind: str
    tensor: str
    codec: str
    raw_bytes: int
    size_bytes: float
    encode_s: float
    decode_s: float
    descriptor_bytes: int


def _layout(case: Case) -> str:
    return "NCHW" if case.layout == "NCHW" else "NHWC"


def _frame_coder(spec: TensorSpec) -> Coder:
    boundary = FrameSchema(0, spec.name, (spec,))
    codec = open_codec(boundary)
    out = np.empty([dim or 0 for dim in spec.shape], spec.storage)

    def decode(frame: bytes) -> Array:
        codec.decode(memoryview(frame), [out])
        return out

    return Coder(lambda array: codec.encode([array]), decode, len(boundary.to_bytes()))


def ours(level: int) -> Callable[[Case, TensorSpec], Coder]:
    return lambda case, spec: _frame_coder(
        train(case.calibration, spec, layout=_layout(case), level=level)
    )


def raw(case: Case, spec: TensorSpec) -> Coder:
    return _frame_coder(spec)


def zstd(level: int, dictionary: bool = False) -> Callable[[Case, TensorSpec], Coder]:
    return lambda case, spec: _frame_coder(
        with_zstandard(case.calibration, spec, level=level, dictionary=dictionary)
    )


def memcpy(case: Case, spec: TensorSpec) -> Coder:
    return Coder(lambda array: array.tobytes(), lambda data: data)


def _blosc(case: Case, spec: TensorSpec) -> Coder:
    blosc2 = importlib.import_module("blosc2")
    blosc2.set_nthreads(1)
    size = spec.storage.itemsize

    def encode(array: Array) -> bytes:
        return blosc2.compress2(
            array.tobytes(),
            typesize=size,
            codec=blosc2.Codec.ZSTD,
            clevel=5,
            filters=[blosc2.Filter.BITSHUFFLE],
        )

    return Coder(encode, blosc2.decompress2)


def _pcodec(case: Case, spec: TensorSpec) -> Coder:
    pcodec = importlib.import_module("pcodec")
    standalone = importlib.import_module("pcodec.standalone")
    config = pcodec.ChunkConfig(compression_level=8, enable_8_bit=True)
    return Coder(
        lambda array: standalone.simple_compress(array.ravel(), config),
        lambda data: np.asarray(standalone.simple_decompress(data)),
    )


def _openzl(graph: str) -> Callable[[Case, TensorSpec], Coder]:
    def make(case: Case, spec: TensorSpec) -> Coder:
        zl = importlib.import_module("openzl.ext")
        compressor = zl.Compressor()
        compressor.select_starting_graph(getattr(zl.graphs, graph)()(compressor))

        def encode(array: Array) -> bytes:
            context = zl.CCtx()
            context.ref_compressor(compressor)
            context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
            return context.compress([zl.Input(zl.Type.Serial, array.view(np.uint8).ravel())])

        return Coder(encode, lambda data: zl.DCtx().decompress(data)[0].content.as_bytes())

    return make


def _zipnn(case: Case, spec: TensorSpec) -> Coder:
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    codec = importlib.import_module("zipnn").ZipNN(bytearray_dtype=names[spec.dtype], threads=1)
    return Coder(
        lambda array: bytes(codec.compress(bytearray(array.tobytes()))),
        lambda data: bytes(codec.decompress(data)),
    )


def _safetensors(case: Case, spec: TensorSpec) -> Coder:
    save, load = (
        getattr(importlib.import_module("safetensors.numpy"), name) for name in ("save", "load")
    )
    return Coder(lambda array: save({"x": array}), lambda data: load(data)["x"])


def _mosaic(case: Case, array: Array) -> NDArray[np.uint8]:
    """Channels as tiles of one grey picture."""
    data = array.view(np.uint8) ^ np.uint8(0x80) if array.dtype == np.int8 else array.view(np.uint8)
    if data.ndim != 4:
        return np.ascontiguousarray(data.reshape(-1, data.shape[-1]))
    planes = data[0] if case.layout == "NCHW" else data[0].transpose(2, 0, 1)
    channels, height, width = planes.shape
    columns = int(np.ceil(np.sqrt(channels)))
    rows = -(-channels // columns)
    tiles = np.zeros((rows * columns, height, width), np.uint8)
    tiles[:channels] = planes
    picture = (
        tiles.reshape(rows, columns, height, width)
        .transpose(0, 2, 1, 3)
        .reshape(rows * height, columns * width)
    )
    return np.ascontiguousarray(picture)


def _image(name: str) -> Callable[[Case, TensorSpec], Coder]:
    def make(case: Case, spec: TensorSpec) -> Coder:
        imagecodecs = importlib.import_module("imagecodecs")
        encoders: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
            "jpeg-ls": imagecodecs.jpegls_encode,
            "webp": lambda picture: imagecodecs.webp_encode(
                np.repeat(picture[..., None], 3, 2), lossless=True
            ),
            "jxl-e7": lambda picture: imagecodecs.jpegxl_encode(
                picture, lossless=True, effort=7, numthreads=1
            ),
        }
        encode = encoders[name]
        return Coder(lambda array: encode(_mosaic(case, array)), None)

    return make


INT8: dict[str, Callable[[Case, TensorSpec], Coder]] = {
    "memcpy": memcpy, "raw frame": raw, "zstd-1": zstd(1), "zstd-3": zstd(3), "zstd-19": zstd(19),
    "zstd-3 dictionary": zstd(3, True), "safetensors": _safetensors,
    "blosc2 bitshuffle+zstd": _blosc, "pcodec-8": _pcodec,
    "openzl huffman": _openzl("Huffman"), "openzl fse": _openzl("Fse"),
    "jpeg-ls mosaic": _image("jpeg-ls"), "webp mosaic": _image("webp"),
    "jxl-e7 mosaic": _image("jxl-e7"),
    "static-rans L0": ours(0), "static-rans L1": ours(1), "static-rans L2": ours(2),
}  # fmt: skip
FLOAT: dict[str, Callable[[Case, TensorSpec], Coder]] = {
    "memcpy": memcpy, "raw frame": raw, "zstd-3": zstd(3), "zstd-19": zstd(19),
    "blosc2 bitshuffle+zstd": _blosc, "pcodec-8": _pcodec, "zipnn": _zipnn,
    "openzl fse": _openzl("Fse"), "safetensors": _safetensors,
    "static-rans L0": ours(0), "static-rans L1": ours(1),
}  # fmt: skip
NEEDS = {
    "blosc2": "blosc2", "pcodec": "pcodec", "openzl": "openzl", "mosaic": "imagecodecs",
    "zipnn": "zipnn", "safetensors": "safetensors",
}  # fmt: skip


def available(
    codecs: dict[str, Callable[[Case, TensorSpec], Coder]],
) -> dict[str, Callable[[Case, TensorSpec], Coder]]:
    missing = {module for module in NEEDS.values() if importlib.util.find_spec(module) is None}
    for module in sorted(missing):
        print(f"not installed, left out: {module}", file=sys.stderr)
    return {
        name: make
        for name, make in codecs.items()
        if not any(key in name and module in missing for key, module in NEEDS.items())
    }


def _quantized(case: Case) -> Case:
    """8-bit integers: the tensor itself, or with one step over the calibration's full range."""
    if case.calibration[0].dtype.kind in "iu":
        return case
    low = min(0.0, *(float(sample.min()) for sample in case.calibration))
    high = max(0.0, *(float(sample.max()) for sample in case.calibration))
    step = (high - low) / 255 or 1.0

    def quantize(array: Array) -> Array:
        return np.clip(np.rint((array.astype(np.float32) - low) / step), 0, 255).astype(np.uint8)

    return Case(case.network, case.tensor, case.layout, tuple(map(quantize, case.calibration)),
                tuple(map(quantize, case.test)), step)  # fmt: skip


def _as_float(case: Case, kind: str) -> Case:
    def convert(array: Array) -> Array:
        values = array.astype(np.float32)
        if kind == "bf16":
            bits = values.view(np.uint32)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return values.astype(np.float16) if kind == "f16" else values

    return Case(case.network, case.tensor, case.layout, tuple(map(convert, case.calibration)),
                tuple(map(convert, case.test)), 0.0)  # fmt: skip


def spread(found: list[Case], count: int) -> list[Case]:
    """First, last and evenly spaced between."""
    if len(found) <= count:
        return found
    return [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]


def tensors(kind: str, networks: list[str], count: int, limit_bytes: int) -> Iterator[Case]:
    for network in networks:
        useful = [case for case in cases(network) if case.test[0].size <= limit_bytes]
        if kind != "int8":
            useful = [case for case in useful if case.test[0].dtype.kind == "f"]
        for case in spread(useful, count):
            yield _quantized(case) if kind == "int8" else _as_float(case, kind)


def measure(
    kind: str, case: Case, makers: dict[str, Callable[[Case, TensorSpec], Coder]]
) -> list[Result]:
    dtype = {"int8": case.test[0].dtype.name.replace("uint8", "u8").replace("int8", "i8")}.get(
        kind, kind
    )
    spec = TensorSpec(case.tensor[:60], dtype, case.test[0].shape)
    coders = {name: make(case, spec) for name, make in makers.items()}
    sizes: dict[str, list[int]] = {name: [] for name in coders}
    encode_s: dict[str, list[float]] = {name: [] for name in coders}
    decode_s: dict[str, list[float]] = {name: [] for name in coders}
    for sample in case.test[:2]:
        best = {name: [float("inf"), float("inf")] for name in coders}
        for repeat in range(REPEATS):
            for name, coder in coders.items():
                if repeat > 0 and "mosaic" in name:  # slow, and not timed closely
                    continue
                start = time.perf_counter()
                data = coder.encode(sample)
                middle = time.perf_counter()
                back = coder.decode(data) if coder.decode else None
                end = time.perf_counter()
                if repeat == 0:
                    sizes[name].append(len(data))
                    got = (
                        back
                        if isinstance(back, bytes)
                        else None
                        if back is None
                        else np.asarray(back).tobytes()
                    )
                    assert got is None or got == sample.tobytes(), (
                        f"{name} does not restore {case.name}"
                    )
                best[name] = [min(best[name][0], middle - start), min(best[name][1], end - middle)]
        for name, (encode, decode) in best.items():
            encode_s[name].append(encode)
            decode_s[name].append(decode)
    return [
        Result(kind, case.name, name, case.test[0].nbytes, statistics.mean(sizes[name]),
               statistics.mean(encode_s[name]), statistics.mean(decode_s[name]),
               coders[name].descriptor_bytes)
        for name in coders
    ]  # fmt: skip


def _geometric(values: list[float]) -> float:
    return statistics.geometric_mean(values)


def summary(kind: str, results: list[Result]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    by_tensor = {(result.tensor, result.codec): result for result in results}
    names = list(dict.fromkeys(result.codec for result in results))
    for name in names:
        mine = [result for result in results if result.codec == name]
        row: dict[str, Any] = {
            "codec": name,
            "ratio": _geometric([one.raw_bytes / one.size_bytes for one in mine]),
            "encode_MB_s": _geometric([one.raw_bytes / one.encode_s / 1e6 for one in mine]),
            "decode_MB_s": _geometric(
                [one.raw_bytes / max(one.decode_s, 1e-9) / 1e6 for one in mine]
            ),
            "descriptor_median": statistics.median(one.descriptor_bytes for one in mine),
        }
        for rate in LINKS_BIT_S:
            gains: list[float] = []
            for one in mine:
                plain = by_tensor[one.tensor, "raw frame"]
                through = one.encode_s + one.decode_s + 8 * one.size_bytes / rate
                gains.append(
                    (plain.encode_s + plain.decode_s + 8 * plain.size_bytes / rate) / through
                )
            row[f"gain_{rate / 1e6:.0f}_Mbit_s"] = _geometric(gains)
        if "zstd-19" in names:
            shares = [one.size_bytes / by_tensor[one.tensor, "zstd-19"].size_bytes for one in mine]
            row["smaller_than_zstd19_share"] = sum(share < 1 for share in shares) / len(shares)
            row["mean_saving_on_zstd19"] = 1 - statistics.mean(shares)
        rows.append(row)
    return rows


def print_table(kind: str, rows: list[dict[str, Any]], count: int) -> None:
    print(f"\n{kind}: {count} tensors, geometric means, frames included\n")
    keys = [key for key in rows[0] if key != "codec"]
    print("| codec | " + " | ".join(key.replace("_", " ") for key in keys) + " |")
    print("|---" * (len(keys) + 1) + "|")
    for row in rows:
        cells = [
            f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in keys
        ]
        cells[0] = f"{row['ratio']:.3f}"
        print(f"| {row['codec']} | " + " | ".join(cells) + " |", flush=True)


def raw_path(size: int = 1 << 20) -> list[dict[str, Any]]:
    """Rate of encoding and decoding a raw frame, with its CRC, over that of copying it twice."""
    spec = TensorSpec("x", "u8", (size,))
    coder = _frame_coder(spec)
    array = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    target = np.empty_like(array)
    assert coder.decode is not None
    best = {"frame": float("inf"), "copy": float("inf")}
    for _ in range(200):
        start = time.perf_counter()
        back = coder.decode(coder.encode(array))
        middle = time.perf_counter()
        np.copyto(target, array)
        np.copyto(target, array)
        end = time.perf_counter()
        assert np.array_equal(back, array)
        best = {
            "frame": min(best["frame"], middle - start),
            "copy": min(best["copy"], end - middle),
        }
    rate = {name: 2 * size / seconds / 1e9 for name, seconds in best.items()}
    return [{"codec": "raw frame", "GB_s": rate["frame"], "memcpy_GB_s": rate["copy"],
             "rate_over_memcpy": rate["frame"] / rate["copy"]}]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kinds", default="int8,f32,f16,bf16,raw")
    parser.add_argument("--networks", default=",".join(network_names()))
    parser.add_argument("--cuts", type=int, default=3, help="cuts of a network, first to last")
    parser.add_argument(
        "--limit", type=int, default=1 << 20, help="skip tensors with more elements"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, numpy {np.__version__}, zstandard "
        f"{zstandard.__version__}"
    )
    everything: list[Result] = []
    for kind in options.kinds.split(","):
        if kind == "raw":
            rows = raw_path()
            print(
                f"\nraw frame of 1 MB: {rows[0]['GB_s']:.3g} GB/s, two memcpy "
                f"{rows[0]['memcpy_GB_s']:.3g}"
            )
            print("\n".join(judged(kind, rows)), flush=True)
            continue
        makers = available(INT8 if kind == "int8" else FLOAT)
        results: list[Result] = []
        for case in tensors(kind, options.networks.split(","), options.cuts, options.limit):
            results += measure(kind, case, makers)
            print(f"  {kind} {case.name}", file=sys.stderr, flush=True)
        if results:
            rows = summary(kind, results)
            print_table(kind, rows, len({result.tensor for result in results}))
            print("\n".join(judged(kind, rows)), flush=True)
        everything += results
    if options.json:
        print(json.dumps([asdict(result) for result in everything]))


if __name__ == "__main__":
    main()
