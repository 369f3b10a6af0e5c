"""Writes a flatbuffer front to back: tables copied from a file and edited, big payloads at the end.

A copied table keeps its bytes, its vtable and its position modulo eight; only its offsets are new.
So whatever the schema does not model is kept, and no field passes through Python objects. Offsets
of a flatbuffer point forward: a table is laid out first, and what it refers to behind it.

New tables are written by the same code as edited ones, as edits of nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import Any

from irsplit.dialects.tflite.flatbuffer import (
    OFFSET_SIZE,
    SCALARS,
    SOFFSET,
    UOFFSET,
    VOFFSET,
    VTABLE_HEADER,
    Layout,
    Table,
    TableField,
    elements,
    layout,
    target,
)
from irsplit.ir import Constant

PHASE = 8
"""The widest scalar of the schema. A table that is copied to the same place modulo this has all its
scalars aligned as before."""
PAYLOAD_ALIGNMENT = 16
"""What the schema demands of buffers (`force_align: 16`)."""


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of another file that are placed behind all tables.

    As the value of a vector, they become the vector; as that of a scalar, the scalar becomes their
    offset in the file.
    """

    span: Constant


@dataclass(slots=True)
class Edit:
    """A table to write.

    Attributes:
        layout: Which table of the schema it is.
        source: The table to start from; None for a new one.
        fields: New values of fields by name; None removes the field.
    """

    layout: Layout
    source: Table | None
    fields: "dict[str, FieldValue]" = field(default_factory=dict[str, "FieldValue"])


FieldValue = (
    int
    | float
    | str
    | bytes
    | Payload
    | Table
    | Edit
    | Sequence[int]
    | Sequence[float]
    | Sequence[Table | Edit]
    | None
)
"""A number for a scalar, text, a table, or the elements of a vector (bytes for one of bytes)."""


def edit(source: Table, **fields: FieldValue) -> Edit:
    """A table of the file with other values of some fields."""
    return Edit(source.layout, source, fields)


def new(table: str, **fields: FieldValue) -> Edit:
    """A new table, by its name in the schema."""
    return Edit(layout(table), None, fields)


@dataclass(frozen=True, slots=True)
class Placed:
    """A payload at its offset in the file; `counted` if four bytes before it give its length."""

    offset: int
    span: Constant
    counted: bool


class Builder:
    """Lays out a flatbuffer.

    Args:
        root: The root table.
        identifier: Four bytes that tell the kind of the file.

    Attributes:
        out: The tables, which are the beginning of the file.
        placed: The payloads behind them, in order of offset.
    """

    def __init__(self, root: Table | Edit, identifier: bytes) -> None:
        self.out = bytearray(pack("<I4s", 0, identifier))
        self.placed: list[Placed] = []
        self._vtables: dict[bytes, int] = {}
        self._deferred: list[tuple[int, TableField, Payload]] = []
        self._refer(0, self._table(root))
        self._place_payloads()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        if not self.placed:
            return len(self.out)
        last = self.placed[-1]
        return last.offset + last.span.length

    # -- tables: each method appends something and returns its position -----------------------

    def _table(self, item: Table | Edit) -> int:
        return self._copy(item) if isinstance(item, Table) else self._write(item)

    def _copy(self, table: Table) -> int:
        """Append a table of the file and everything that it refers to."""
        source, shape, position = table.source, table.shape, table.position
        start = self._inline(shape.vtable, source.data[position : position + shape.size], position)
        for offset, spec in shape.references:
            child = self._copy_reference(table, spec, source.follow(position + offset))
            self._point(start, offset, spec, child)
        return start

    def _copy_reference(self, table: Table, spec: TableField, position: int) -> int | None:
        """Append a copy of what a field refers to.

        Args:
            table: The table that has the field.
            spec: The field.
            position: Where in the source it refers to.

        Returns:
            The position of the copy; None for a union without a member.
        """
        source = table.source
        if spec.kind == "numbers":
            width = spec.code.size
            start, count = source.vector(position, width)
            source.visit(position, count * width)
            return self._vector(source.data[start : start + count * width], count, width)
        if spec.kind == "text":
            return self._copy_text(table, position)
        if spec.kind in ("table", "union"):
            inner = target(table, spec)
            return None if inner is None else self._copy(Table(source, inner, position))

        places = list(elements(source, position))
        if spec.kind == "texts":
            return self._offsets(places, lambda place: self._copy_text(table, place))
        inner = layout(spec.target)
        return self._offsets(places, lambda place: self._copy(Table(source, inner, place)))

    def _copy_text(self, table: Table, position: int) -> int:
        start, count = table.source.vector(position, 1)
        table.source.visit(position, count)
        return self._text(table.source.data[start : start + count])

    def _write(self, item: Edit) -> int:
        """Append an edited table: the bytes of its source with new fields behind them."""
        source = item.source
        body, offsets, phase = bytearray(OFFSET_SIZE), [0] * len(item.layout.slots), 0
        if source is not None:
            end = source.position + source.shape.size
            body = bytearray(source.source.data[source.position : end])
            offsets, phase = list(source.shape.offsets), source.position

        for name, value in item.fields.items():
            _set_inline(body, offsets, phase, item.layout.fields[name], value)

        # A vtable ends with the last field that is present.
        while offsets and not offsets[-1]:
            offsets.pop()
        length = VTABLE_HEADER + 2 * len(offsets)
        vtable = pack(f"<{2 + len(offsets)}H", length, len(body), *offsets)
        start = self._inline(vtable, body, phase)

        for spec, offset in zip(item.layout.slots, offsets, strict=False):
            if spec is not None and offset:
                self._write_reference(item, start, offset, spec)
        return start

    def _write_reference(self, item: Edit, start: int, offset: int, spec: TableField) -> None:
        """Append what a field of the edited table at `start` refers to: its new value or a copy."""
        source, value = item.source, item.fields.get(spec.name)
        if isinstance(value, Payload):
            self._deferred.append((start + offset, spec, value))
        elif spec.kind == "scalar":
            return
        elif value is not None:
            self._refer(start + offset, self._reference(spec, value))
        elif source is not None:
            position = source.source.follow(source.position + offset)
            self._point(start, offset, spec, self._copy_reference(source, spec, position))

    def _reference(self, spec: TableField, value: FieldValue) -> int:
        """Append the new value of a field that holds an offset."""
        if isinstance(value, Table | Edit):
            return self._table(value)
        if isinstance(value, str):
            return self._text(value.encode())

        assert isinstance(value, Sequence), f"{spec.name} cannot be {value!r}"
        if spec.kind == "tables":
            return self._offsets(value, self._table)
        data = pack(f"<{len(value)}{spec.code.format[-1]}", *value)
        return self._vector(data, len(value), spec.code.size)

    # -- bytes --------------------------------------------------------------------------------

    def _inline(self, vtable: bytes, body: bytes | bytearray | memoryview, phase: int) -> int:
        """Append the bytes of a table at a position congruent to `phase`."""
        at, out = self._vtable(vtable), self.out
        out += bytes((phase - len(out)) % PHASE)
        start = len(out)
        out += body
        SOFFSET.pack_into(out, start, start - at)
        return start

    def _vtable(self, vtable: bytes) -> int:
        """The position of a vtable, which is written once however many tables have it."""
        at = self._vtables.get(vtable)
        if at is None:
            self.out += bytes(len(self.out) % 2)
            at = self._vtables[vtable] = len(self.out)
            self.out += vtable
        return at

    def _point(self, start: int, offset: int, spec: TableField, child: int | None) -> None:
        """Make a field of the table at `start` refer to `child`; without one, remove the field."""
        if child is not None:
            self._refer(start + offset, child)
            return

        at = start - SOFFSET.unpack_from(self.out, start)[0]
        (length,) = VOFFSET.unpack_from(self.out, at)
        vtable = self.out[at : at + length]
        VOFFSET.pack_into(vtable, VTABLE_HEADER + 2 * spec.slot, 0)
        UOFFSET.pack_into(self.out, start + offset, 0)
        SOFFSET.pack_into(self.out, start, start - self._vtable(bytes(vtable)))

    def _text(self, data: bytes | memoryview) -> int:
        start = self._vector(data, len(data), 1)
        self.out.append(0)
        return start

    def _vector(self, data: bytes | memoryview, count: int, width: int) -> int:
        """Append a vector: its length, aligned, and its elements, aligned to their width."""
        out = self.out
        out += bytes(-(len(out) + OFFSET_SIZE) % max(width, OFFSET_SIZE))
        start = len(out)
        out += UOFFSET.pack(count)
        out += data
        return start

    def _offsets(self, items: Sequence[Any], write: Callable[[Any], int]) -> int:
        """Append a vector of offsets, and behind it the items, each by `write`."""
        start = self._vector(bytes(len(items) * OFFSET_SIZE), len(items), OFFSET_SIZE)
        for position, item in enumerate(items, start=1):
            self._refer(start + OFFSET_SIZE * position, write(item))
        return start

    def _refer(self, position: int, to: int) -> None:
        UOFFSET.pack_into(self.out, position, to - position)

    def _place_payloads(self) -> None:
        """Give every payload its place; equal spans share one.

        Vectors come first, because their offsets reach 2 GB only.
        """
        end = len(self.out)
        places: dict[tuple[bool, int, int, int], int] = {}
        deferred = sorted(self._deferred, key=lambda entry: entry[1].kind == "scalar")
        for position, spec, payload in deferred:
            span, counted = payload.span, spec.kind != "scalar"
            key = counted, id(span.buffer), span.offset, span.length
            if key not in places:
                header = OFFSET_SIZE if counted else 0
                places[key] = _aligned(end + header, PAYLOAD_ALIGNMENT)
                self.placed.append(Placed(places[key], span, counted))
                end = places[key] + span.length

            if counted:
                self._refer(position, places[key] - OFFSET_SIZE)
            else:
                SCALARS["u64"].pack_into(self.out, position, places[key])


def _set_inline(
    body: bytearray, offsets: list[int], phase: int, spec: TableField, value: FieldValue
) -> None:
    """Set a field in the bytes of a table: a scalar by its value, others by room for an offset.

    Args:
        body: The bytes of the table, which grow if the field was absent.
        offsets: The place of each slot in `body`; 0 if the field is absent.
        phase: The position of the table modulo `PHASE`.
        spec: The field.
        value: Its new value; None removes it.
    """
    if value is None:
        offsets[spec.slot] = 0
        return

    plain = spec.kind == "scalar" and isinstance(value, int | float)
    if not offsets[spec.slot]:
        if plain and value == spec.default:
            return
        body += bytes(-(phase + len(body)) % spec.width)
        offsets[spec.slot] = len(body)
        body += bytes(spec.width)
    if plain:
        spec.code.pack_into(body, offsets[spec.slot], value)


def _aligned(position: int, alignment: int) -> int:
    return position + -position % alignment
