"""Writes a flatbuffer front to back: tables copied from a file, edited on the way, with big payloads at the end.

A copied table keeps its bytes, its vtable and its position modulo eight; only its offsets are new. So whatever the
schema does not model rides along, and no field passes through Python objects. Offsets of a flatbuffer point forward:
a table is laid out first and what it refers to after it.
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

# The widest scalar of the schema: a table at the same place modulo this has all its scalars aligned as before.
PHASE = 8
# What the schema demands of buffers (`force_align: 16`) and the Python builder of flatbuffers ignores.
PAYLOAD_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of another file, placed after all tables: as the vector a field refers to, or at a field's file offset."""

    span: Constant


@dataclass(slots=True)
class Edit:
    """A table to write: `source` with some `fields` replaced (None: removed), or a new one without a source."""

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
"""An integer or float for a scalar, text, the elements of a vector, a table; bytes for a vector of bytes."""


def edit(source: Table, **fields: FieldValue) -> Edit:
    return Edit(source.layout, source, fields)


def new(table: str, **fields: FieldValue) -> Edit:
    return Edit(layout(table), None, fields)


@dataclass(frozen=True, slots=True)
class Placed:
    """A payload at its offset in the file; `counted` when its length goes before it, as four bytes."""

    offset: int
    span: Constant
    counted: bool


class Builder:
    """A flatbuffer in the making: `out` holds its tables, `placed` what comes after them, in order of offset."""

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
        return (
            self.placed[-1].offset + self.placed[-1].span.length if self.placed else len(self.out)
        )

    def _table(self, item: Table | Edit) -> int:
        return self._copy(item) if isinstance(item, Table) else self._write(item)

    def _copy(self, table: Table) -> int:
        source, shape, position = table.source, table.shape, table.position
        start = self._inline(shape.vtable, source.data[position : position + shape.size], position)
        for offset, spec in shape.references:
            self._point(
                start,
                offset,
                spec,
                self._copy_reference(table, spec, source.follow(position + offset)),
            )
        return start

    def _copy_reference(self, table: Table, spec: TableField, position: int) -> int | None:
        """Copy what the field `spec` of `table` refers to, which is at `position`; None for a union without a type."""
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
        """Append an edited table: the bytes of its source, new fields behind them."""
        source = item.source
        body, offsets, phase = bytearray(OFFSET_SIZE), [0] * len(item.layout.slots), 0
        if source is not None:
            body = bytearray(
                source.source.data[source.position : source.position + source.shape.size]
            )
            offsets, phase = list(source.shape.offsets), source.position
        for name, value in item.fields.items():
            _set_inline(body, offsets, phase, item.layout.fields[name], value)
        while offsets and not offsets[-1]:
            offsets.pop()
        length = VTABLE_HEADER + 2 * len(offsets)
        start = self._inline(
            pack(f"<{2 + len(offsets)}H", length, len(body), *offsets), body, phase
        )
        for spec, offset in zip(item.layout.slots, offsets, strict=False):
            if spec is None or not offset:
                continue
            position = start + offset
            value = item.fields.get(spec.name)
            if isinstance(value, Payload):
                self._deferred.append((position, spec, value))
            elif spec.kind == "scalar":
                continue
            elif value is not None:
                self._refer(position, self._reference(spec, value))
            elif source is not None:
                child = source.source.follow(source.position + offset)
                self._point(start, offset, spec, self._copy_reference(source, spec, child))
        return start

    def _reference(self, spec: TableField, value: FieldValue) -> int:
        """Append the new value of a field that refers."""
        if isinstance(value, Table | Edit):
            return self._table(value)
        if isinstance(value, str):
            return self._text(value.encode())
        assert isinstance(value, Sequence), f"{spec.name} cannot be {value!r}"
        if spec.kind == "tables":
            return self._offsets(value, self._table)
        return self._vector(
            pack(f"<{len(value)}{spec.code.format[-1]}", *value), len(value), spec.code.size
        )

    def _inline(self, vtable: bytes, body: bytes | bytearray | memoryview, phase: int) -> int:
        """Append the fields of a table at a place congruent to `phase`."""
        at, out = self._vtable(vtable), self.out
        out += bytes((phase - len(out)) % PHASE)
        start = len(out)
        out += body
        SOFFSET.pack_into(out, start, start - at)
        return start

    def _vtable(self, vtable: bytes) -> int:
        """The position of a vtable, which is written once."""
        at = self._vtables.get(vtable)
        if at is None:
            self.out += bytes(len(self.out) % 2)
            at = self._vtables[vtable] = len(self.out)
            self.out += vtable
        return at

    def _point(self, start: int, offset: int, spec: TableField, child: int | None) -> None:
        """Make the field at `offset` of the table at `start` refer to `child`; without one the field is absent."""
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
        start = self._vector(bytes(len(items) * OFFSET_SIZE), len(items), OFFSET_SIZE)
        for position, item in enumerate(items, start=1):
            self._refer(start + OFFSET_SIZE * position, write(item))
        return start

    def _refer(self, position: int, to: int) -> None:
        UOFFSET.pack_into(self.out, position, to - position)

    def _place_payloads(self) -> None:
        """Give every payload its place: vectors first, because their offsets reach 2 GB only; equal spans share one."""
        end = len(self.out)
        places: dict[tuple[bool, int, int, int], int] = {}
        for position, spec, payload in sorted(
            self._deferred, key=lambda entry: entry[1].kind == "scalar"
        ):
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
    """Set a field in the bytes of a table at `phase`: a scalar by value, anything else by making room for an offset."""
    plain = spec.kind == "scalar" and isinstance(value, int | float)
    if value is None:
        offsets[spec.slot] = 0
        return
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
