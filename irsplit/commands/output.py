"""What commands print: aligned tables, sizes for people, JSON for machines."""

import json
from collections.abc import Sequence
from typing import Any


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=1, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the left, two spaces apart; the last one is not padded."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def size(count: int | None) -> str:
    """Bytes for people, in powers of 1000 as link rates are; '?' when they are not known."""
    if count is None:
        return "?"
    if count < 10_000:
        return f"{count} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 1000 * scale or unit == "GB":
            return f"{count / scale:.4g} {unit}"
    raise AssertionError(count)


def shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"{text[: width // 2 - 1]}...{text[len(text) - width // 2 + 2 :]}"
