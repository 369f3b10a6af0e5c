"""Shell completion: bash is asked as at the TAB key; zsh and fish read their scripts."""

import subprocess
from pathlib import Path

import pytest

from irsplit.cli import main
from irsplit.commands.completion import PLACES
from irsplit.commands.registry import COMMANDS
from irsplit.passes.choose_cut import OBJECTIVES
from tools import needs

ASK = """
source "$1"; shift
complete -p irsplit > /dev/null
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_irsplit
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in PLACES:
        with pytest.MonkeyPatch.context() as patch, (folder / shell).open("w") as output:
            patch.setattr("sys.stdout", output)
            assert main(["completion", shell]) == 0
    return folder


def offered(scripts: Path, folder: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    command = ["bash", "-c", ASK, "ask", str(scripts / "bash"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    assert offered(scripts, tmp_path, "irsplit", "") == set(COMMANDS)
    assert offered(scripts, tmp_path, "irsplit", "compile", "--li") == {"--link", "--limit"}
    assert offered(scripts, tmp_path, "irsplit", "cuts", "mo") == {"model.onnx"}
    assert offered(scripts, tmp_path, "irsplit", "plan", "model.onnx", "--device", "pixel") == {
        "pixel-2",
        "pixel-xl",
    }
    assert offered(scripts, tmp_path, "irsplit", "plan", "model.onnx", "--objective", "") == set(
        OBJECTIVES
    )
    assert offered(scripts, tmp_path, "irsplit", "export", "bundle", "--to", "t") == {"triton"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells_name_everything(shell: str, scripts: Path) -> None:
    text = (scripts / shell).read_text()
    assert all(name in text for name in (*COMMANDS, "pixel-xl", "triton"))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_theirs(shell: str, scripts: Path) -> None:
    needs(shell)
    subprocess.run([shell, "-n", scripts / shell], check=True)
