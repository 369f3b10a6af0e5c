"""The snippets of a documentation page, run in order as from the repository's root.

    python tests/snippets.py PAGE.md        runs the page's snippets in the current folder

sh          bash runs the block; it must succeed
console     what follows `$ ` runs; the lines below it are its output; there, `...` is any text
python      runs; all Python blocks of a page share their names
any other   is only shown, or with title="NAME" in its first line written to the file NAME

Above a block, `<!-- needs: torch, cmake -->` names modules, or tools of `tools.TOOLS`, without
which it is left out, and `<!-- not run: REASON -->` says why a test cannot do what a reader can.
Ports 8000 and 8001 are replaced by free ones.
"""

import doctest
import importlib.util
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tools import TOOLS, lack

RUN = ("sh", "console", "python")
_BLOCK = re.compile(
    r"(?:^<!-- (needs|not run): (.*?) -->\n+)?^```(\w+)([^\n]*)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_PORTS = ("8000", "8001")
_LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is where its text begins in the page."""

    language: str
    title: str
    needs: tuple[str, ...]
    not_run: str
    text: str
    line: int

    @property
    def missing(self) -> tuple[str, ...]:
        """For each thing that is needed and not here, the reason."""
        reasons = (_lack(name) for name in self.needs)
        return tuple(reason for reason in reasons if reason)

    @property
    def runs(self) -> bool:
        return (self.language in RUN or bool(self.title)) and not self.not_run and not self.missing


def blocks(page: Path) -> list[Block]:
    return list(_blocks(page.read_text(encoding="utf-8")))


def _blocks(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        kind, words, language, options, body = match.groups()
        title = _TITLE.search(options)
        needs = tuple(re.split(r",\s*", words)) if kind == "needs" else ()
        line = text.count("\n", 0, match.start(5)) + 1
        yield Block(
            language,
            title[1] if title else "",
            needs,
            words if kind == "not run" else "",
            body,
            line,
        )


def _lack(name: str) -> str:
    if name in TOOLS:
        return lack(name)
    return "" if importlib.util.find_spec(name) else f"{name.upper()} NOT INSTALLED"


def run_page(page: Path) -> None:
    """Run every block that can run here. Raises for the first that fails, naming its line."""
    # A module, among whose names libraries look up what a function's annotations mean.
    names = vars(sys.modules.setdefault("page", ModuleType("page")))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    for block in blocks(page):
        if not block.runs:
            continue
        text = re.sub(r"\b(8000|8001)\b", lambda match: ports[match[1]], block.text)
        try:
            _run(block, text, names)
        except Exception as error:
            error.add_note(f"in {page.name}, line {block.line}:\n{text}")
            raise


def _run(block: Block, text: str, names: dict[str, Any]) -> None:
    if block.title:
        path = Path(block.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if block.language == "python":
        source = Path(
            f"snippet-{block.line}.py"
        )  # a file, because some libraries read the source of a function
        source.write_text(text)
        exec(compile(text, source.resolve(), "exec"), names)
    elif block.language == "sh":
        done = _bash(text)
        if done.status:
            raise AssertionError(f"exit code {done.status}\n{done.output}{done.errors}")
    elif block.language == "console":
        for command, expected in sessions(text):
            done = _bash(command)
            # Engines chatter on the error stream; if a command fails, it is shown with that.
            said = done.output + done.errors if done.status else done.output
            if not doctest.OutputChecker().check_output(expected, said, _LIKE):
                raise AssertionError(f"$ {command}\nsaid\n{said}\nnot\n{expected}")


def sessions(text: str) -> Iterator[tuple[str, str]]:
    """Commands of a console block with what they print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = next(index for index, line in enumerate(lines) if not line.endswith("\\\n")) + 1
        yield "".join(lines[:count]).rstrip("\n"), "".join(lines[count:])


@dataclass(frozen=True)
class Done:
    status: int
    output: str
    errors: str


def _bash(text: str) -> Done:
    """Into files: pipes would stay open as long as what was started in the background."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        command = ["bash", "-euo", "pipefail", "-c", text]
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, check=False
        ).returncode
        output.seek(0)
        errors.seek(0)
        return Done(status, output.read(), errors.read())


def _free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def shim(folder: Path, name: str, *command: object) -> None:
    """A program `name` in `folder` that runs `command` with further arguments behind it."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
    path.chmod(0o755)


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
