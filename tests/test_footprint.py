"""The stack and code that docs/footprint.md states, and the call graph that they come from."""

import pytest

from benchmarks.footprint import (
    CODINGS,
    CORTEX_M4,
    PAGE,
    USES,
    buffers,
    call_graph,
    deepest,
    footprints,
)
from tools import needs

GRAPH = """
node: { title: "top" label: "top\\na.c:1:1\\n16 bytes (static)" }
node: { title: "left" label: "left\\na.c:2:1\\n100 bytes (static)" }
node: { title: "right" label: "right\\na.c:3:1\\n40 bytes (static)" }
node: { title: "memcpy" label: "memcpy\\n<built-in>" shape : ellipse }
edge: { sourcename: "top" targetname: "left" label: "a.c:4:1" }
edge: { sourcename: "top" targetname: "right" label: "a.c:5:1" }
edge: { sourcename: "right" targetname: "left" label: "a.c:6:1" }
edge: { sourcename: "left" targetname: "memcpy" }
"""


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line[:1] == "|"
    ]


def test_the_deepest_path() -> None:
    frames, calls = call_graph(GRAPH)
    assert deepest("top", frames, calls) == 16 + 40 + 100
    assert deepest("left", frames, calls) == 100


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'edge: { sourcename: "left" targetname: "top" label: "a.c:7:1" }',
            "recursion: top > (right > )?left > top",
        ),
        (
            'node: { title: "array" label: "array\\na.c:8:1\\n8 bytes (dynamic)" }',
            "array has a frame of variable size",
        ),
        (
            'edge: { sourcename: "left" targetname: "__indirect_call" label: "a.c:9:1" }',
            "through a pointer at a.c:9:1",
        ),
    ],
)
def test_what_has_no_bound(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        deepest("top", *call_graph(f"{GRAPH}{line}\n"))


def test_the_page_states_what_is_measured() -> None:
    documented = rows(PAGE.read_text(encoding="utf-8"))
    assert all(row in documented for row in buffers(CODINGS[:1]))
    needs(CORTEX_M4.compiler)
    stated = {tuple(row[:2]): row[2:] for row in documented if row[0] == CORTEX_M4.name}
    for name, what, *sizes in footprints(CORTEX_M4, USES[-1:]):
        for found, said in zip(sizes, stated[name, what], strict=True):
            # Another release of the compiler may differ by a little.
            assert found == said or int(found.split()[0]) <= 1.1 * int(said.split()[0]), (
                what,
                found,
                said,
            )
