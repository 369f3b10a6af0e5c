"""Escape control characters that would steer a terminal.

Names in models, bundles, profiles and answers of servers may hold them. The command line replaces
standard output and standard error while it runs, so that no command has to think of it. Escapes
are those of JSON, so that JSON stays JSON and means the same.
"""

import io
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

_STEERING = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of what follows
    "\u2028\u2029\ufeff"  # separators of lines, and no space at all
    "\ud800-\udfff"  # halves of surrogate pairs, which no encoding takes
    "]"
)
_BREAKING = re.compile(r"[\t\n]")
_UNINDENTED = re.compile(r"\n(?!  )")


def escaped(text: str) -> str:
    """Escape control characters as \\u001b, except tabs and newlines."""
    return _STEERING.sub(_escape, text)


def one_line(text: str) -> str:
    """Escape control characters, tabs and newlines, for a cell of a table."""
    return escaped(_BREAKING.sub(lambda match: {"\t": "\\t", "\n": "\\n"}[match[0]], text))


def message(text: str) -> str:
    """Escape control characters, and newlines unless the next line is indented.

    Notes of our errors are indented lines.
    """
    return escaped(_UNINDENTED.sub(r"\\n", text))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class _Escaping:
    """A text stream that escapes what is written; `steerable` is the stream below."""

    def __init__(self, stream: TextIO) -> None:
        self.steerable = stream

    def write(self, text: str) -> int:
        self.steerable.write(escaped(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.steerable, name)


@contextmanager
def escaping(name: Literal["stdout", "stderr"]) -> Generator[None]:
    """Escape what the block writes to `sys.stdout` or `sys.stderr`."""
    stream = getattr(sys, name)
    # A program without a console has no streams: what is written goes nowhere.
    setattr(sys, name, _Escaping(io.StringIO() if stream is None else stream))
    try:
        yield
    finally:
        setattr(sys, name, stream)


def steerable(stream: TextIO) -> TextIO:
    """Return the stream below one that escapes, for drawing words that are escaped already."""
    return cast(TextIO, getattr(stream, "steerable", stream))
