"""Files associated with a model: a ZIP archive behind the flatbuffer, with offsets that count from the file's start."""

from struct import Struct

from irsplit.ir import Buffer, Constant

END_SIGNATURE, ENTRY_SIGNATURE, LOCAL_SIGNATURE = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
# End record: signature, 6 bytes of disks, entries, size and offset of the directory, length of the comment.
END = Struct("<4s6xHIIH")
# Directory entry: signature, 24 bytes, lengths of name, extra field and comment, 8 bytes, offset of the local header.
ENTRY = Struct("<4s24xHHH8xI")
OFFSET_IN_ENTRY, OFFSET_IN_END = 42, 16
LONGEST_COMMENT = 0xFFFF


def find_archive(buffer: Buffer) -> Constant | None:
    """The archive at the end of a file, None when there is none that is sound."""
    data = buffer.view
    base = max(0, len(data) - END.size - LONGEST_COMMENT)
    found = bytes(data[base:]).rfind(END_SIGNATURE)
    if found < 0 or base + found + END.size > len(data):
        return None
    end = base + found
    _, count, size, offset, comment = END.unpack_from(data, end)
    directory = end - size
    shift = directory - offset
    starts = _local_headers(data, directory, end, count)
    if shift < 0 or not starts or end + END.size + comment != len(data):
        return None
    start = min(starts) + shift
    if bytes(data[start : start + 4]) != LOCAL_SIGNATURE or start > directory:
        return None
    return Constant(buffer, start, len(data) - start)


def relocated(archive: Constant, start: int) -> bytes:
    """The archive's bytes for a file in which it starts at byte `start`."""
    data = bytearray(archive.view())
    end = data.rfind(END_SIGNATURE)
    _, count, size, offset, _ = END.unpack_from(data, end)
    directory = end - size
    if archive.offset + directory != offset:
        return bytes(data)  # its offsets count from its own start
    moved = start - archive.offset
    position = directory
    for _ in range(count):
        _, name, extra, comment, local = ENTRY.unpack_from(data, position)
        data[position + OFFSET_IN_ENTRY : position + ENTRY.size] = (local + moved).to_bytes(4, "little")
        position += ENTRY.size + name + extra + comment
    data[end + OFFSET_IN_END : end + OFFSET_IN_END + 4] = (offset + moved).to_bytes(4, "little")
    return bytes(data)


def _local_headers(data: memoryview, position: int, end: int, count: int) -> list[int]:
    """Offsets of the local headers that the directory lists; none when the directory is not sound."""
    starts: list[int] = []
    for _ in range(count):
        if position < 0 or position + ENTRY.size > end:
            return []
        signature, name, extra, comment, local = ENTRY.unpack_from(data, position)
        if signature != ENTRY_SIGNATURE:
            return []
        starts.append(local)
        position += ENTRY.size + name + extra + comment
    return starts
