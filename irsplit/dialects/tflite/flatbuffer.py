"""Tables of a flatbuffer, read in place by a schema; every offset is checked before it is followed.

A *layout* is what the schema says of a table. A *shape* is what one vtable of the file makes of a
layout. The tables of a file share few vtables, so the checks of a shape are made once, and reading
a field is a lookup and an unpack.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from struct import Struct, unpack_from
from typing import Literal, NoReturn

from irsplit.base.errors import ModelError, UnsupportedError
from irsplit.dialects.tflite.schema import TABLES, UNIONS

FieldKind = Literal["scalar", "text", "table", "union", "numbers", "texts", "tables"]
SCALARS: dict[str, Struct] = {
    "bool": Struct("<?"), "i8": Struct("<b"), "u8": Struct("<B"), "i16": Struct("<h"),
    "u16": Struct("<H"), "i32": Struct("<i"), "u32": Struct("<I"), "i64": Struct("<q"),
    "u64": Struct("<Q"), "f32": Struct("<f"), "f64": Struct("<d"),
}  # fmt: skip
UOFFSET, SOFFSET, VOFFSET = SCALARS["u32"], SCALARS["i32"], SCALARS["u16"]
"""Offsets: to what a field refers to, from a table back to its vtable, and inside vtables."""
OFFSET_SIZE = 4
VTABLE_HEADER = 4
VISITS_PER_BYTE = 4
"""The most reads of a walk per byte of the file. A sound file refers to each of its bytes about
once; a hostile one, whose tables refer to each other in fans, makes a walk read far more."""


@dataclass(frozen=True, slots=True)
class TableField:
    """A field of a table in the schema.

    Attributes:
        name: Its name in the schema.
        slot: Its place in the vtable.
        kind: What it holds. All kinds but "scalar" hold an offset.
        target: The name of the table or union that it refers to.
        code: How a scalar, or an element of a vector, is packed.
        default: The value of a scalar that is absent.
    """

    name: str
    slot: int
    kind: FieldKind
    target: str
    code: Struct
    default: int | float

    @property
    def width(self) -> int:
        """Bytes inside the table: the scalar itself, or the offset to what it refers to."""
        return self.code.size if self.kind == "scalar" else OFFSET_SIZE

    @property
    def element_width(self) -> int:
        """Bytes of one element of the vector."""
        return self.code.size if self.kind == "numbers" else OFFSET_SIZE


@dataclass(frozen=True, slots=True)
class Layout:
    """What the schema says of a table; `slots` has None for slots without a known field."""

    name: str
    slots: tuple[TableField | None, ...]
    fields: dict[str, TableField]


@dataclass(frozen=True, slots=True)
class TableShape:
    """One vtable of the file, read by one layout.

    Attributes:
        vtable: The bytes of the vtable.
        size: Bytes of a table, without what it refers to.
        offsets: Where each slot is in the table; 0 if the field is absent.
        references: The fields that hold offsets, each with its place in the table.
    """

    vtable: bytes
    size: int
    offsets: tuple[int, ...]
    references: tuple[tuple[int, TableField], ...]


@cache
def layout(name: str) -> Layout:
    """The layout of a table of the schema."""
    words = TABLES[name].split()
    slots = tuple(None if word == "-" else _field(slot, word) for slot, word in enumerate(words))
    return Layout(name, slots, {field.name: field for field in slots if field is not None})


def _field(slot: int, word: str) -> TableField:
    """A field in the words of the schema, such as `axis:i32=-1` or `tensors:[Tensor]`."""
    name, _, rest = word.partition(":")
    kind, _, text = rest.partition("=")
    target = kind.strip("[]")
    code = SCALARS.get(target, UOFFSET)
    value = 0 if not text else {"True": 1, "False": 0}.get(text) or float(text)
    default = value if target in ("f32", "f64") else int(value)
    field_kind = _kind_of(target, vector=kind.startswith("["))
    return TableField(name, slot, field_kind, target, code, default)


def _kind_of(target: str, *, vector: bool) -> FieldKind:
    if target in SCALARS:
        return "numbers" if vector else "scalar"
    if target == "str":
        return "texts" if vector else "text"
    if target in UNIONS:
        return "union"
    return "tables" if vector else "table"


class Flatbuffer:
    """The bytes of a file, and the shapes met in it so far.

    Args:
        data: The whole file.
        name: The file's name in error messages.

    All methods that take a position raise ModelError if what they read there does not lie in the
    file.
    """

    def __init__(self, data: memoryview, name: str) -> None:
        self.data = data
        self.name = name
        self.size = len(data)
        self._shapes: dict[tuple[str, int], TableShape] = {}
        self.start()

    def start(self) -> None:
        """Begin another walk over the file: `visit` counts from zero again."""
        self._visits_left = VISITS_PER_BYTE * self.size

    def root(self, table: str, identifier: bytes) -> "Table":
        """The root table. Raises ModelError if the file does not have the identifier."""
        if bytes(self.data[4:8]) != identifier:
            word = identifier.decode()
            raise ModelError(
                f"{self.name}: no TFLite model: bytes 4 to 7 are not '{word}'; give a .tflite file"
            )
        return Table(self, layout(table), self.follow(0))

    def fail(self, position: int, problem: str) -> NoReturn:
        """Raise ModelError for a damaged file."""
        raise ModelError(
            f"{self.name}: damaged at byte {position}: {problem}; copy or convert the model again"
        )

    def follow(self, position: int) -> int:
        """The position that the offset at `position` refers to."""
        target = position + self.unsigned(position)
        if target + OFFSET_SIZE > self.size:
            problem = f"it refers to byte {target}, beyond the end of the file ({self.size} bytes)"
            self.fail(position, problem)
        return target

    def unsigned(self, position: int) -> int:
        """The 32-bit number at `position`."""
        if position + OFFSET_SIZE > self.size:
            self.fail(position, f"the file ends after {self.size} bytes")
        return UOFFSET.unpack_from(self.data, position)[0]

    def vector(self, position: int, element_width: int) -> tuple[int, int]:
        """First byte and number of elements of the vector or string at `position`."""
        count = self.unsigned(position)
        start = position + OFFSET_SIZE
        if count * element_width > self.size - start:
            problem = f"a vector of {count} elements runs beyond the end of the file"
            self.fail(position, f"{problem} ({self.size} bytes)")
        return start, count

    def text(self, position: int) -> str:
        """The string at `position`; bytes that are no UTF-8 become escapes."""
        start, count = self.vector(position, 1)
        self.visit(position, count)
        return bytes(self.data[start : start + count]).decode("utf-8", "backslashreplace")

    def visit(self, position: int, count: int) -> None:
        """Count `count` bytes or elements that a walk reads. Raises ModelError above the limit."""
        self._visits_left -= count
        if self._visits_left < 0:
            self.fail(position, "its tables refer to each other more often than the file has bytes")

    def shape(self, layout: Layout, position: int) -> TableShape:
        """The shape of the table at `position`; the table and all its fields lie in the file."""
        if position + OFFSET_SIZE > self.size:
            self.fail(position, f"the file ends after {self.size} bytes")

        vtable = position - SOFFSET.unpack_from(self.data, position)[0]
        key = layout.name, vtable
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._read_shape(layout, vtable)
        if position + shape.size > self.size:
            problem = f"a {layout.name} table of {shape.size} bytes runs beyond the end of the file"
            self.fail(position, problem)
        return shape

    def _read_shape(self, layout: Layout, position: int) -> TableShape:
        """Read the vtable at `position`, and check that all its fields lie in the table."""
        length, size = self._vtable_sizes(layout, position)
        vtable = bytes(self.data[position : position + length])
        offsets: tuple[int, ...] = unpack_from(f"<{length // 2 - 2}H", vtable, VTABLE_HEADER)

        references: list[tuple[int, TableField]] = []
        for slot, offset in enumerate(offsets):
            if not offset:
                continue
            field = layout.slots[slot] if slot < len(layout.slots) else None
            if field is None:
                self._refuse_unknown(layout, slot, offset, offsets, size)
                continue
            if offset < OFFSET_SIZE or offset + field.width > size:
                problem = f"field '{field.name}' lies outside its {layout.name} table"
                self.fail(position, f"{problem} of {size} bytes")
            if field.kind != "scalar":
                references.append((offset, field))

        padded = offsets + (0,) * (len(layout.slots) - len(offsets))
        return TableShape(vtable, size, padded, tuple(references))

    def _vtable_sizes(self, layout: Layout, position: int) -> tuple[int, int]:
        """Bytes of the vtable at `position`, and of the tables that it describes."""
        what = f"the vtable of a {layout.name} table"
        if position < 0 or position + VTABLE_HEADER > self.size:
            self.fail(position, f"{what} lies outside the file ({self.size} bytes)")

        length, size = unpack_from("<HH", self.data, position)
        is_whole = VTABLE_HEADER <= length <= self.size - position and length % 2 == 0
        if not is_whole or size < OFFSET_SIZE:
            self.fail(position, f"{what} is malformed (length {length}, table size {size})")
        return length, size

    def _refuse_unknown(
        self, layout: Layout, slot: int, offset: int, offsets: tuple[int, ...], size: int
    ) -> None:
        """Raise UnsupportedError for an unknown field, unless it can only be a scalar.

        What an unknown field refers to would be lost in a copy of the table. Offsets have four
        bytes and are aligned, so a field with less room, or at an odd place, is a scalar.
        """
        end = min((other for other in (*offsets, size) if other > offset), default=size)
        if offset % OFFSET_SIZE == 0 and end - offset >= OFFSET_SIZE:
            raise UnsupportedError(
                f"{self.name}: slot {slot} of a {layout.name} table is newer than the TFLite "
                f"schema that irsplit knows ({len(layout.slots)} slots), and might refer to data "
                "that would be lost; update irsplit"
            )


class Table:
    """A table of the file, whose fields are read by their names in the schema.

    A scalar that is absent has its default, an absent text or table is None, and an absent vector
    is empty. Methods raise ModelError for a field that refers to what is not in the file.
    """

    __slots__ = ("layout", "position", "shape", "source")

    def __init__(self, source: Flatbuffer, layout: Layout, position: int) -> None:
        self.source = source
        self.layout = layout
        self.position = position
        self.shape = source.shape(layout, position)

    @property
    def end(self) -> int:
        """The first byte behind both the table and its vtable, without what it refers to."""
        vtable = self.position - SOFFSET.unpack_from(self.source.data, self.position)[0]
        return max(self.position + self.shape.size, vtable + len(self.shape.vtable))

    def has(self, name: str) -> bool:
        """Whether the file gives the field a value."""
        return self.shape.offsets[self.layout.fields[name].slot] != 0

    def integer(self, name: str) -> int:
        """The value of a scalar."""
        field = self.layout.fields[name]
        offset = self.shape.offsets[field.slot]
        if not offset:
            return int(field.default)
        return field.code.unpack_from(self.source.data, self.position + offset)[0]

    def text(self, name: str) -> str | None:
        """A text."""
        position = self.refers_to(name)
        return None if position is None else self.source.text(position)

    def numbers(self, name: str) -> tuple[int, ...]:
        """The elements of a vector of integers."""
        position = self.refers_to(name)
        if position is None:
            return ()
        code = self.layout.fields[name].code
        start, count = self.source.vector(position, code.size)
        self.source.visit(position, count)
        return unpack_from(f"<{count}{code.format[-1]}", self.source.data, start)

    def reals(self, name: str) -> tuple[float, ...]:
        """The elements of a vector of floats."""
        return self.numbers(name)

    def span(self, name: str) -> tuple[int, int] | None:
        """Position and length of a vector of bytes; None if it is absent."""
        position = self.refers_to(name)
        return None if position is None else self.source.vector(position, 1)

    def table(self, name: str) -> "Table | None":
        """The table that a field refers to; the type field of a union tells which kind it is."""
        position = self.refers_to(name)
        if position is None:
            return None
        inner = target(self, self.layout.fields[name])
        return None if inner is None else Table(self.source, inner, position)

    def tables(self, name: str) -> "list[Table]":
        """The elements of a vector of tables."""
        position = self.refers_to(name)
        if position is None:
            return []
        inner = layout(self.layout.fields[name].target)
        return [Table(self.source, inner, place) for place in elements(self.source, position)]

    def refers_to(self, name: str) -> int | None:
        """The position of what a field refers to; None if it is absent."""
        offset = self.shape.offsets[self.layout.fields[name].slot]
        return self.source.follow(self.position + offset) if offset else None


def elements(source: Flatbuffer, position: int) -> Iterator[int]:
    """The positions of the strings or tables of the vector at `position`."""
    start, count = source.vector(position, OFFSET_SIZE)
    source.visit(position, count)
    return map(source.follow, range(start, start + count * OFFSET_SIZE, OFFSET_SIZE))


def target(table: Table, field: TableField) -> Layout | None:
    """The layout of what a field of kind "table" or "union" refers to.

    Args:
        table: The table that has the field.
        field: The field.

    Returns:
        The layout, or None for a union without a member.

    Raises:
        UnsupportedError: The schema does not know the member of the union.
    """
    if field.kind != "union":
        return layout(field.target)

    selector = table.layout.slots[field.slot - 1]
    assert selector is not None, "a union follows its type field"
    member = table.integer(selector.name)
    members = union_members(field.target)
    if member >= len(members) or members[member] == "-":
        raise UnsupportedError(
            f"{table.source.name}: member {member} of {field.target} in a {table.layout.name} "
            f"table is newer than the TFLite schema that irsplit knows ({len(members)} members); "
            "update irsplit"
        )
    return layout(members[member]) if member else None


@cache
def union_members(name: str) -> tuple[str, ...]:
    """The names of the tables of a union by number; number 0 is none."""
    return tuple(UNIONS[name].split())
