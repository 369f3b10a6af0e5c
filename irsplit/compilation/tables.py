"""Rows of a table as HTML, for notebooks."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_ROWS = 100


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a column for every key of the first row; of many rows, the first."""
    if not rows:
        return "<p>no rows</p>"
    lines = [
        _html_row(rows[0], "th"),
        *(_html_row(row.values(), "td") for row in rows[:_MOST_ROWS]),
    ]
    note = f"<p>{len(rows) - _MOST_ROWS} more rows</p>" if len(rows) > _MOST_ROWS else ""
    return f"<table>{''.join(lines)}</table>{note}"


def _html_row(cells: Any, tag: str) -> str:
    texts = ["" if cell is None else html.escape(str(cell)) for cell in cells]
    return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"
