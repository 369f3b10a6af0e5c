"""Measure how the code reads: how dense functions are, how often they pause, how long lines get.

    python benchmarks/house.py [FOLDER...]

Prints one row per tree. Without folders: irsplit's own product code. Give the packages of another
project to compare, for example the folder of xDSL, onnx/ir-py, httpx or starlette in an environment
where they are installed.

* decisions per 100 function lines: one a function, and one for each if, for, while, except, case,
  conditional expression, `and`, `or`, and for each `for` and `if` of a comprehension. That is the
  sum of McCabe's complexities.
* comprehensions per 100 function lines, and those inside of another comprehension.
* blank and comment lines, as a share of function lines.
* lines over 100 columns, as a share of all lines.
* docstrings with an Args section, of all docstrings; and the lines of the longest file.
"""

import argparse
import ast
import json
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("irsplit", "passes", "runtime")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (
    *FUNCTIONS,
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.match_case,
)
MAX_COLUMNS = 100


@dataclass
class Measures:
    """What was counted in one tree."""

    name: str
    files: int = 0
    lines: int = 0
    long_lines: int = 0
    function_lines: int = 0
    blank_lines: int = 0
    comment_lines: int = 0
    decisions: int = 0
    comprehensions: int = 0
    nested_comprehensions: int = 0
    docstrings: int = 0
    docstrings_with_args: int = 0
    longest_file: int = 0


def python_files(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, links left out."""
    for path in sorted(folder.rglob("*.py")):
        below = path.relative_to(folder)
        links = [folder / parent for parent in (below, *below.parents) if parent != Path()]
        if not any(link.is_symlink() for link in links):
            yield path


def measure(name: str, files: list[Path]) -> Measures:
    """Count everything in these files."""
    total = Measures(name)
    for path in files:
        add_file(total, path)
    return total


def add_file(total: Measures, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    total.files += 1
    total.lines += len(lines)
    total.long_lines += sum(len(line) > MAX_COLUMNS for line in lines)
    total.longest_file = max(total.longest_file, len(lines))

    tree = ast.parse(source)
    comments = comment_only_lines(path)
    inside_functions: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            inside_functions.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)):
            add_docstring(total, ast.get_docstring(node))

    total.function_lines += len(inside_functions)
    total.blank_lines += sum(not lines[number - 1].strip() for number in inside_functions)
    total.comment_lines += len(comments & inside_functions)
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) in inside_functions:
            total.decisions += decisions(node)
    add_comprehensions(total, tree, inside_functions)


def add_docstring(total: Measures, text: str | None) -> None:
    if text is None:
        return
    total.docstrings += 1
    total.docstrings_with_args += "Args:" in text


def comment_only_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold a comment and nothing else."""
    found: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
                found.add(token.start[0])
    return found


def decisions(node: ast.AST) -> int:
    """How many ways the control flow may turn at this node, beyond one."""
    if isinstance(node, BRANCHES):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, COMPREHENSIONS):
        return sum(1 + len(generator.ifs) for generator in node.generators)
    return 0


def add_comprehensions(total: Measures, tree: ast.AST, inside_functions: set[int]) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, COMPREHENSIONS) or node.lineno not in inside_functions:
            continue
        total.comprehensions += 1
        children = (child for child in ast.walk(node) if child is not node)
        nested = any(isinstance(child, COMPREHENSIONS) for child in children)
        total.nested_comprehensions += nested or len(node.generators) > 1


def row(measures: Measures) -> str:
    functions = 100 / max(measures.function_lines, 1)
    nested = f"({functions * measures.nested_comprehensions:.2f})"
    columns = (
        f"{measures.name:<24}",
        f"{functions * measures.decisions:10.1f}",
        f"{functions * measures.comprehensions:9.1f} {nested}",
        f"{functions * measures.blank_lines:9.1f} %",
        f"{functions * measures.comment_lines:9.1f} %",
        f"{100 * measures.long_lines / max(measures.lines, 1):9.1f} %",
        f"{measures.docstrings_with_args:9}/{measures.docstrings}",
        f"{measures.longest_file:9}",
    )
    return "".join(columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="packages of other projects")
    parser.add_argument("--json", action="store_true", help="print the raw counts")
    arguments = parser.parse_args()

    if arguments.folders:
        trees = [measure(folder.name, list(python_files(folder))) for folder in arguments.folders]
    else:
        trees = [measure(name, list(python_files(ROOT / name))) for name in PRODUCT]
        everything = [path for name in PRODUCT for path in python_files(ROOT / name)]
        trees.append(measure("irsplit, all", everything))

    if arguments.json:
        print(json.dumps([asdict(tree) for tree in trees], indent=1))
        return
    print(
        f"{'tree':<24}{'decisions':>10}{'comprehensions':>16}{'blank':>9}  {'comment':>9}  "
        f"{'>100 col':>8}  {'Args/docstrings':>15}{'longest':>9}"
    )
    for tree in trees:
        print(row(tree))


if __name__ == "__main__":
    main()
