"""CRC-32C (Castagnoli), the checksum of frames and descriptors, without the extension."""

import numpy as np


def _table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()
_WIDE = np.array(_TABLE, dtype=np.uint32)
_LANES = 1024


def _bytewise(crc: int, data: bytes) -> int:
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


def _zeros_operator(count: int) -> list[int]:
    """The linear map of `count` zero bytes on a CRC register, as the images of its 32 bits."""
    operator = [1 << bit for bit in range(32)]
    one_byte = [_bytewise(1 << bit, b"\0") for bit in range(32)]
    while count:
        if count & 1:
            operator = [_apply(one_byte, image) for image in operator]
        one_byte = [_apply(one_byte, image) for image in one_byte]
        count >>= 1
    return operator


def _apply(operator: list[int], crc: int) -> int:
    result = 0
    for bit in range(32):
        if crc >> bit & 1:
            result ^= operator[bit]
    return result


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Checksum of `data`: 1024 lanes side by side in numpy, joined by the linear map of their length in zeros."""
    whole = memoryview(data).cast("B")
    length = len(whole) // _LANES
    if length < 16:
        return _bytewise(0xFFFFFFFF, bytes(whole)) ^ 0xFFFFFFFF
    lanes = np.frombuffer(whole[: length * _LANES], np.uint8).reshape(_LANES, length)
    crcs = np.zeros(_LANES, np.uint32)
    crcs[0] = 0xFFFFFFFF
    for column in np.ascontiguousarray(lanes.T):
        crcs = (crcs >> np.uint32(8)) ^ _WIDE[(crcs ^ column) & np.uint32(0xFF)]
    shift = _zeros_operator(length)
    crc = 0
    for lane in crcs.tolist():
        crc = _apply(shift, crc) ^ lane
    return _bytewise(crc, bytes(whole[length * _LANES :])) ^ 0xFFFFFFFF
