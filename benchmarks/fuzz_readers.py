"""Have every reader of what a stranger may send read damaged input, and count what becomes of it.

python -m benchmarks.fuzz_readers [-o docs/fuzzing.md]     5 000 mutants a reader, about ten minutes

The readers and their mutants are the targets of `tests/hostile`. Each runs in worker processes that
are bounded in time and memory. The same seed gives the same mutants. Exit code 1 when a mutant was
neither accepted nor refused.
"""

import argparse
import importlib
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

TESTS = Path(__file__).parent.parent / "tests"
SHOWN = 10
"""Escapes of one reader that are printed."""

_PAGE = """# What readers do with damaged input

Made by `python -m benchmarks.fuzz_readers -o docs/fuzzing.md` on {machine}, seed {seed}.

Each reader is given what its generator in `tests/hostile` makes of something valid: bits flipped,
bytes set, moved and cut off, fields of JSON replaced by values of other types and at the edges of
ranges, checksums left wrong or made right again as an attacker would. A reader may accept a mutant
or refuse it with an error of the project in one line. All else is an *escape*: another exception, a
warning, a dead process, an accepted mutant that gives another result where that can be told, more
than {seconds:g} s, or more address space than the reader is allowed. The tests run some mutants of
each reader (`tests/test_hostile_readers.py`). *peak* is what a worker had resident at most, the
libraries that it imports included.

{table}

{verdict}
"""


@dataclass(frozen=True)
class Row:
    """A line of the table, and the escapes that it counts."""

    cells: tuple[str, ...]
    tries: int
    escapes: int
    lines: tuple[str, ...]


def row(result: Any) -> Row:
    """What the runner found out about one target."""
    counts = (result.tries, result.refused, result.accepted, len(result.escapes))
    cells = (result.name, *map(str, counts), f"{result.peak / 1e6:.0f} MB")
    lines = [
        f"{result.name}, seed {result.seed}, mutant {e.index}: {e.what}\n  {e.shown}"
        for e in result.escapes
    ]
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    gave_up = [f"{result.name}: given up, too many workers died"] if result.gave_up else []
    return Row(cells, result.tries, len(result.escapes), (*lines[:SHOWN], *more, *gave_up))


def table(rows: Sequence[Row]) -> str:
    return markdown(
        ("reader", "tries", "refused", "accepted", "escapes", "peak"), [row.cells for row in rows]
    )


def page(rows: Sequence[Row], seed: int, seconds: float) -> str:
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    tries, escapes = sum(row.tries for row in rows), sum(row.escapes for row in rows)
    verdict = f"In all: {tries} mutants, {escapes} escapes."
    return _PAGE.format(
        machine=machine, seed=seed, seconds=seconds, table=table(rows), verdict=verdict
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="write the page here; default: print the table"
    )
    parser.add_argument("--count", type=int, default=5000, help="mutants a reader, default 5000")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="only readers whose name contains this"
    )
    arguments = parser.parse_args()
    # What the tests have in common is no package of the project: it is found as pytest finds it.
    sys.path.insert(0, str(TESTS))
    wanted: list[str] = arguments.only or [""]
    found = [
        target
        for target in importlib.import_module("hostile.target").targets()
        if any(text in target.name for text in wanted)
    ]
    if not found:
        print(f"no reader has {' or '.join(map(repr, wanted))} in its name", file=sys.stderr)
        return 2
    fuzz = importlib.import_module("hostile.runner").fuzz
    rows: list[Row] = []
    for target in found:
        rows.append(row(fuzz(target, arguments.seed, arguments.count)))
        print("  ".join(rows[-1].cells), *rows[-1].lines, sep="\n", file=sys.stderr, flush=True)
    if arguments.output is None:
        print(table(rows))
    else:
        seconds = max(target.seconds for target in found)
        arguments.output.write_text(page(rows, arguments.seed, seconds), encoding="utf-8")
    return 1 if any(row.lines for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
