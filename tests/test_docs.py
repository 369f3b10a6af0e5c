"""Every snippet of the how-to pages runs, in order, as a reader would run it from the repository's root.

Fenced blocks: `sh` and `python` run, `toml file=NAME` is written. `needs=MODULE,...` names what must be installed; such
blocks run in a test of their own, after the page's other blocks.
"""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    words: dict[str, str]
    text: str

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(filter(None, self.words.get("needs", "").split(",")))


def blocks(page: Path) -> list[Block]:
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(kind, dict(word.split("=") for word in words.split()), text) for kind, words, text in found]


def needed(page: Path) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(block.needs for block in blocks(page)))


def run(page: Path, needs: tuple[str, ...], folder: Path) -> None:
    """Run the page's blocks that need nothing or exactly `needs`; Python blocks share one process."""
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "build").mkdir()
    script = folder / "irsplit"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m irsplit "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    chosen = [block for block in blocks(page) if block.needs in ((), needs)]
    for block in chosen:
        if "file" in block.words:
            (folder / block.words["file"]).write_text(block.text)
    shell = "\n".join(block.text for block in chosen if block.language == "sh")
    python = "\n".join(block.text for block in chosen if block.language == "python")
    for command in (["bash", "-euo", "pipefail", "-c", shell], [sys.executable, "-c", python]):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("page", "needs"),
    [pytest.param(page, needs, id="-".join((page.stem, *needs))) for page in PAGES for needs in needed(page)],
)
def test_snippets_run(page: Path, needs: tuple[str, ...], tmp_path: Path) -> None:
    missing = [module for module in needs if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing).upper()} NOT INSTALLED: snippets of {page.name} were not run")
    run(page, needs, tmp_path)


def test_every_block_is_of_a_kind_that_runs() -> None:
    assert PAGES
    for page in PAGES:
        for block in blocks(page):
            assert block.language in ("sh", "python") or "file" in block.words, f"{page.name}: {block.language}"
