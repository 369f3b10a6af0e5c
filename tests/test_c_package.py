"""The C library as others take it: header, amalgamation, CMake, Zephyr module, ESP-IDF component.

Zephyr and ESP-IDF are too large for every checkout: their build files are run by CMake with
stand-ins for the commands of these systems. Their manifests are checked by the systems' own
programs where these are installed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from irsplit.base.dtypes import ALL
from irsplit.base.errors import VERSION
from irsplit.codec_training.header import c_header
from irsplit.runtime.c import amalgamate
from irsplit.runtime.frame.descriptor import FrameSchema
from test_c_core import ROOT, SOURCES
from test_operators import exports
from test_static_rans import trained
from tools import needs

CORE = ROOT / "runtime" / "c"
HEADER = CORE / "include" / "irs.h"
C_FILES = sorted(
    path
    for folder in (CORE, ROOT / "examples" / "c", ROOT / "tests" / "c")
    for path in folder.rglob("*.[ch]")
    if "build" not in path.relative_to(ROOT).parts
)
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
FIRMWARE_SWITCHES = (
    "IRS_ENCODE_ONLY",
    "IRS_BYTES_ONLY",
    "IRS_NO_QUANTIZATION",
    "IRS_NO_REFERENCES",
)


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- text ----------------------------------------------------------------------------------------


def test_all_c_is_formatted() -> None:
    needs("clang-format")
    if "version 14." not in run("clang-format", "--version"):
        pytest.skip(
            "clang-format is not version 14, others format differently: the format of C is NOT "
            "checked here"
        )
    run("clang-format", "--dry-run", "--Werror", *C_FILES, cwd=ROOT)


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_has_a_license_and_a_size(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "/* SPDX-License-Identifier: Apache-2.0"
    assert len(lines) < 500
    assert [number for number, line in enumerate(lines, 1) if len(line) > 100] == []


# ---- the header ----------------------------------------------------------------------------------


def version_of_header() -> str:
    parts = re.findall(
        r"^#define IRS_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", HEADER.read_text(), re.MULTILINE
    )
    return ".".join(parts)


def test_one_version() -> None:
    component = yaml.safe_load((CORE / "idf_component.yml").read_text())
    assert (version_of_header(), component["version"]) == (VERSION, VERSION)


def test_the_example_of_the_header(tmp_path: Path) -> None:
    """As it stands in the comment, it sends the frame that the library gives."""
    needs("gcc")
    example = HEADER.read_text().partition(" * -------\n")[2].partition(" * Rules that hold")[0]
    code = "\n".join(re.findall(r"^ \*     (.*)$|^ \*$", example.partition(":\n")[2], re.MULTILINE))
    main = """
    #include <stdio.h>
    static void print(const void *bytes, size_t size) { fwrite(bytes, 1, size, stdout); }
    int main(void) {
        static unsigned char zeros[IRS_BOUNDARY0_TENSOR0_SIZE];
        return irs_version() == IRS_VERSION ? -(int)send_tensor(zeros, print) : 1;
    }
    """
    boundary = FrameSchema(0, "example", (trained("u8", (1, 6, 5, 40), 1),))
    (tmp_path / "boundary.h").write_text(c_header(boundary))
    (tmp_path / "example.c").write_text(code + main)
    run(
        "gcc",
        *WARNINGS,
        f"-I{CORE / 'include'}",
        "example.c",
        CORE / "irs.c",
        "-o",
        "example",
        cwd=tmp_path,
    )
    frame = subprocess.run(
        [tmp_path / "example"], capture_output=True, timeout=60, check=True
    ).stdout
    assert frame[:4] == b"IRSF"
    assert int.from_bytes(frame[16:24], "little") == len(frame)
    assert 20 <= len(code.splitlines()) <= 32


def test_the_header_names_every_switch() -> None:
    sources = [*SOURCES, *CORE.rglob("src/**/*.h")]
    used = {
        name
        for path in sources
        for name in re.findall(r"(?:ifn?def |defined\()(IRS_\w+)", path.read_text())
    }
    own = {
        name
        for path in (*sources, CORE / "irs.c")
        for name in re.findall(r"#define (IRS_\w+)", path.read_text())
    }
    manual = HEADER.read_text().partition("#ifndef IRS_H")[0]
    assert {name for name in used - own if name not in manual} == set()


# ---- one file of all -----------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["gcc", "clang", "aarch64-linux-gnu-gcc"])
def test_the_amalgamation_has_no_warnings(compiler: str, tmp_path: Path) -> None:
    """Frames of it: test_c_core.py and test_boundary_header.py."""
    needs(compiler)
    amalgamate.write(tmp_path)
    included = re.findall(r'#include "(.*)"', (tmp_path / "irs.c").read_text())
    assert included == ["irs.h"]
    all_switches = tuple(f"-D{switch}" for switch in FIRMWARE_SWITCHES)
    builds: list[Sequence[str]] = [
        (),
        ("-DIRS_ENCODE_ONLY",),
        ("-DIRS_PORTABLE",),
        ("-DIRS_NO_AVX2",),
        all_switches,
    ]
    for flags in builds:
        run(compiler, *WARNINGS, *flags, "-fsyntax-only", tmp_path / "irs.c")


def test_the_amalgamation_as_part_of_a_program(tmp_path: Path) -> None:
    """Every function is static, none is left out, and no name of ours is seen outside."""
    needs("gcc", "nm")
    amalgamate.write(tmp_path)
    (tmp_path / "program.c").write_text(
        '#include "irs.c"\nint main(void) { return irs_version() != IRS_VERSION; }\n'
    )
    run("gcc", "-std=c99", "-DIRS_API=static", "-w", "program.c", "-o", "program", cwd=tmp_path)
    run(tmp_path / "program")


def test_the_amalgamation_by_make() -> None:
    assert "runtime/c/amalgamate.py build/amalgamation" in (ROOT / "Makefile").read_text()
    usage = subprocess.run(
        [sys.executable, amalgamate.__file__],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (usage.returncode, usage.stderr) == (1, "usage: amalgamate.py FOLDER\n")


# ---- CMake ---------------------------------------------------------------------------------------


def test_a_shared_library_exports_the_header(tmp_path: Path) -> None:
    needs("cmake", "gcc", "nm")
    run("cmake", "-S", CORE, "-B", tmp_path, "-DBUILD_SHARED_LIBS=ON", "-DCMAKE_BUILD_TYPE=Debug")
    run("cmake", "--build", tmp_path)
    declared = re.findall(r"^IRS_API .*?(irs_\w+)\(", HEADER.read_text(), re.MULTILINE)
    assert sorted(exports(tmp_path / "libirsplit.so")) == sorted(declared)
    assert f"CMAKE_PROJECT_VERSION:STATIC={VERSION}" in (tmp_path / "CMakeCache.txt").read_text()


ZEPHYR = """
set(CONFIG_IRSPLIT y)
macro(zephyr_library)
    add_library(firmware STATIC)
endmacro()
function(zephyr_library_sources)
    target_sources(firmware PRIVATE ${ARGN})
endfunction()
function(zephyr_include_directories)
    target_include_directories(firmware PUBLIC ${ARGN})
endfunction()
function(zephyr_library_compile_definitions_ifdef feature)
    if(${feature})
        target_compile_definitions(firmware PRIVATE ${ARGN})
    endif()
endfunction()
add_subdirectory(CORE/zephyr zephyr)
"""
ESP_IDF = """
set(ESP_PLATFORM 1)
set(COMPONENT_LIB firmware)
function(idf_component_register)
    cmake_parse_arguments(component "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
    add_library(firmware STATIC ${component_SRCS})
    target_include_directories(firmware PUBLIC ${component_INCLUDE_DIRS})
endfunction()
add_subdirectory(CORE core)
"""


@pytest.mark.parametrize("system", [ZEPHYR, ESP_IDF], ids=["Zephyr", "ESP-IDF"])
def test_the_build_of_a_firmware(system: str, tmp_path: Path) -> None:
    """All sources, with the switches of its configuration, and no decoder in what is built."""
    needs("cmake", "gcc", "nm")
    switches = "".join(f"set(CONFIG_{switch} y)\n" for switch in FIRMWARE_SWITCHES)
    project = "cmake_minimum_required(VERSION 3.16)\nproject(firmware LANGUAGES C)\n" + switches
    (tmp_path / "CMakeLists.txt").write_text(project + system.replace("CORE", CORE.as_posix()))
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    run("cmake", "--build", tmp_path / "build")
    library = next((tmp_path / "build").rglob("libfirmware.a"))
    symbols = {
        line.split()[-1]
        for line in run("nm", "--defined-only", library).splitlines()
        if " T " in line
    }
    assert {"irs_schema_open", "irs_encode"} <= symbols
    assert "irs_rans_decode_chunk" not in symbols


# ---- manifests -----------------------------------------------------------------------------------


def test_firmware_options_are_switches_of_the_header() -> None:
    options = re.findall(r"^config (\w+)$", (CORE / "Kconfig").read_text(), re.MULTILINE)
    assert tuple(options) == FIRMWARE_SWITCHES
    assert 'rsource "../Kconfig"' in (CORE / "zephyr" / "Kconfig").read_text()


def test_the_module_of_zephyr() -> None:
    """The files it names are there; by Zephyr's own schema where ZEPHYR_BASE is set."""
    module = yaml.safe_load((CORE / "zephyr" / "module.yml").read_text())
    assert set(module) == {"name", "build"}
    assert (CORE / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (CORE / module["build"]["kconfig"]).is_file()
    zephyr = os.environ.get("ZEPHYR_BASE")
    if zephyr is None:
        pytest.skip("ZEPHYR_BASE IS NOT SET: module.yml is not checked by Zephyr's schema")
    run(sys.executable, Path(zephyr) / "scripts" / "zephyr_module.py", "-z", zephyr, "-m", CORE)


def test_the_component_of_esp_idf() -> None:
    """By the program that takes components in for ESP-IDF and refuses fields it does not know."""
    manager = pytest.importorskip(
        "idf_component_tools.manager",
        reason="IDF-COMPONENT-MANAGER IS NOT INSTALLED: idf_component.yml is not checked",
    )
    manifest = manager.ManifestManager(CORE, "irsplit")
    assert manifest.validation_errors == []
    assert str(manifest.load().version) == VERSION


# ---- numbers of element types --------------------------------------------------------------------


def test_element_types_are_the_same_everywhere() -> None:
    """In the header, in the format's page, and in the table of Python."""
    framable = {dtype.name: dtype.code for dtype in ALL if dtype.framable}
    types = re.findall(r"^    IRS_TYPE_(\w+) = (\d+),?", HEADER.read_text(), re.MULTILINE)
    assert {name.lower(): int(code) for name, code in types} == framable | {"none": 0}

    page = (
        (ROOT / "runtime" / "FORMAT.md")
        .read_text()
        .partition("## Element types")[2]
        .partition("\n## ")[0]
    )
    listed: dict[str, int] = {}
    for codes, names in re.findall(r"^\| ([\d, ]+) \| ([\w, ]+) \|", page, re.MULTILINE):
        listed |= dict(zip(names.split(", "), map(int, codes.split(", ")), strict=True))
    assert listed == framable
    other = {
        name: int(code)
        for code, name in re.findall(r"(\d+) (\w+)[,.\n]", page.partition("The others")[2])
    }
    assert other == {dtype.name: dtype.code for dtype in ALL if not dtype.framable}
