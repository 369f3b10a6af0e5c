"""Programs that some tests run and a machine may lack: tried, not looked for.

A compiler without its headers is on the PATH and useless. So each tool has a probe that does with
it, on something tiny, what the tests do; a test that `needs` a tool whose probe fails is skipped,
and the skip says why and what to install. A probe runs once in a test process. `python
tests/tools.py` tries all of them.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from numpy._core import _multiarray_umath

HOSTED = """
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    char *text = malloc(CHAR_BIT);
    if (text == NULL) return (int)(intptr_t)argv[argc];
    strcpy(text, "works");
    puts(text);
    free(text);
    return 0;
}
"""
FUZZED = """
#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return data == NULL && size != 0; }
"""
FREESTANDING = """
#include <float.h>
#include <stdint.h>
#include <string.h>
void start(void) { static uint8_t bytes[4]; memcpy(bytes, "abc", sizeof bytes); }
"""


class ToolError(Exception):
    """A probe found that a tool does not do what tests ask of it."""


@dataclass(frozen=True)
class Tool:
    """An optional tool.

    Attributes:
        packages: What to install on Debian for it.
        probe: Called with an empty folder and with the flags of a compiler. Raises ToolError or
            OSError where the tool does not work.
    """

    packages: str
    probe: Callable[[Path, tuple[str, ...]], None]


def needs(*names: str) -> None:
    """Skip the running test, loudly, unless all of these tools work."""
    for name in names:
        needs_compiler(name)


def needs_compiler(name: str, *flags: str) -> None:
    """Skip the test, loudly, unless this compiler makes programs that run with these flags."""
    reason = lack(name, *flags)
    if reason:
        pytest.skip(reason)


@cache
def lack(name: str, *flags: str) -> str:
    """Why a tool is no use here, and what to install; empty when it works."""
    tool = TOOLS[name]
    with tempfile.TemporaryDirectory(prefix="probe-", ignore_cleanup_errors=True) as folder:
        try:
            tool.probe(Path(folder), flags)
        except (ToolError, OSError) as error:
            asked = " ".join((name.upper(), *flags))
            packages = " ".join(
                [
                    tool.packages,
                    *(FOR_FLAGS[name, flag] for flag in flags if (name, flag) in FOR_FLAGS),
                ]
            )
            return (
                f"{asked} DOES NOT WORK HERE, so this was not tested; install {packages} (tried: "
                f"{error})"
            )
    return ""


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a program; what it prints. Raises ToolError with its first words when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=120,
        )
    except FileNotFoundError as error:
        raise ToolError(f"{words[0]} is not on the PATH") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{words[0]} did not end within 120 s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ToolError(f"{words[0]}: {said[0][:200] if said else f'exit code {done.returncode}'}")
    return done.stdout


def _expect(said: str, part: str, program: str) -> None:
    if part not in said:
        raise ToolError(f"{program} printed {said[:80]!r}")


def _compiler(compiler: str, *emulator: str) -> Callable[[Path, tuple[str, ...]], None]:
    """A probe that compiles, links and runs a program of the C library, or an empty fuzz target."""

    def probe(folder: Path, flags: tuple[str, ...]) -> None:
        source, program = folder / "probe.c", folder / "probe"
        fuzzed = any("fuzzer" in flag for flag in flags)
        source.write_text(FUZZED if fuzzed else HOSTED)
        static = ("-static",) if emulator else ()
        run(compiler, "-std=c99", *static, *flags, source, "-o", program)
        if fuzzed:
            run(*emulator, program, "-runs=1", cwd=folder)
        else:
            _expect(run(*emulator, program), "works", "a compiled program")

    return probe


def _wasm32(folder: Path, flags: tuple[str, ...]) -> None:
    source, module, script = folder / "probe.c", folder / "probe.wasm", folder / "probe.mjs"
    source.write_text("#include <stdint.h>\nint32_t seven(void) { return 7; }\n")
    linking = ("-nostdlib", "-Wl,--no-entry", "-Wl,--export-all")
    run("clang", "--target=wasm32", "-ffreestanding", *linking, *flags, source, "-o", module)
    script.write_text(
        "import { readFileSync } from 'node:fs';\n"
        "const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});\n"
        "console.log('seven is', instance.exports.seven());\n"
    )
    _expect(run("node", script, module), "seven is 7", "node")


def _cortex_m(folder: Path, flags: tuple[str, ...]) -> None:
    source, program = folder / "probe.c", folder / "probe.elf"
    source.write_text(FREESTANDING)
    linking = ("-nostdlib", "-static", "-Wl,-e,start", "-Wl,--unresolved-symbols=ignore-all")
    run(
        "arm-none-eabi-gcc",
        "-mcpu=cortex-m4",
        "-mthumb",
        "-ffreestanding",
        *linking,
        *flags,
        source,
        "-o",
        program,
    )
    _expect(run("arm-none-eabi-size", program), "probe.elf", "arm-none-eabi-size")


def _cmake(folder: Path, flags: tuple[str, ...]) -> None:
    (folder / "main.c").write_text(HOSTED)
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(probe C)\nadd_executable(probe main.c)\n"
    )
    run("cmake", "-S", folder, "-B", folder / "build", *flags)
    run("cmake", "--build", folder / "build")
    _expect(run(folder / "build" / "probe"), "works", "a program built by CMake")


def _chromium(folder: Path, flags: tuple[str, ...]) -> None:
    quiet = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    )
    page = "data:text/html,<script>document.write('wo'%2B'rks')</script>"
    _expect(
        run("chromium", *quiet, f"--user-data-dir={folder}", "--dump-dom", page, *flags),
        "works",
        "chromium",
    )
    _expect(run("chromedriver", "--version"), "ChromeDriver", "chromedriver")


def _openssl(folder: Path, flags: tuple[str, ...]) -> None:
    key = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "key.pem",
    )
    run(
        "openssl",
        "req",
        "-x509",
        *key,
        "-out",
        "certificate.pem",
        "-subj",
        "/CN=probe",
        *flags,
        cwd=folder,
    )
    _expect(
        run("openssl", "x509", "-in", "certificate.pem", "-noout", "-subject", cwd=folder),
        "probe",
        "openssl",
    )


def _unzip(folder: Path, flags: tuple[str, ...]) -> None:
    with zipfile.ZipFile(folder / "probe.zip", "w") as archive:
        archive.writestr("inside/text", "works")
    run("unzip", "-q", folder / "probe.zip", "-d", folder / "out", *flags)
    _expect((folder / "out" / "inside" / "text").read_text(), "works", "unzip")


def _make(folder: Path, flags: tuple[str, ...]) -> None:
    (folder / "Makefile").write_text("made:\n\techo works > made\n")
    run("make", "-C", folder, *flags)
    _expect((folder / "made").read_text(), "works", "make")


def _ninja(folder: Path, flags: tuple[str, ...]) -> None:
    (folder / "build.ninja").write_text(
        "rule say\n  command = echo works > $out\nbuild made: say\n"
    )
    run("ninja", "-C", folder, *flags)
    _expect((folder / "made").read_text(), "works", "ninja")


def _curl(folder: Path, flags: tuple[str, ...]) -> None:
    (folder / "text").write_text("works")
    _expect(run("curl", "--silent", *flags, (folder / "text").as_uri()), "works", "curl")


def _clang_format(folder: Path, flags: tuple[str, ...]) -> None:
    """Version 14, as Debian 12 has it: another one breaks lines elsewhere."""
    (folder / "probe.c").write_text("int  x ;\n")
    _expect(run("clang-format", "--version"), "version 14", "clang-format")
    _expect(run("clang-format", *flags, folder / "probe.c"), "int x;", "clang-format")


def _nm(_: Path, flags: tuple[str, ...]) -> None:
    said = run("nm", "-D", "--defined-only", *flags, _multiarray_umath.__file__)
    _expect(said, "PyInit__multiarray_umath", "nm")


def _shell(name: str) -> Callable[[Path, tuple[str, ...]], None]:
    def probe(_: Path, flags: tuple[str, ...]) -> None:
        _expect(run(name, *flags, "-c", "echo works"), "works", name)

    return probe


TOOLS = {
    "aarch64-linux-gnu-gcc": Tool(
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
        _compiler("aarch64-linux-gnu-gcc", "qemu-aarch64"),
    ),
    "arm-none-eabi-gcc": Tool("gcc-arm-none-eabi libnewlib-arm-none-eabi", _cortex_m),
    "cc": Tool("gcc libc6-dev", _compiler("cc")),
    "chromium": Tool("chromium chromium-driver", _chromium),
    "clang": Tool("clang libc6-dev", _compiler("clang")),
    "clang-format": Tool("clang-format-14 clang-format", _clang_format),
    "cmake": Tool("cmake make gcc libc6-dev", _cmake),
    "curl": Tool("curl", _curl),
    "fish": Tool("fish", _shell("fish")),
    "gcc": Tool("gcc libc6-dev", _compiler("gcc")),
    "make": Tool("make", _make),
    "ninja": Tool("ninja-build", _ninja),
    "nm": Tool("binutils", _nm),
    "openssl": Tool("openssl", _openssl),
    "unzip": Tool("unzip", _unzip),
    "wasm32": Tool("clang lld nodejs", _wasm32),
    "zsh": Tool("zsh", _shell("zsh")),
}

FOR_FLAGS = {
    ("gcc", "-m32"): "gcc-multilib (or libc6-dev-i386 and lib32gcc-12-dev)",
    ("clang", "-fsanitize=address,undefined"): "libclang-rt-14-dev",
    ("clang", "-fsanitize=fuzzer,address,undefined"): "libclang-rt-14-dev",
}
"""What certain flags of a compiler need beside it."""


def main() -> int:
    variants = [(name,) for name in TOOLS] + list(FOR_FLAGS)
    for words in variants:
        print(f"{' '.join(words):45} {lack(*words) or 'works'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
