"""The C core outside of Python: no warnings, sanitizers on, other machines; the same frames.

A target whose compiler or emulator does not work is skipped, see `tools`; `.ci/run` installs them.
"""

import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.footprint import CORTEX_M4, code_bytes
from framing import Array, array_of_bytes, engines
from irsplit.runtime.c import amalgamate
from irsplit.runtime.frame.descriptor import FrameSchema, QuantizationSpec, TensorSpec
from irsplit.runtime.frame.reference.crc32c import crc32c
from test_static_rans import feature_map, trained
from tools import needs, needs_compiler

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "c"
SOURCES = sorted((ROOT / "runtime" / "c" / "src").rglob("*.c"))
WARNINGS = (
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-pedantic",
)
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def vector(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> tuple[bytes, bytes]:
    """Bytes for check_vectors.c, and the frame, by the numpy reference."""
    boundary = FrameSchema(1, "vector", tuple(specs))
    reference = engines(boundary)[1]
    frame = reference.encode(arrays)
    out: list[Array] = [
        np.zeros(array.shape, spec.storage) for spec, array in zip(specs, arrays, strict=True)
    ]
    reference.decode(memoryview(frame), out)
    parts = [boundary.to_bytes(), struct.pack("<I", len(arrays))]
    body = struct.pack("<I", len(parts[0])) + parts[0] + parts[1]
    for array in arrays:
        body += (
            struct.pack(f"<I{array.ndim}II", array.ndim, *array.shape, array.nbytes)
            + array.tobytes()
        )
    expected = b"".join(array.tobytes() for array in out)
    return body + struct.pack("<I", len(frame)) + frame + struct.pack(
        "<I", len(expected)
    ) + expected, frame


def static_vectors() -> list[tuple[bytes, bytes]]:
    vectors: list[tuple[bytes, bytes]] = []
    for dtype, layout, level, bits in (
        ("u8", "NHWC", 0, 11), ("u8", "NHWC", 1, 11), ("u8", "NCHW", 2, 10), ("i8", "NCHW", 1, 11),
        ("i8", "NHWC", 2, 8),
        ("f32", "NHWC", 1, 11), ("f32", "NCHW", 2, 11), ("f16", "NCHW", 1, 10),
        ("bf16", "NHWC", 1, 11), ("i16", "NHWC", 1, 11), ("u32", "NCHW", 0, 11),
        ("i64", "NHWC", 2, 11), ("bool", "NHWC", 1, 11),
    ):  # fmt: skip
        spec = trained(dtype, (1, 7, 6, 37), level, layout, table_bits=bits)
        array = feature_map(5, (1, 7, 6, 37), dtype)
        array.reshape(-1)[:20] = array_of_bytes(bytes(range(20 * array.itemsize)), spec, (20,))
        if layout == "NCHW":
            array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        vectors.append(vector([spec], [array]))
    wide = trained("u8", (1, 6, 5, 100), 2)
    vectors.append(vector([wide], [feature_map(8, (1, 6, 5, 100), "u8")]))
    return vectors


def plain_vectors() -> list[tuple[bytes, bytes]]:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 5)).astype(np.float32) * 4
    values[0, :4] = np.nan, np.inf, -0.0, 1e-40
    q = QuantizationSpec(
        (0.03, 0.1, 1.5, 2.0**-100, 3e38), (0, 5, -7, 127, -128), axis=1, outliers=True
    )
    halves = rng.integers(0, 1 << 16, (4, 6), np.uint16).view(np.float16)
    specs = [
        TensorSpec("a", "u8", (3,)),
        TensorSpec("b", "f32", (None, 5), q),
        TensorSpec("c", "i64", ()),
        TensorSpec("d", "f16", (4, 6), QuantizationSpec((0.01,), (100,), "u8", 7)),
        TensorSpec(
            "e", "bf16", (4, 6), QuantizationSpec((2.0**100,), (1,), "i8", 3, outliers=True)
        ),
        TensorSpec("f", "f64", (0, 2)),
        TensorSpec("g", "u8", (16, 16), QuantizationSpec((1.7,), (-128,))),
        TensorSpec(
            "h", "i8", (2, 128), QuantizationSpec((9.9, 3e38), (5, -7), "i8", 5, 0, outliers=True)
        ),
    ]
    bytes_ = np.arange(256, dtype=np.uint8)
    arrays = [
        np.array([1, 2, 3], np.uint8), values, np.array(-5), halves, halves.view(np.uint16),
        np.zeros((0, 2)),
        bytes_.reshape(16, 16), bytes_.view(np.int8).reshape(2, 128),
    ]  # fmt: skip
    large = [
        TensorSpec("a", "u8", (3,)),
        TensorSpec("b", "f64", (None, 2000)),
        TensorSpec("c", "bool", (5,)),
    ]
    ramp = np.arange(2000, dtype=np.float64).reshape(1, 2000) / 7
    return [
        vector(specs, arrays),
        vector(large, [arrays[0], ramp, np.array([1, 0, 1, 1, 0], np.bool_)]),
    ]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """File of vectors, and the line that check_vectors prints for it."""
    made = [*plain_vectors(), *static_vectors()]
    path = tmp_path_factory.mktemp("vectors") / "vectors.bin"
    path.write_bytes(struct.pack("<I", len(made)) + b"".join(body for body, _ in made))
    digest = crc32c(b"".join(frame for _, frame in made))
    return path, f"{len(made)} vectors, digest {digest:08x}"


def build(compiler: str, flags: Sequence[str], target: Path, sources: Sequence[Path]) -> None:
    include = f"-I{ROOT / 'runtime' / 'c' / 'include'}"
    command = [compiler, *WARNINGS, *flags, include, *map(str, sources), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("gcc", SANITIZERS),
        ("gcc", (*SANITIZERS, "-DIRS_NO_AVX2")),
        ("gcc", (*SANITIZERS, "-DIRS_PORTABLE")),
        ("gcc", ("-O3",)),
        ("gcc", ("-O3", "-DIRS_NO_AVX2")),
        ("gcc", ("-O3", "-DIRS_PORTABLE")),
        ("gcc", ("-O2", "-m32")),
        ("gcc", ("-O2", "-m32", "-mfpmath=387")),
        ("gcc", ("-O3", "-march=native")),
        ("clang", SANITIZERS),
        ("clang", ("-O3",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
def test_vectors_on_this_machine(
    compiler: str, flags: Sequence[str], vectors: tuple[Path, str], tmp_path: Path
) -> None:
    needs_compiler(compiler, *flags)
    program = tmp_path / "check_vectors"
    build(compiler, flags, program, [*SOURCES, FOLDER / "check_vectors.c"])
    brief = () if set(SANITIZERS) <= set(flags) else ("brief",)
    result = subprocess.run(
        [program, vectors[0], *brief], capture_output=True, text=True, timeout=900
    )
    assert (result.returncode, result.stdout.strip()) == (0, vectors[1]), result.stderr


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("gcc", ("-O1",)),
        ("clang", ("-O1", "-DIRS_NO_AVX2")),
        ("gcc", ("-O1", "-DIRS_PORTABLE", "-m32")),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
def test_vectors_on_the_amalgamation(
    compiler: str, flags: Sequence[str], vectors: tuple[Path, str], tmp_path: Path
) -> None:
    needs_compiler(compiler, *flags)
    amalgamate.write(tmp_path)
    program = tmp_path / "check_vectors"
    build(compiler, flags, program, [tmp_path / "irs.c", FOLDER / "check_vectors.c"])
    result = subprocess.run(
        [program, vectors[0], "brief"], capture_output=True, text=True, timeout=900
    )
    assert (result.returncode, result.stdout.strip()) == (0, vectors[1]), result.stderr


def test_vectors_on_aarch64(vectors: tuple[Path, str], tmp_path: Path) -> None:
    needs("aarch64-linux-gnu-gcc")
    program = tmp_path / "check_vectors"
    build(
        "aarch64-linux-gnu-gcc", ("-O3", "-static"), program, [*SOURCES, FOLDER / "check_vectors.c"]
    )
    result = subprocess.run(
        ["qemu-aarch64", program, vectors[0], "brief"], capture_output=True, text=True, timeout=900
    )
    assert (result.returncode, result.stdout.strip()) == (0, vectors[1]), result.stderr


def test_vectors_on_wasm32(vectors: tuple[Path, str], tmp_path: Path) -> None:
    needs("wasm32")
    program = tmp_path / "core.wasm"
    flags = ("--target=wasm32", "-O2", "-ffreestanding", "-fno-builtin", "-nostdlib")
    build(
        "clang",
        (*flags, "-Wl,--no-entry", "-Wl,--export-all"),
        program,
        [*SOURCES, FOLDER / "wasm_support.c"],
    )
    command = ["node", FOLDER / "check_vectors.mjs", program, vectors[0]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert (result.returncode, result.stdout.strip()) == (0, vectors[1]), result.stderr


def fuzz_seeds() -> list[bytes]:
    """Golden frames with their descriptors, and smaller ones of every kind, which mutate faster."""
    seeds: list[bytes] = []
    for frame in sorted((ROOT / "tests" / "golden").glob("*/*.irsf")):
        descriptor = frame.with_suffix(".irsd").read_bytes()
        seeds.append(struct.pack("<H", len(descriptor)) + descriptor + frame.read_bytes())
    for dtype, level, channels in (
        ("u8", 0, 3),
        ("u8", 1, 3),
        ("i8", 2, 9),
        ("f32", 1, 2),
        ("i16", 1, 2),
        ("bool", 1, 3),
    ):
        spec = trained(dtype, (1, 4, 5, channels), level, table_bits=8)
        frame = engines(FrameSchema(1, "s", (spec,)))[1].encode(
            [feature_map(5, (1, 4, 5, channels), dtype)]
        )
        descriptor = FrameSchema(1, "s", (spec,)).to_bytes()
        seeds.append(struct.pack("<H", len(descriptor)) + descriptor + frame)
    return seeds


def test_short_fuzzing(tmp_path: Path) -> None:
    """Descriptors and frames that start as valid ones; IRSPLIT_FUZZ_RUNS for more."""
    flags = ("-O2", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined")
    needs_compiler("clang", *flags)
    program, corpus = tmp_path / "fuzz", tmp_path / "corpus"
    build("clang", flags, program, [*SOURCES, FOLDER / "fuzz_core.c"])
    corpus.mkdir()
    for number, seed in enumerate(fuzz_seeds()):
        (corpus / f"{number}").write_bytes(seed)
    runs = os.environ.get("IRSPLIT_FUZZ_RUNS", "2000")
    command = [program, f"-runs={runs}", "-seed=1", "-max_len=8192", "-detect_leaks=0", corpus]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]


OPENING = ("irs_schema_size", "irs_schema_open", "irs_frame_bound", "irs_workspace_size")
WHOLE = (*OPENING, "irs_encode", "irs_frame_size", "irs_frame_dims", "irs_decode")
BYTES = ("-DIRS_BYTES_ONLY", "-DIRS_NO_QUANTIZATION", "-DIRS_NO_REFERENCES")
"""What a device whose network is quantized, and so sends bytes, needs at levels 0 and 1."""


def test_size_on_cortex_m4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without libc; memcpy and friends are the firmware's own."""
    needs("arm-none-eabi-gcc")
    sender = ("-DIRS_ENCODE_ONLY",)
    budgets = {
        "bytes: irs_encode": (("irs_encode",), (*sender, *BYTES), 4096),
        "bytes: sender with opening": ((*OPENING, "irs_encode"), (*sender, *BYTES), 7424),
        "bytes: everything": (WHOLE, BYTES, 10240),
        "bytes and quantization: everything": (WHOLE, ("-DIRS_BYTES_ONLY",), 12800),
        "all elements: irs_encode": (("irs_encode",), sender, 6912),
        "all elements: everything": (WHOLE, (), 15360),
    }
    sizes = {
        name: code_bytes(CORTEX_M4, entries, flags, tmp_path)
        for name, (entries, flags, _) in budgets.items()
    }
    with capsys.disabled():
        print(
            "\nCortex-M4, bytes of Thumb-2: "
            + ", ".join(f"{name} {size}" for name, size in sizes.items())
        )
    assert {name: size for name, size in sizes.items() if size > budgets[name][2]} == {}


def test_reduced_build(tmp_path: Path) -> None:
    """The same frames for what is left; what is left out is refused when it is opened."""
    needs("gcc")
    program, path = tmp_path / "check_vectors", tmp_path / "vectors.bin"
    build("gcc", ("-O2", *BYTES), program, [*SOURCES, FOLDER / "check_vectors.c"])
    shape = (1, 7, 6, 37)
    kept = [
        vector([trained("u8", shape, level)], [feature_map(5, shape, "u8")]) for level in (0, 1)
    ]
    out = [
        vector([trained(dtype, shape, level)], [feature_map(5, shape, dtype)])
        for dtype, level in (("u8", 2), ("f32", 1))
    ]
    out.append(
        vector(
            [TensorSpec("q", "f32", (5,), QuantizationSpec((0.1,), (0,)))],
            [np.zeros(5, np.float32)],
        )
    )
    digest = crc32c(b"".join(frame for _, frame in kept))
    path.write_bytes(struct.pack("<I", 2) + b"".join(body for body, _ in kept))
    result = subprocess.run([program, path, "brief"], capture_output=True, text=True, timeout=900)
    assert (result.returncode, result.stdout.strip()) == (0, f"2 vectors, digest {digest:08x}"), (
        result.stderr
    )
    for body, _ in out:
        path.write_bytes(struct.pack("<I", 1) + body)
        result = subprocess.run(
            [program, path, "brief"], capture_output=True, text=True, timeout=900
        )
        assert (result.returncode, "status == IRS_OK" in result.stderr) == (1, True)
