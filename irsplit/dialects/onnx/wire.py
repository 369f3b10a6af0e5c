"""The protobuf wire format: finds fields without parsing them, builds messages out of spans.

A message never becomes a tree of objects. `fields` says where each field lies, and `ProtoMessage`
gathers fields for the output, most of them spans of the source as they are. Payloads are therefore
neither read nor copied until the output is written, block by block.
"""

from collections.abc import Iterable
from typing import NamedTuple

from irsplit.ir import Buffer

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}

Data = memoryview | bytes


class WireError(ValueError):
    """Bytes that are no protobuf message; `offset` is where reading stopped."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


# -- reading --------------------------------------------------------------------------------------


class ProtoField(NamedTuple):
    """One field of a message: where its key and its payload lie."""

    key: int
    """Number << 3 | wire type."""
    head: int
    """Offset of the key."""
    start: int
    """Offset of the payload."""
    stop: int
    """Offset behind the payload."""


def fields(data: Data, start: int, stop: int) -> list[ProtoField]:
    """List the fields of the message at data[start:stop], in order.

    Raises:
        WireError: The bytes are no message.
    """
    return list(map(ProtoField._make, scan(data, start, stop)))


def scan(data: Data, start: int, stop: int, base: int = 0) -> list[tuple[int, int, int, int]]:
    """List fields as plain tuples, for loops that run a million times on a large graph.

    Args:
        data: Bytes that contain the message.
        start: Offset of the message.
        stop: Offset behind the message.
        base: Offset of data[0] in the file, for the offset that errors name.

    Returns:
        Key, head, start and stop of each field, as in `ProtoField`.

    Raises:
        WireError: The bytes are no message.
    """
    # Most keys and lengths are below 128 and take one byte. That case is written out here, to save
    # a call of `read_varint` for each.
    result: list[tuple[int, int, int, int]] = []
    position = start

    while position < stop:
        head = position
        key = data[position]
        position += 1
        if key > 127:
            key, position = read_varint(data, head, stop)
        wire = key & 7
        begin = position

        if wire == BYTES:
            length = data[position] if position < stop else 128
            begin = position + 1
            if length > 127:
                length, begin = read_varint(data, position, stop)
            position = begin + length
        elif wire == VARINT:
            if position < stop and data[position] < 128:
                position += 1
            else:
                position = read_varint(data, position, stop)[1]
        elif wire in _FIXED:
            position += _FIXED[wire]
        else:
            raise WireError(base + head, f"wire type {wire} is not used by ONNX")

        if position > stop:
            raise WireError(
                base + head,
                f"field {key >> 3} needs {position - stop} more bytes than its message has",
            )
        if key < 8:
            raise WireError(base + head, "field number 0 does not exist")

        result.append((key, head, begin, position))

    return result


def last_fields(data: Data, start: int, stop: int) -> dict[int, ProtoField]:
    """Map each key in the message at data[start:stop] to its last field.

    A field that is not repeated may still occur several times. Then protobuf takes the last one.

    Raises:
        WireError: The bytes are no message.
    """
    return {field.key: field for field in fields(data, start, stop)}


def text_of(data: Data, field: ProtoField | None) -> str:
    """Read a string field; a missing one is empty."""
    return "" if field is None else read_text(data, field.start, field.stop)


def read_varint(data: Data, position: int, stop: int) -> tuple[int, int]:
    """Read the unsigned number at `position`.

    Returns:
        The number, and the position behind it.
    """
    value = shift = 0
    while position < stop:
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position

        shift += 7
        if shift > 63:
            raise WireError(position, "a number is longer than 10 bytes")

    raise WireError(position, "the data ends inside a number")


def signed(value: int) -> int:
    """Convert an unsigned 64-bit number to the int64 with the same bits."""
    return value - (1 << 64) if value >> 63 else value


def read_int(data: Data, start: int, stop: int) -> int:
    """Read the payload of an int64 field."""
    return signed(read_varint(data, start, stop)[0])


def read_ints(data: Data, start: int, stop: int) -> list[int]:
    """Read the payload of a repeated int64 field: all numbers packed, or one of several."""
    numbers: list[int] = []
    while start < stop:
        value, start = read_varint(data, start, stop)
        numbers.append(signed(value))
    return numbers


def read_text(data: Data, start: int, stop: int) -> str:
    """Read the payload of a string field."""
    return str(data[start:stop], "utf-8")


# -- writing --------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """Encode a number as a varint; a negative one as int64, which takes ten bytes."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class ProtoSpan(NamedTuple):
    """Bytes of a buffer that go to the output as they are."""

    buffer: Buffer
    start: int
    stop: int


class ProtoMessage:
    """A message under construction: bytes and spans in order, whose size is known at any time.

    Spans that touch in the source are joined, so an untouched run of nodes or weights is copied
    in one piece.
    """

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytearray | ProtoSpan] = []
        self.size = 0

    def raw(self, data: "bytes | bytearray") -> None:
        """Append bytes that are whole fields already."""
        if self.parts and isinstance(self.parts[-1], bytearray):
            self.parts[-1] += data
        else:
            self.parts.append(bytearray(data))
        self.size += len(data)

    def span(self, buffer: Buffer, start: int, stop: int) -> None:
        """Append a span: whole fields, or a payload whose key and length went to `raw`."""
        last = self.parts[-1] if self.parts else None
        if isinstance(last, ProtoSpan) and last.buffer is buffer and last.stop == start:
            self.parts[-1] = ProtoSpan(buffer, last.start, stop)
        else:
            self.parts.append(ProtoSpan(buffer, start, stop))
        self.size += stop - start

    def number(self, key: int, value: int) -> None:
        """Append an int64 field."""
        self.raw(varint(key) + varint(value))

    def bytes(self, key: int, data: bytes) -> None:
        """Append a field of bytes."""
        self.raw(varint(key) + varint(len(data)) + data)

    def text(self, key: int, text: str) -> None:
        """Append a string field."""
        self.bytes(key, text.encode())

    def texts(self, key: int, texts: Iterable[str]) -> None:
        """Append a repeated string field."""
        for text in texts:
            self.text(key, text)

    def payload(self, key: int, buffer: Buffer, start: int, stop: int) -> None:
        """Append a field of bytes, or a message, whose payload is a span."""
        self.raw(varint(key) + varint(stop - start))
        if stop > start:
            self.span(buffer, start, stop)

    def message(self, key: int, message: "ProtoMessage") -> None:
        """Append a message as a field."""
        self.raw(varint(key) + varint(message.size))
        for part in message.parts:
            if isinstance(part, ProtoSpan):
                self.span(*part)
            else:
                self.raw(part)

    def tobytes(self) -> "bytes":
        """Return the message in memory, which is for small ones."""
        pieces: list[memoryview | bytearray] = []
        for part in self.parts:
            if isinstance(part, ProtoSpan):
                pieces.append(part.buffer.view[part.start : part.stop])
            else:
                pieces.append(part)
        return b"".join(pieces)
