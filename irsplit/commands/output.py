"""Format what commands print: aligned tables, sizes for people, JSON for programs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from irsplit.commands.terminal import one_line

_NARROW, _TOO_NARROW = 24, 8
"""Widths of the last column: below the first its text continues under the other columns, below the
second it is not wrapped."""


def print_json(data: Any) -> None:
    """Print data as JSON."""
    print(json.dumps(data, indent=1, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table with columns aligned to the left, two spaces apart.

    On a terminal the last column is wrapped; elsewhere a row is a line.

    Args:
        header: The heads of the columns.
        rows: The cells of every row. A column with nothing but "?" is left out.

    Returns:
        The lines of the table.
    """
    shown: list[int] = []
    for column in range(len(header)):
        if not rows or any(row[column] != "?" for row in rows):
            shown.append(column)

    lines: list[list[str]] = []
    for cells in (header, *rows):
        lines.append([one_line(cells[column]) for column in shown])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = sum(widths[:-1]) + 2 * len(widths[:-1])

    # Every line without its last cell.
    starts: list[str] = []
    for line in lines:
        padded = [f"{cell:{width}}  " for cell, width in zip(line[:-1], widths, strict=False)]
        starts.append("".join(padded))

    columns = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or columns - left < _TOO_NARROW:
        return "\n".join(
            f"{start}{line[-1]}".rstrip() for start, line in zip(starts, lines, strict=True)
        )

    wrapper = textwrap.TextWrapper(columns, break_on_hyphens=False, break_long_words=False)
    wrapper.subsequent_indent = " " * (left if columns - left >= _NARROW else 4)
    wrapped: list[str] = []
    for start, line in zip(starts, lines, strict=True):
        wrapper.initial_indent = start
        wrapped.append((wrapper.fill(line[-1]) or start).rstrip())
    return "\n".join(wrapped)


def size(count: int | None) -> str:
    """Format a number of bytes in powers of 1000, as link rates are; '?' for None."""
    if count is None:
        return "?"
    if count < 10_000:
        return f"{count} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 1000 * scale or unit == "GB":
            return f"{count / scale:.4g} {unit}"
    raise AssertionError(count)


def shorten(text: str, width: int = 60) -> str:
    """Shorten a text to `width` characters, with "..." in its middle."""
    if len(text) <= width:
        return text
    return f"{text[: width // 2 - 1]}...{text[len(text) - width // 2 + 2 :]}"
