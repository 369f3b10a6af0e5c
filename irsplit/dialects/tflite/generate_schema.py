"""Write schema.py from LiteRT's generated classes: `python -m irsplit.dialects.tflite.generate_schema`.

The facts of the format (which table has which fields, in which slot, of which kind, with which default) are read off
the accessors that the flatbuffers compiler wrote. Run it again when LiteRT ships a newer schema.
"""

import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

TARGET = Path(__file__).with_name("schema.py")
ENUMS = ("TensorType", "BuiltinOperator")
HEADER = '''"""The TFLite schema as a table; written by generate_schema.py, not by hand.

`TABLES` gives the fields of every table in slot order, as `name:kind` or `name:kind=default`; `-` is a slot without a
field. A kind is a scalar (`i32`), `str`, the name of a table or of a union, or one of these in brackets: a vector.
`UNIONS` and `ENUMS` give the names of their members by number, `-` where there is none.
"""

'''

_SCALARS = {
    "Bool": "bool", "Int8": "i8", "Uint8": "u8", "Int16": "i16", "Uint16": "u16", "Int32": "i32", "Uint32": "u32",
    "Int64": "i64", "Uint64": "u64", "Float32": "f32", "Float64": "f64",
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
    TARGET.write_text(render(_source()), encoding="utf-8")


def render(source: str) -> str:
    """The text of schema.py for the text of LiteRT's generated module."""
    classes = dict(_classes(source))
    unions = {name for body in classes.values() for _, name in _UNION.findall(body)}
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
    found = importlib.util.find_spec("ai_edge_litert.schema_py_generated")
    if found is None or found.origin is None:
        sys.exit("error: LiteRT is not installed; pip install ai-edge-litert")
    return Path(found.origin).read_text(encoding="utf-8")


def _classes(source: str) -> Iterator[tuple[str, str]]:
    starts = list(_CLASS.finditer(source))
    ends = [match.start() for match in starts[1:]] + [len(source)]
    for match, end in zip(starts, ends, strict=True):
        yield match[1], source[match.end() : end]


def _fields(table: str, classes: dict[str, str]) -> list[str]:
    unions = {name.lower(): union for name, union in _UNION.findall(classes[f"{table}T"])}
    slots = {slot: field for (name, slot), field in _DEPRECATED.items() if name == table}
    for name, indexed, body in _METHOD.findall(classes[table]):
        slot = re.search(r"_tab\.Offset\((\d+)\)", body)
        if slot is None or not ("_tab.Get(" in body or "_tab.String(" in body or "obj = " in body):
            continue
        kind = unions[name.lower()] if "_tab.Union(" in body else _kind(body)
        default = re.findall(r"^        return (.+)$", body, re.MULTILINE)[-1]
        plain = indexed or default in ("0", "0.0", "False", "None")
        text = f"{_snake(name)}:{f'[{kind}]' if indexed else kind}" + (
            "" if plain else f"={default}"
        )
        slots[int(slot[1]) // 2 - 2] = text
    return [slots.get(index, "-") for index in range(max(slots, default=-1) + 1)]


def _kind(body: str) -> str:
    scalar = re.search(r"_tab\.Get\(flatbuffers\.number_types\.(\w+)Flags", body)
    if scalar is not None:
        return _SCALARS[scalar[1]]
    target = re.search(r"obj = (\w+)\(\)", body)
    return "str" if target is None else target[1]


def _members(body: str) -> list[str]:
    numbers = {int(number): name for name, number in _MEMBER.findall(body)}
    return [numbers.get(index, "-") for index in range(max(numbers) + 1)]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _assign(name: str, entries: dict[str, list[str]]) -> str:
    lines = [f"{name}: dict[str, str] = {{"]
    for key, words in entries.items():
        lines.extend(_entry(key, words))
    return "\n".join([*lines, "}\n"])


def _entry(key: str, words: Iterable[str]) -> Iterator[str]:
    text = " ".join(words)
    if len(text) + len(key) < 106:
        yield f'    "{key}": "{text}",'
        return
    pieces = textwrap.wrap(text, 105, break_long_words=False, break_on_hyphens=False)
    yield f'    "{key}": ('
    yield from (f'        "{piece} "' for piece in pieces[:-1])
    yield f'        "{pieces[-1]}"'
    yield "    ),"


if __name__ == "__main__":
    main()
