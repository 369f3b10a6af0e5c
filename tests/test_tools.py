"""Tools are tried: one that is there and does nothing, or that lacks its headers, is no tool."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import bare
from tools import FOR_FLAGS, TOOLS, lack

PROGRAMS = (
    *(name for name in TOOLS if name != "wasm32"), "arm-none-eabi-size", "chromedriver", "node",
    "qemu-aarch64",
)  # fmt: skip
try_again = lack.__wrapped__
"""Not remembered: here, the PATH changes."""


@pytest.mark.parametrize("name", TOOLS)
def test_programs_that_do_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in PROGRAMS:
        (tmp_path / program).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = try_again(name)
    assert reason.startswith(f"{name.upper()} DOES NOT WORK HERE")
    assert f"install {TOOLS[name].packages} (tried: " in reason


@pytest.mark.parametrize("name", TOOLS)
def test_an_empty_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert try_again(name).endswith("is not on the PATH)")


def test_a_compiler_without_its_32_bit_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", bare.bare_path(os.environ["PATH"], tmp_path))
    assert try_again("gcc") == lack("gcc")
    reason = try_again("gcc", "-m32")
    assert FOR_FLAGS["gcc", "-m32"] in reason
    if not lack("gcc"):
        assert "bits/libc-header-start.h: No such file or directory" in reason


def test_the_bare_path_hides_every_optional_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", bare.bare_path(os.environ["PATH"], tmp_path))
    kept = {program for program in PROGRAMS if shutil.which(program)}
    assert kept <= {"cc", "gcc", "make"}
    assert shutil.which("sh")


def test_bare_runs_a_command_and_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "leave_network", lambda: "not from a test")
    monkeypatch.setattr(
        sys,
        "argv",
        ["bare.py", "sh", "-c", 'test "$PIP_NO_INDEX" = 1 && ! command -v cmake && exit 7'],
    )
    assert bare.main() == 7
    monkeypatch.setattr(sys, "argv", ["bare.py"])
    assert bare.main() == 2
