"""Text tables of the benchmark scripts: the same rows give the same bytes."""

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text and as Markdown."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [_line(head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        + " |"
    )


def fixed(value: int, unit: int, digits: int) -> str:
    """value / unit with a fixed number of digits, rounded half up in integers."""
    scaled = (value * 10**digits * 2 + unit) // (2 * unit)
    whole, part = divmod(scaled, 10**digits)
    return f"{whole}.{part:0{digits}d}" if digits else str(whole)


def verdict(published: int, ours: int, tolerance_percent: int = 5) -> str:
    """`match` when ours is within the tolerance of the published figure, both in the same unit."""
    return "match" if abs(ours - published) * 100 <= tolerance_percent * published else "differs"
