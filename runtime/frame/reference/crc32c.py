"""CRC-32C (Castagnoli), the checksum of frames and descriptors, in numpy.

A CRC register depends on its start value and on the data, and over GF(2) it is linear in both. So
the data can be cut into lanes of equal length whose registers advance side by side, each from zero.
They are joined at the end: the register of everything so far moves over a lane's length in zeros,
which is a linear map, and the register of that lane is added.
"""

import numpy as np

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, the lowest coefficient in the highest bit."""
_LANES = 1024
_SHORTEST_LANE = 16
"""Bytes of a lane from which lanes pay."""


def _table() -> list[int]:
    """For every byte, what it makes of a register of zero."""
    table: list[int] = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()
_WIDE = np.array(_TABLE, dtype=np.uint32)


def _bytewise(crc: int, data: bytes) -> int:
    """The register after these bytes, which are taken one at a time."""
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


def _zeros_operator(count: int) -> list[int]:
    """The linear map of `count` zero bytes on a register, as the images of its 32 bits."""
    operator = [1 << bit for bit in range(32)]
    # The map of 1, 2, 4, ... zeros, by squaring.
    power = [_bytewise(1 << bit, b"\0") for bit in range(32)]
    while count:
        if count & 1:
            operator = _composed(power, operator)
        power = _composed(power, power)
        count >>= 1
    return operator


def _composed(outer: list[int], inner: list[int]) -> list[int]:
    """The map that applies `inner` and then `outer`."""
    return [_apply(outer, image) for image in inner]


def _apply(operator: list[int], crc: int) -> int:
    """The image of a register: the sum of the images of its bits."""
    result = 0
    for bit in range(32):
        if crc >> bit & 1:
            result ^= operator[bit]
    return result


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The checksum of `data`."""
    whole = memoryview(data).cast("B")
    length = len(whole) // _LANES
    if length < _SHORTEST_LANE:
        return _bytewise(0xFFFFFFFF, bytes(whole)) ^ 0xFFFFFFFF

    # The first lane begins with the start value of the checksum, all others with zero.
    lanes = np.frombuffer(whole[: length * _LANES], np.uint8).reshape(_LANES, length)
    crcs = np.zeros(_LANES, np.uint32)
    crcs[0] = 0xFFFFFFFF
    for column in np.ascontiguousarray(lanes.T):
        crcs = (crcs >> np.uint32(8)) ^ _WIDE[(crcs ^ column) & np.uint32(0xFF)]

    over_a_lane = _zeros_operator(length)
    crc = 0
    for lane in crcs.tolist():
        crc = _apply(over_a_lane, crc) ^ lane
    return _bytewise(crc, bytes(whole[length * _LANES :])) ^ 0xFFFFFFFF
