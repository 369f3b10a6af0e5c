"""boundary.h: compiles without warnings and frames a tensor exactly as Python does."""

import subprocess
from pathlib import Path

import pytest

from framing import engines
from irsplit.base.errors import UnsupportedError
from irsplit.codec_training.header import c_header
from irsplit.runtime.c import amalgamate
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from test_static_rans import feature_map, trained
from tools import needs_compiler

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"

FIRMWARE = """
#include "irs.h"
#include "boundary.h"
#include <stdio.h>

static union {
    uint64_t align[2];
    unsigned char bytes[IRS_BOUNDARY0_MEMORY_SIZE];
} memory __attribute__((aligned(16)));
static unsigned char scratch[IRS_BOUNDARY0_WORKSPACE_SIZE] __attribute__((aligned(16)));
static unsigned char pixels[IRS_BOUNDARY0_TENSOR0_SIZE], frame[IRS_BOUNDARY0_FRAME_BOUND];

int main(void) {
    irs_schema *schema;
    irs_tensor tensor = {pixels, sizeof pixels, IRS_BOUNDARY0_TENSOR0_DIMS};
    size_t size;
    if (fread(pixels, 1, sizeof pixels, stdin) != sizeof pixels) return 1;
    if (irs_schema_open(&schema, &memory, sizeof memory, irs_boundary0_descriptor,
                        sizeof irs_boundary0_descriptor)) return 2;
    if (irs_encode(schema, NULL, &tensor, scratch, sizeof scratch,
                   frame, sizeof frame, &size)) return 3;
    return fwrite(frame, 1, size, stdout) == size ? 0 : 4;
}
"""


FLAGS = (
    "-std=c99",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-DIRS_ENCODE_ONLY",
    "-fsanitize=address,undefined",
)


def gcc(*words: str | Path, cwd: Path) -> None:
    command = ["gcc", *FLAGS, f"-I{RUNTIME / 'c' / 'include'}", *words]
    built = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="module", params=["separate", "amalgamated"])
def core(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Path]:
    """The object files of the C core, for every boundary: one a source, and one for all."""
    needs_compiler("gcc", *FLAGS)
    folder = tmp_path_factory.mktemp("core")
    sources = sorted((RUNTIME / "c" / "src").rglob("*.c"))
    if request.param == "amalgamated":
        amalgamate.write(folder)
        sources = [folder / "irs.c"]
    gcc("-c", *sources, cwd=folder)
    return sorted(folder.glob("*.o"))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_firmware_frames_like_python(level: int, core: list[Path], tmp_path: Path) -> None:
    boundary = FrameSchema(0, "relu */ \u00e9", (trained("u8", (1, 6, 5, 40), level),))
    (tmp_path / "boundary.h").write_text(c_header(boundary))
    (tmp_path / "firmware.c").write_text(FIRMWARE)
    gcc("firmware.c", *core, "-o", "firmware", cwd=tmp_path)
    array = feature_map(3, (1, 6, 5, 40), "u8")
    result = subprocess.run(
        [tmp_path / "firmware"], input=array.tobytes(), capture_output=True, timeout=300
    )
    assert (result.returncode, result.stdout) == (0, engines(boundary)[0].encode([array])), (
        result.stderr
    )


def test_symbolic_shapes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="static shapes"):
        c_header(FrameSchema(0, "b", (TensorSpec("x", "u8", (None, 3)),)))
