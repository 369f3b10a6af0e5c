"""Pages of the site made of something else: README, frame format, examples, command line.

MkDocs calls the `on_*` functions (`hooks` in mkdocs.yml).
"""

import contextlib
import io
import os
import re
import tempfile
from argparse import Action, ArgumentParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from irsplit.cli import main
from irsplit.commands.registry import COMMANDS, parser_of

ROOT = Path(__file__).parent.parent
HOME = "index.md"
FULL_WIDTH = "---\nhide: [navigation, toc]\n---\n"
"""For the first page, whose listings are wide."""
COPIES = {
    "README.md": HOME,
    "runtime/FORMAT.md": "reference/frame-format.md",
    **{
        f"examples/{name}/README.md": f"examples/{name}.md"
        for name in ("c", "ci", "digits", "plugin")
    },
}
"""Files outside of docs/ that are pages."""
COMMAND_LINE = "reference/command-line.md"
REPORT = "examples/report.html"
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in COPIES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(
            File.generated(config, page, content=FULL_WIDTH + text if page == HOME else text)
        )
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    files.append(File.generated(config, REPORT, content=report()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository become links between pages; the rest keep a name."""
    name = page.file.src_uri
    source = next((path for path, copy in COPIES.items() if copy == name), f"docs/{name}")

    def relink(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        found = COPIES.get(path) or (
            path.removeprefix("docs/") if path.startswith("docs/") else None
        )
        if found is not None:
            return f"[{text}]({os.path.relpath(found, os.path.dirname(name) or '.')}{anchor})"
        return text if (ROOT / path).exists() else match[0]

    return _LINK.sub(relink, markdown)


def report() -> str:
    """What `irsplit report` writes for the example."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        model, picture = (
            ROOT / "examples/digits/digits.onnx",
            ROOT / "examples/digits/pictures/3.png",
        )
        with contextlib.redirect_stdout(io.StringIO()):
            main(
                [
                    "report",
                    str(model),
                    "--link",
                    "lte",
                    "--input",
                    f"image={picture}",
                    "-o",
                    str(page),
                ]
            )
        return page.read_text(encoding="utf-8")


def command_line() -> str:
    """Every command with its options, from the parsers themselves."""
    parts = [
        "# Command line\n",
        "Exit codes: 0 done, 1 a check did not hold, 2 the input is at fault; one line then says "
        "what, where and how to fix it. This page is made from the parsers: `irsplit COMMAND "
        "--help` says the same.\n",
    ]
    for name in COMMANDS:
        parts.append(_command(name, parser_of(name)))
    return "\n".join(parts)


def _command(name: str, parser: ArgumentParser) -> str:
    needed = [
        _written(action)
        for action in parser._actions
        if action.required or not action.option_strings
    ]
    usage = " ".join([parser.prog, *needed, "[OPTION ...]"])
    rows = [
        f"| {_code(_written(action))}{{: .option }} | {_cell(parser, action)} |"
        for action in parser._actions
        if action.dest != "help"
    ]
    lines = [f"## irsplit {name}\n", f"{parser.description}\n", f"```text\n{usage}\n```\n"]
    lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    if parser.epilog:
        examples = parser.epilog.removeprefix("examples:\n")
        text = "\n".join(line.strip() for line in examples.splitlines())
        lines.append(f"```sh\n{text}\n```\n")
    return "\n".join(lines)


def _written(action: Action) -> str:
    """An argument as it is typed: --max-tensors K"""
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = action.metavar if isinstance(action.metavar, str) else choices or action.dest.upper()
    if not action.option_strings:
        return f"{value} ..." if action.nargs == "+" else value
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(parser: ArgumentParser, action: Action) -> str:
    text = (action.help or "") % {"prog": parser.prog, "default": action.default}
    return text.replace("|", "\\|")
