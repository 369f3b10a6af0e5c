"""The C example and the CMake package: frames made in C are Python's, and the other way round."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from irsplit.cli import main
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema
from tools import needs

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"
TARGETS = {"gcc": (), "aarch64-linux-gnu-gcc": ("qemu-aarch64",)}
WARNINGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wshadow")


@pytest.fixture(scope="module")
def boundary(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FrameSchema]:
    """A folder with boundary.h, and the boundary: int8 on the wire."""
    folder = tmp_path_factory.mktemp("c")
    words = ["--quantize", "int8", "--calibration", str(DIGITS / "pictures"), "--codec", "raw"]
    assert (
        main(["compile", str(DIGITS / "digits.tflite"), "-o", str(folder / "bundle"), *words]) == 0
    )
    assert (
        main(["header", str(folder / "bundle"), "--dim", "1", "-o", str(folder / "boundary.h")])
        == 0
    )
    return folder, Manifest.load(folder / "bundle").boundaries[0]


def check_frames(program: Sequence[str | Path], boundary: FrameSchema) -> None:
    spec = boundary.tensors[0]
    shape = [dim or 1 for dim in spec.shape]
    array = np.abs(np.random.default_rng(7).standard_normal(shape)).astype(np.float32)
    expected = framing.encode(boundary, [array])
    encoded = subprocess.run(
        [*program, "encode"], input=array.tobytes(), capture_output=True, timeout=300, check=True
    )
    assert encoded.stdout == expected
    decoded = subprocess.run(
        [*program, "decode"], input=expected, capture_output=True, timeout=300, check=True
    )
    assert decoded.stdout == framing.decode(boundary, expected)[0].tobytes()
    damaged = expected[:40] + bytes([expected[40] ^ 1]) + expected[41:]
    refused = subprocess.run(
        [*program, "decode"], input=damaged, capture_output=True, timeout=300, check=False
    )
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr
    unasked = subprocess.run(
        program, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False
    )
    assert (unasked.returncode, unasked.stdout, unasked.stderr[:19]) == (
        2,
        b"",
        b"usage: frame encode",
    )


@pytest.mark.parametrize("compiler", TARGETS)
def test_frames_like_python(
    compiler: str, boundary: tuple[Path, FrameSchema], tmp_path: Path
) -> None:
    needs(compiler)
    program = tmp_path / "frame"
    sources = [
        *sorted((ROOT / "runtime" / "c" / "src").rglob("*.c")),
        ROOT / "examples" / "c" / "frame.c",
    ]
    static = ("-static",) if TARGETS[compiler] else ()
    include = (f"-I{ROOT / 'runtime' / 'c' / 'include'}", f"-I{boundary[0]}")
    subprocess.run(
        [compiler, *WARNINGS, *static, *include, *sources, "-o", program], check=True, timeout=300
    )
    check_frames([*TARGETS[compiler], program], boundary[1])


def test_cortex_m(boundary: tuple[Path, FrameSchema], tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc")
    flags = (
        "-mcpu=cortex-m4",
        "-mthumb",
        "-Os",
        "-std=c99",
        "-ffreestanding",
        "-Wall",
        "-Wextra",
        "-Werror",
    )
    firmware = tmp_path / "firmware.c"
    firmware.write_text(
        '#include "irs.h"\n#include "boundary.h"\nint used = sizeof irs_boundary0_descriptor;\n'
    )
    include = (f"-I{ROOT / 'runtime' / 'c' / 'include'}", f"-I{boundary[0]}")
    sources = [*sorted((ROOT / "runtime" / "c" / "src").rglob("*.c")), firmware]
    command = ["arm-none-eabi-gcc", *flags, "-DIRS_ENCODE_ONLY", *include, "-c", *sources]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "frame.o").is_file()


def test_cmake_asks_for_the_header(tmp_path: Path) -> None:
    needs("cmake", "gcc")
    words = [
        "cmake",
        "-S",
        ROOT / "examples" / "c",
        "-B",
        tmp_path,
        f"-DBOUNDARY={tmp_path / 'none.h'}",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'none.h'}: no such file" in " ".join(done.stderr.split())


@pytest.mark.parametrize("installed", [False, True])
def test_the_cmake_package(
    installed: bool, boundary: tuple[Path, FrameSchema], tmp_path: Path
) -> None:
    needs("cmake", "gcc")

    def cmake(*words: str | Path) -> None:
        subprocess.run(["cmake", *words], check=True, capture_output=True, text=True, timeout=300)

    prefix = tmp_path / "prefix"
    if installed:
        cmake("-S", ROOT / "runtime" / "c", "-B", tmp_path / "core")
        cmake("--build", tmp_path / "core")
        cmake("--install", tmp_path / "core", "--prefix", prefix)
        assert list(prefix.rglob("irsplit-config.cmake"))
    options = (f"-DBOUNDARY={boundary[0] / 'boundary.h'}", f"-DCMAKE_PREFIX_PATH={prefix}")
    cmake("-S", ROOT / "examples" / "c", "-B", tmp_path / "build", *options)
    cmake("--build", tmp_path / "build")
    assert (tmp_path / "build" / "runtime").exists() is not installed
    check_frames([tmp_path / "build" / "frame"], boundary[1])


def test_a_codec_that_is_not_in_the_core(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(DIGITS / "digits.tflite"), "-o", str(tmp_path)]) == 0
    assert main(["header", str(tmp_path), "--dim", "1", "-o", str(tmp_path / "boundary.h")]) == 0
    assert (
        "is coded with zstandard, which the C core takes from irs_hooks only"
        in capsys.readouterr().err
    )


def test_a_header_that_cannot_be(
    boundary: tuple[Path, FrameSchema], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["header", str(boundary[0] / "bundle"), "--boundary", "1"]) == 2
    assert "has no boundary 1; it has 1, numbered from 0" in capsys.readouterr().err
    assert main(["header", str(boundary[0] / "bundle")]) == 2
    assert "say the size of the symbolic dims (--dim N)" in capsys.readouterr().err
