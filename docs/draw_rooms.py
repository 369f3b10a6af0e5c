"""Draw the rooms of the project and who imports whom: docs/rooms.svg, made from the imports.

    python docs/draw_rooms.py            # write the drawing
    python docs/draw_rooms.py --check    # exit 1 when it no longer shows the imports

The floors come from the first contract in pyproject.toml that import-linter checks, so the drawing
cannot show an order that the code does not keep. Arrows that follow from others are left out: if
commands import passes and passes import the IR, no arrow leads from commands to the IR.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DRAWING = ROOT / "docs" / "rooms.svg"

WHAT = {
    "cli": "finds the command, one line for a mistake",
    "adapters": "plugins for hosts",
    "commands": "one module a command, the only room that knows options",
    "measure": "profiles, benchmarks",
    "compilation": "model file to bundle, verify, pack, delta",
    "export": "engines that exist",
    "reporting": "one page, what cuts cost",
    "plugins": "what is installed",
    "passes": "analyses, planning, passes",
    "dialects": "ONNX and TFLite to IR and back",
    "engines": "whole models",
    "codec_training": "tables, ranges, agreement",
    "planner": "exact solvers over the cost table",
    "profiles": "devices and links as data",
    "ir": "the graph and its text",
    "runtime": "frames, bundles, sessions, serving",
    "base": "errors, types, digests, files",
}
BOX_HEIGHT, FLOOR_HEIGHT, WIDTH, MARGIN, GAP = 44, 84, 1000, 20, 24


def floors() -> list[list[str]]:
    """Names of the rooms, floor by floor, the highest first."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = configuration["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [
        [name.strip().removeprefix("irsplit.") for name in layer.split("|")] for layer in layers
    ]
    return [
        [name for name in floor if not name.startswith("__")]
        for floor in names
        if floor != ["__main__"]
    ]


def room_files(room: str) -> Iterator[Path]:
    """The Python files of a room: a folder, or a module at the top of the package."""
    module = ROOT / "irsplit" / f"{room}.py"
    if module.is_file():
        yield module
        return
    folder = ROOT / room if (ROOT / room).is_dir() else ROOT / "irsplit" / room
    yield from sorted(folder.rglob("*.py"))


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "irsplit":
            modules = [f"irsplit.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]

        for module in modules:
            package, _, rest = module.partition(".")
            if package == "irsplit" and rest:
                yield rest.partition(".")[0]


def imports(rooms: list[str]) -> dict[str, set[str]]:
    """For every room, the other rooms that it imports."""
    found: dict[str, set[str]] = {}
    for room in rooms:
        targets = {target for path in room_files(room) for target in imported_rooms(path)}
        found[room] = targets.intersection(rooms) - {room}
    return found


def reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    """All rooms that `start` imports, directly or through others."""
    found: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting.extend(edges[room])
    return found


def without_shortcuts(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The edges that do not follow from a longer way over other rooms."""
    behind = {room: reachable(room, edges) for room in edges}
    reduced: dict[str, set[str]] = {}
    for room, targets in edges.items():
        over_others = set[str]().union(*(behind[target] for target in targets))
        reduced[room] = targets - over_others
    return reduced


def drawing() -> str:
    """The SVG text. It follows the colour scheme of the page that shows it."""
    layers = floors()
    rooms = [room for floor in layers for room in floor]
    edges = without_shortcuts(imports(rooms))

    boxes: dict[str, tuple[float, float, float]] = {}
    for level, floor in enumerate(layers):
        width = (WIDTH - 2 * MARGIN - GAP * (len(floor) - 1)) / len(floor)
        width = min(width, 420)
        left = (WIDTH - width * len(floor) - GAP * (len(floor) - 1)) / 2
        for place, room in enumerate(floor):
            boxes[room] = (left + place * (width + GAP), MARGIN + level * FLOOR_HEIGHT, width)

    height = 2 * MARGIN + FLOOR_HEIGHT * (len(layers) - 1) + BOX_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of irsplit and who imports whom" font-family="system-ui, '
        'sans-serif">',
        "<style>"
        ".box { fill: #eef2ff; stroke: #4f5bd5 } .name { fill: #1a1c3a; font-size: 15px; "
        "font-weight: 600 }"
        " .what { fill: #4a4d6b; font-size: 11px } .edge { stroke: #8a90b8; fill: none }"
        " @media (prefers-color-scheme: dark) { .box { fill: #23264a; stroke: #8f99ff } "
        ".name { fill: #f2f3ff }"
        " .what { fill: #c3c6e6 } }"
        "</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#8a90b8"/></marker></defs>',
    ]
    for room, targets in edges.items():
        parts.extend(
            arrow(boxes[room], boxes[target]) for target in sorted(targets, key=rooms.index)
        )
    for room, box in boxes.items():
        parts.append(labelled_box(room, *box))
    return "\n".join([*parts, "</svg>", ""])


def arrow(upper: tuple[float, float, float], lower: tuple[float, float, float]) -> str:
    """A curve from the bottom of one box to the top of another."""
    x1, y1 = upper[0] + upper[2] / 2, upper[1] + BOX_HEIGHT
    x2, y2 = lower[0] + lower[2] / 2, lower[1] - 2
    if y2 <= y1:  # the same floor
        y2 = lower[1] + BOX_HEIGHT
    bend = (y2 - y1) / 2
    path = (
        f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    )
    return f'<path class="edge" d="{path}" marker-end="url(#tip)"/>'


def labelled_box(room: str, left: float, top: float, width: float) -> str:
    middle = left + width / 2
    return (
        f'<rect class="box" x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" '
        f'height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="name" x="{middle:.0f}" y="{top + 19:.0f}" text-anchor="middle">{room}</text>'
        f'<text class="what" x="{middle:.0f}" y="{top + 35:.0f}" '
        f'text-anchor="middle">{WHAT[room]}</text>'
    )


def main() -> int:
    text = drawing()
    if "--check" in sys.argv[1:]:
        if DRAWING.read_text(encoding="utf-8") == text:
            return 0
        print(
            f"{DRAWING}: no longer shows the imports; run 'python docs/draw_rooms.py'",
            file=sys.stderr,
        )
        return 1
    DRAWING.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
