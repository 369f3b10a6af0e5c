"""Progress: drawn on a terminal, gone afterwards, and nothing at all anywhere else."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from irsplit.cli import main
from irsplit.commands.progress import progress

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """In place of standard error from now on: pytest puts its own there when a test begins."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    return found


def test_a_command_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = terminal(monkeypatch)
    assert main(["compile", str(DIGITS), "-o", str(tmp_path / "bundle")]) == 0
    drawn = screen.getvalue()
    assert "writing" in drawn
    assert drawn.rstrip("\n").endswith("\x1b[2K"), "the line is erased at the end"
    assert "writing" not in capsys.readouterr().out


def test_lines_appear_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with progress() as told:
        told(1, 4, "[second] part")
        print("a remark", file=sys.stderr)
    drawn = screen.getvalue()
    assert "a remark\n" in drawn
    assert "[second] part" in drawn, "names of a model are no markup"


def test_silent_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with progress(shown=False) as told:
        told(0, 1, "part")
    assert screen.getvalue() == ""


def test_silent_and_not_loaded_without_a_terminal(tmp_path: Path) -> None:
    script = (
        "import sys; from irsplit.cli import main\n"
        f"assert main(['compile', {str(DIGITS)!r}, '-o', {str(tmp_path / 'bundle')!r}]) == 0\n"
        "assert 'rich' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stderr == ""
