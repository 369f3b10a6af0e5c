"""Changes to bytes and to JSON values, as a bad disk, a bad link or an attacker would make them."""

import copy
import struct
from random import Random
from typing import Any

EDGES = (0, 1, 0x7F, 0x80, 0xFF)
WIDE_EDGES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    10**40,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "..",
    "/etc/passwd",
    "\x1b[2J",
    "\ud800",
    "x" * 300,
    [],
    [[]],
    {},
    {"": None},
)


def damaged(data: bytes, random: Random, most: int = 3) -> bytes:
    """`data` after one to `most` changes, at least one of which took effect, if any can."""
    for _ in range(20):
        changed = data
        for _ in range(random.randint(1, most)):
            changed = random.choice(CHANGES)(changed, random)
        if changed != data:
            return changed
    return data + b"\0"


def _flip_bit(data: bytes, random: Random) -> bytes:
    position = random.randrange(max(len(data), 1))
    return (
        data[:position]
        + bytes(byte ^ 1 << random.randrange(8) for byte in data[position : position + 1])
        + data[position + 1 :]
    )


def _set_byte(data: bytes, random: Random) -> bytes:
    position = random.randrange(max(len(data), 1))
    value = random.choice((*EDGES, random.randrange(256)))
    return data[:position] + bytes([value]) + data[position + 1 :]


def _set_word(data: bytes, random: Random) -> bytes:
    """A number of four or eight bytes at its range's edge, at an even place, as formats do."""
    width = random.choice((4, 8))
    position = random.randrange(len(data) // 4 + 1) * 4
    word = struct.pack("<Q", random.choice(WIDE_EDGES))[:width]
    return data[:position] + word + data[position + width :]


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _append(data: bytes, random: Random) -> bytes:
    return data + random.randbytes(random.randint(1, 64))


def _remove(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.randint(1, 16) :]


def _repeat(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start : start + random.randint(1, 64)] + data[start:]


def _randomise(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    size = min(random.randint(1, 32), len(data) - start)
    return data[:start] + random.randbytes(size) + data[start + size :]


CHANGES = (_flip_bit, _set_byte, _set_word, _truncate, _append, _remove, _repeat, _randomise)


def odd_value(random: Random) -> Any:
    """A value of JSON that no reader expects: another type, an edge of a range, deep nesting."""
    if random.random() < 0.05:
        nested: Any = 0
        for _ in range(random.choice((10, 900))):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        return nested
    return copy.deepcopy(random.choice(ODD_VALUES))


def damaged_json(value: Any, random: Random) -> Any:
    """A copy of a JSON value with one place replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return odd_value(random)
    holder, key = random.choice(places)
    change = random.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif change == 1:
        holder[key + random.choice(("", "_", "\0"))] = holder.pop(key)
        holder[random.choice(("", "x", key))] = odd_value(random)
    elif change == 2:
        other, other_key = random.choice(places)
        holder[key] = copy.deepcopy(other[other_key])
    else:
        holder[key] = odd_value(random)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each container in a JSON value with each of its keys or positions."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        holder = pending.pop()
        keys = (
            list(holder)
            if isinstance(holder, dict)
            else range(len(holder))
            if isinstance(holder, list)
            else ()
        )
        for key in keys:
            found.append((holder, key))
            pending.append(holder[key])
    return found
