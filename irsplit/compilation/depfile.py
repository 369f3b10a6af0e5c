"""Which files a bundle was made from, as a make rule: what make includes and ninja reads with `deps = gcc`."""

from collections.abc import Iterable
from pathlib import Path

from irsplit.base.atomic_files import write_file


def write_depfile(path: Path, target: Path, files: Iterable[Path]) -> None:
    """Write `target: files`. Raises BundleError when the depfile cannot be written."""
    rule = " \\\n ".join([f"{_escaped(target)}:", *map(_escaped, files)]) + "\n"
    write_file(path, lambda file: file.write(rule.encode()))


def read_depfile(path: Path) -> list[Path]:
    """The files behind the colon of a depfile that `write_depfile` wrote."""
    _, *lines = path.read_text(encoding="utf-8").rstrip("\n").split(" \\\n ")
    return [Path(_unescaped(line)) for line in lines]


_ESCAPES = {"\\ ": " ", "\\#": "#", "$$": "$"}


def _escaped(path: Path) -> str:
    text = str(path)
    for escape, plain in _ESCAPES.items():
        text = text.replace(plain, escape)
    return text


def _unescaped(text: str) -> str:
    for escape, plain in _ESCAPES.items():
        text = text.replace(escape, plain)
    return text
