"""Writes schema.py from the classes that the FlatBuffers compiler generated for LiteRT.

    python -m irsplit.dialects.tflite.generate_schema

The facts of the format (which table has which fields, in which slot, of which kind, with which
default) are read from the source text of the accessors. Run it again when LiteRT ships a newer
schema.
"""

import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

TARGET = Path(__file__).with_name("schema.py")
ENUMS = ("TensorType", "BuiltinOperator")
COLUMNS = 100
HEADER = '''"""The TFLite schema as a table; written by generate_schema.py, not by hand.

`TABLES` gives the fields of every table in slot order, as `name:kind` or `name:kind=default`; `-`
is a slot without a field. A kind is a scalar (`i32`), `str`, the name of a table or of a union, or
one of these in brackets: a vector. `UNIONS` and `ENUMS` give the names of their members by number,
`-` where there is none.
"""

'''

_SCALARS = {
    "Bool": "bool", "Int8": "i8", "Uint8": "u8", "Int16": "i16", "Uint16": "u16", "Int32": "i32",
    "Uint32": "u32", "Int64": "i64", "Uint64": "u64", "Float32": "f32", "Float64": "f64",
}  # fmt: skip
# Fields that the schema marks deprecated have no accessors, but old files hold them.
_DEPRECATED = {
    ("ResizeBilinearOptions", 0): "new_height:i32",
    ("ResizeBilinearOptions", 1): "new_width:i32",
    ("SignatureDef", 3): "tag:str",
}
_CLASS = re.compile(r"^class (\w+)\(object\):\n", re.MULTILINE)
_METHOD = re.compile(r"^    def (\w+)\(self(, j)?\):\n((?:^        .*\n|^\n)+)", re.MULTILINE)
_MEMBER = re.compile(r"^    (\w+) = (-?\d+)$", re.MULTILINE)
_UNION = re.compile(r"self\.(\w+) = (\w+)Creator\(")


def main() -> None:
    """Write schema.py beside this file."""
    TARGET.write_text(render(_source()), encoding="utf-8")


def render(source: str) -> str:
    """Make the text of schema.py.

    Args:
        source: The text of LiteRT's generated module.

    Returns:
        A Python module with the dictionaries TABLES, UNIONS and ENUMS.
    """
    classes = dict(_classes(source))
    unions: set[str] = set()
    for body in classes.values():
        unions.update(name for _, name in _UNION.findall(body))

    tables = {
        name: _fields(name, classes)
        for name in sorted(classes)
        if "__slots__ = ['_tab']" in classes[name]
    }
    members = {name: _members(classes[name]) for name in sorted({*unions, *ENUMS})}
    return HEADER + "\n\n".join(
        [
            _assign("TABLES", tables),
            _assign("UNIONS", {name: members[name] for name in sorted(unions)}),
            _assign("ENUMS", {name: members[name] for name in ENUMS}),
        ]
    )


def _source() -> str:
    spec = importlib.util.find_spec("ai_edge_litert.schema_py_generated")
    if spec is None or spec.origin is None:
        sys.exit("error: LiteRT is not installed; pip install ai-edge-litert")
    return Path(spec.origin).read_text(encoding="utf-8")


def _classes(source: str) -> Iterator[tuple[str, str]]:
    """Name and body of every class."""
    starts = list(_CLASS.finditer(source))
    ends = [match.start() for match in starts[1:]] + [len(source)]
    for match, end in zip(starts, ends, strict=True):
        yield match[1], source[match.end() : end]


def _fields(table: str, classes: dict[str, str]) -> list[str]:
    """The fields of a table in slot order, in the words of TABLES."""
    unions = {name.lower(): union for name, union in _UNION.findall(classes[f"{table}T"])}
    slots = {slot: field for (name, slot), field in _DEPRECATED.items() if name == table}

    for name, indexed, body in _METHOD.findall(classes[table]):
        vtable_offset = re.search(r"_tab\.Offset\((\d+)\)", body)
        reads = any(word in body for word in ("_tab.Get(", "_tab.String(", "obj = "))
        if vtable_offset is None or not reads:
            continue

        kind = unions[name.lower()] if "_tab.Union(" in body else _kind(body)
        default = re.findall(r"^        return (.+)$", body, re.MULTILINE)[-1]
        text = f"{_snake(name)}:[{kind}]" if indexed else f"{_snake(name)}:{kind}"
        if not indexed and default not in ("0", "0.0", "False", "None"):
            text += f"={default}"
        # A vtable begins with two sizes, and each slot has two bytes.
        slots[int(vtable_offset[1]) // 2 - 2] = text
    return [slots.get(index, "-") for index in range(max(slots, default=-1) + 1)]


def _kind(body: str) -> str:
    """The kind of a field, or of the elements of a vector, from its accessor."""
    scalar = re.search(r"_tab\.Get\(flatbuffers\.number_types\.(\w+)Flags", body)
    if scalar is not None:
        return _SCALARS[scalar[1]]
    table = re.search(r"obj = (\w+)\(\)", body)
    return "str" if table is None else table[1]


def _members(body: str) -> list[str]:
    """The members of a union or an enumeration by number."""
    numbers = {int(number): name for name, number in _MEMBER.findall(body)}
    return [numbers.get(index, "-") for index in range(max(numbers) + 1)]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _assign(name: str, entries: dict[str, list[str]]) -> str:
    """The text that assigns a dictionary."""
    lines = [f"{name}: dict[str, str] = {{"]
    for key, words in entries.items():
        lines.extend(_entry(key, words))
    return "\n".join([*lines, "}\n"])


def _entry(key: str, words: Iterable[str]) -> Iterator[str]:
    """The lines of one entry, as ruff would format them."""
    text = " ".join(words)
    line = f'    "{key}": "{text}",'
    if len(line) <= COLUMNS:
        yield line
        return

    # Eight spaces, two quotes, and the space that joins a piece to the next one.
    width = COLUMNS - 11
    pieces = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    yield f'    "{key}": ('
    yield from (f'        "{piece} "' for piece in pieces[:-1])
    yield f'        "{pieces[-1]}"'
    yield "    ),"


if __name__ == "__main__":
    main()
