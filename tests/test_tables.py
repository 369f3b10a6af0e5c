"""Tables of the commands: a line a row in files and pipes, wrapped where a person reads them."""

import io
import sys

import pytest

from irsplit.commands.output import table

HEAD = ("id", "energy", "why")
ROWS = (("1", "?", "one two three four five six seven"), ("2", "?", ""))


def test_a_row_is_a_line_and_a_column_of_unknowns_is_left_out() -> None:
    assert table(HEAD, ROWS) == "id  why\n1   one two three four five six seven\n2"
    assert table(HEAD, ()) == "id  energy  why"
    assert "energy" in table(HEAD, [*ROWS, ("3", "2 J", "")])


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (80, ["1   one two three four five six seven"]),
        (30, ["1   one two three four five", "    six seven"]),
        (14, ["1   one two", "    three four", "    five six", "    seven"]),
        (8, ["1   one two three four five six seven"]),
    ],
)
def test_a_terminal_wraps_the_last_column(
    monkeypatch: pytest.MonkeyPatch, columns: int, lines: list[str]
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert table(HEAD, ROWS).splitlines() == ["id  why", *lines, "2"]
