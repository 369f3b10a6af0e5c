"""What follows a model in its file: associated files in a ZIP archive, or other appended bytes.

Nothing in a flatbuffer says where it ends, so the end is found by a walk over all of it. Offsets in
an archive count from the start of the file, and so change when the archive moves.
"""

from collections.abc import Iterable
from struct import Struct

from irsplit.dialects.tflite.flatbuffer import (
    Flatbuffer,
    Table,
    TableField,
    elements,
    layout,
    target,
)
from irsplit.ir import Buffer, Constant

END_SIGNATURE, ENTRY_SIGNATURE = b"PK\x05\x06", b"PK\x01\x02"
END = Struct("<4s6xHIIH")
"""The record at an archive's end: signature, 6 bytes of disks, number of entries, size and offset
of the directory, length of the comment."""
OFFSET_IN_END = 16
ENTRY = Struct("<4s24xHHH8xI")
"""An entry of the directory: signature, 24 bytes, lengths of name, extra field and comment,
8 bytes, offset of the local header."""
OFFSET_IN_ENTRY = 42


def find_trailer(root: Table, payloads: Iterable[Constant]) -> Constant | None:
    """The bytes behind a flatbuffer and its payloads.

    Args:
        root: The root table of the file.
        payloads: All spans of the file that buffers and options name.

    Returns:
        The bytes, or None if there are none but zeros.
    """
    data = root.source.data
    end = max([_end(root), *(payload.offset + payload.length for payload in payloads)])
    if not bytes(data[end:]).strip(b"\0"):
        return None
    return Constant(Buffer.in_memory(data), end, len(data) - end)


def relocated(trailer: Constant, start: int) -> bytes:
    """The bytes of a trailer for a file in which it begins elsewhere.

    Args:
        trailer: The trailer in the source file.
        start: Its first byte in the new file.

    Returns:
        The bytes, with the offsets of a ZIP archive moved.
    """
    data = bytearray(trailer.view())
    end = data.rfind(END_SIGNATURE)
    if end < 0 or end + END.size > len(data):
        return bytes(data)

    _, count, size, offset, _ = END.unpack_from(data, end)
    entries = _entries(data, end - size, end, count)
    # Some tools let the offsets count from the start of the archive; those stay.
    if not entries or trailer.offset + end - size != offset:
        return bytes(data)

    moved = start - trailer.offset
    for position, local in entries:
        place = position + OFFSET_IN_ENTRY
        data[place : position + ENTRY.size] = (local + moved).to_bytes(4, "little")
    place = end + OFFSET_IN_END
    data[place : place + 4] = (offset + moved).to_bytes(4, "little")
    return bytes(data)


def _entries(data: bytearray, position: int, end: int, count: int) -> list[tuple[int, int]]:
    """Position and local offset of each entry of a directory; none if the directory is damaged."""
    entries: list[tuple[int, int]] = []
    for _ in range(count):
        if position < 0 or position + ENTRY.size > end:
            return []
        signature, name, extra, comment, local = ENTRY.unpack_from(data, position)
        if signature != ENTRY_SIGNATURE:
            return []
        entries.append((position, local))
        position += ENTRY.size + name + extra + comment
    return entries


def _end(root: Table) -> int:
    """The first byte behind a table and everything that it refers to."""
    end = 0
    seen = {root.position}
    pending = [root]
    while pending:
        table = pending.pop()
        end = max(end, table.end)
        for offset, spec in table.shape.references:
            position = table.source.follow(table.position + offset)
            inner, last = _reach(table, spec, position)
            end = max(end, last)
            pending.extend(other for other in inner if other.position not in seen)
            seen.update(other.position for other in inner)
    return end


def _reach(table: Table, spec: TableField, position: int) -> tuple[list[Table], int]:
    """The tables to which a field refers, and the first byte behind its vector or strings."""
    source = table.source
    if spec.kind in ("table", "union"):
        inner = target(table, spec)
        return ([] if inner is None else [Table(source, inner, position)]), position
    if spec.kind == "text":
        return [], _end_of_text(source, position)

    start, count = source.vector(position, spec.element_width)
    end = start + count * spec.element_width
    if spec.kind == "texts":
        ends = [_end_of_text(source, place) for place in elements(source, position)]
        return [], max([end, *ends])
    if spec.kind == "tables":
        inner = layout(spec.target)
        return [Table(source, inner, place) for place in elements(source, position)], end
    return [], end


def _end_of_text(source: Flatbuffer, position: int) -> int:
    start, count = source.vector(position, 1)
    return start + count + 1  # a zero follows
