"""The rooms and words of the project: each class has one home, each term one meaning."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks import house

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in house.PRODUCT for path in house.python_files(ROOT / folder)]

RETIRED = {
    "Crossing": "LiveValues",
    "Stretch": "Stage or SegmentRun",
    "Stretches": "Stages",
    "Coded": "TransferOption",
    "Exchanger": "RetryingClient",
    "Patience": "RetryPolicy",
    "Scout": "LinkProber",
    "Bodies": "MemoryBudget",
    "Access": "Credentials",
    "ForeignCodec": "PluginCodec",
    "GrpcDoor": "GrpcFrontend",
    "HttpDoor": "HttpFrontend",
    "fed": "required_inputs",
    "offers": "entry_points",
}
"""Names that gave way to the field's words, and what to say instead."""


def identifiers(path: Path) -> set[str]:
    """Every name that a file defines or uses, words of texts and comments left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, (ast.ClassDef, *house.FUNCTIONS, ast.alias)):
            names.add(node.name)
    return names


def test_a_public_class_is_defined_once():
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(ROOT)))

    assert len(homes) > 150
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def test_retired_names_stay_retired():
    used = {
        f"{path.relative_to(ROOT)}: {name}, say {RETIRED[name]}"
        for path in SOURCES
        for name in identifiers(path) & set(RETIRED)
    }
    assert not used


def glossary_terms() -> list[str]:
    """The terms that docs/glossary.md defines, the words of a list each on its own."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    return [
        term.strip().lower()
        for group in re.findall(r"^\*\*([^*]+)\.\*\*", text, flags=re.MULTILINE)
        for term in group.split(",")
    ]


@pytest.mark.parametrize("term", glossary_terms())
def test_a_term_of_the_glossary_is_used(term: str):
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "glossary.md"]
    texts = (path.read_text(encoding="utf-8").lower() for path in [*SOURCES, *pages])
    assert any(term in text or f"{term}s" in text for text in texts)


def test_the_drawing_shows_the_imports():
    command = [sys.executable, "docs/draw_rooms.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_room_has_a_contract():
    drawn = {room for floor in _floors() for room in floor}
    rooms = {path.name for path in (ROOT / "irsplit").iterdir() if (path / "__init__.py").is_file()}
    rooms |= {
        path.stem for path in (ROOT / "irsplit").glob("*.py") if not path.stem.startswith("__")
    }
    assert rooms == drawn


def _floors() -> list[list[str]]:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import draw_rooms  # noqa: PLC0415
    finally:
        sys.path.remove(str(ROOT / "docs"))
    return draw_rooms.floors()


def test_functions_have_room_to_breathe():
    """The measures of `benchmarks/house.py`, held where the rebuild left them."""
    measures = house.measure("irsplit", SOURCES)
    decisions = 100 * measures.decisions / measures.function_lines
    assert decisions < LIMITS["decisions"]
    assert measures.long_lines == 0
    assert measures.longest_file <= 500


LIMITS = {"decisions": 30}


def test_the_measures_count_what_they_say(tmp_path: Path):
    path = tmp_path / "sample.py"
    path.write_text(
        "def f(xs):\n"
        "    # why\n"
        "    if xs and len(xs) > 1:\n"
        "        return [x for x in xs if x]\n"
        "\n"
        "    return 1 if xs else [[y for y in x] for x in xs]\n"
    )
    measures = house.measure("sample", [path])
    # f, if, and, comprehension (for, if), conditional, two nested comprehensions
    assert measures.decisions == 1 + 1 + 1 + 2 + 1 + 2
    assert measures.comprehensions == 3
    assert measures.nested_comprehensions == 1
    assert (measures.blank_lines, measures.comment_lines, measures.function_lines) == (1, 1, 6)


def test_every_package_is_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = set(project["tool"]["setuptools"]["packages"])

    found: set[str] = set()
    for path in SOURCES:
        if path.name == "__init__.py":
            parts = path.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "irsplit" else ("irsplit", *parts)))
    assert shipped == found
