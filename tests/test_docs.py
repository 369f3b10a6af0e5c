"""Every snippet of the docs runs (see tests/snippets.py), and every example of --help."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import snippets
from irsplit.cli import main
from irsplit.commands.registry import COMMANDS, module_of

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")]
)
SHOWN = ("text", "json", "yaml", "c", "cmake", "irs", "toml", "ninja", "make")
"""Languages of blocks that are there to be read."""

ELSEWHERE = {
    "serve": "docs/how-to/serve.md",
    "update": "docs/how-to/update-by-diff.md",
    "olive-config": "docs/how-to/converters.md",
}
"""Commands whose examples need more than a folder, and the page that runs the like of them."""


def label(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def checkout(folder: Path) -> dict[str, str]:
    """Make `folder` look like the repository's root; the environment with irsplit in it."""
    shutil.copytree(
        ROOT / "examples",
        folder / "examples",
        ignore=shutil.ignore_patterns("__pycache__", "build"),
    )
    for name in (
        "Makefile",
        "benchmarks",
        "docs",
        "irsplit",
        "passes",
        "pyproject.toml",
        "runtime",
        "tests",
    ):
        (folder / name).symlink_to(ROOT / name)
    programs, site = folder / "bin", folder / "site-packages"
    programs.mkdir()
    snippets.shim(programs, "irsplit", sys.executable, "-m", "irsplit")
    snippets.shim(programs, "python", sys.executable)
    snippets.shim(programs, "pip", sys.executable, "-m", "pip")
    # The environment is the one that the tests run in: nothing is set up again.
    snippets.shim(
        programs,
        "make",
        shutil.which("make") or "make",
        "-o",
        "setup",
        f"BIN={Path(sys.executable).parent}",
    )
    # A make that runs the tests tells those below it that they are not the first, and they say so.
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return outside | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]),
        "PIP_TARGET": str(site),
        # irsplit and setuptools are there, so nothing is fetched; pip reads the second's 0 as yes.
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.runs for b in snippets.blocks(page))], ids=label
)
def test_snippets_run(page: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tests" / "snippets.py", page]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=checkout(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as driver:
        try:
            said, _ = driver.communicate(timeout=900)
        finally:
            # Servers that a page leaves running are of the driver's process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
    assert driver.returncode == 0, said


NEEDS = [
    pytest.param(page, block, id=f"{label(page)}-{block.line}")
    for page in PAGES
    for block in snippets.blocks(page)
    if block.needs
]


@pytest.mark.parametrize(("page", "block"), NEEDS)
def test_nothing_is_missing(page: Path, block: snippets.Block) -> None:
    """Skipped, loudly, for a snippet that `test_snippets_run` had to leave out."""
    if block.missing:
        pytest.skip(f"{'; '.join(block.missing)}: {label(page)}.md, line {block.line}, did not run")
    assert block.runs


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ELSEWHERE])
def test_examples_of_help_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in module_of(name).EXAMPLES.strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "irsplit"
        assert main(words) == 0, line


def test_every_block_runs_or_is_there_to_be_read() -> None:
    for page in PAGES:
        for block in snippets.blocks(page):
            assert block.language in (*snippets.RUN, *SHOWN), (
                f"{page.name}, line {block.line}: {block.language}"
            )


def test_no_command_hides_in_an_indented_block() -> None:
    commands = ("irsplit ", "python ", "pip ", "make ", "$ ", "import ", "from ", "cmake ", "git ")
    for page in PAGES:
        fenced = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.startswith("```")
            hidden = not fenced and line.startswith("    ") and line.strip().startswith(commands)
            assert not hidden, (
                f"{page.name}, line {number}: put it into a fenced block, which is run"
            )
