"""Where a reader meets a file that anybody may have written: whatever it trips over becomes one error with a name.

    with reading(path, "no profile", "make one with 'irsplit profile'", PlanError):
        return record(Profile, json.loads(read_text(path)))

A reader puts everything that looks at the contents into the block, and nothing else: a defect of ours that happens
elsewhere keeps its trace.
"""

import dataclasses
import io
import math
import struct
import types
import typing
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from irsplit.base.errors import IrsplitError

_T = TypeVar("_T")

LARGEST_TEXT = 64 << 20
"""Bytes of a manifest, a profile or another file that is parsed whole: far more than any that we write."""
LARGEST_INTEGER = (1 << 63) - 1
"""Sizes and times end in arrays of 64-bit integers."""

_BLOCK = 1 << 16
_LONGEST_REASON = 300
_TRIPPED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What parsers, and code that trusts what they gave, raise for contents that they were not made for."""


@contextmanager
def reading(
    source: Path | str,
    problem: str,
    remedy: str,
    error: type[IrsplitError],
    also: tuple[type[Exception], ...] = (),
) -> Generator[None]:
    """Turn what reading `source` raises into an `error` of one line: "SOURCE: PROBLEM (REASON); REMEDY".

    Args:
        source: The file, as the user named it.
        problem: What is wrong with it, such as "damaged manifest".
        remedy: What to do about it.
        error: What to raise. An IrsplitError from the block passes as it is.
        also: Exceptions of a library that derive from none of the usual ones.
    """
    try:
        yield
    except (*_TRIPPED, *also) as tripped:
        if isinstance(tripped, OSError) and tripped.errno is not None:
            raise error(f"{source}: cannot be read: {tripped.strerror}; {remedy}") from tripped
        raise error(f"{source}: {problem} ({reason(tripped)}); {remedy}") from tripped


def reason(error: BaseException) -> str:
    """What an exception says, on one line, for a reader who does not know Python."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}" if error.args else "an entry is missing"
    if isinstance(error, UnicodeDecodeError):
        return f"no UTF-8 text at byte {error.start}"

    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def read_bytes(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """The contents of a file, which may be a pipe or an endless device. Raises ValueError above `largest` bytes."""
    with path.open("rb") as file:
        return read_all(file, largest)


def read_all(file: typing.BinaryIO | io.BufferedReader, largest: int = LARGEST_TEXT) -> bytes:
    """The rest of an open file. Raises ValueError above `largest` bytes."""
    # In blocks: one read would first allocate all that it may return.
    data = bytearray()
    while block := file.read(_BLOCK):
        data += block
        if len(data) > largest:
            raise ValueError(f"more than {largest} bytes")
    return bytes(data)


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """As `read_bytes`, for UTF-8 text."""
    return read_bytes(path, largest).decode()


def record(kind: type[_T], data: Any, *, others: bool = False) -> _T:
    """A dataclass from the JSON object that `dataclasses.asdict` made of one, nested ones included.

    Every value must have the type that its field names. Integers must fit into 64 bits, numbers must be finite, and
    text must be such that it can be written again.

    Args:
        kind: The dataclass.
        data: What `json.loads` gave.
        others: Ignore keys that are no fields, in every object; otherwise they are refused.

    Raises ValueError that names the key.
    """
    return _record(kind, data, "", others)


def _record(kind: type[_T], data: Any, where: str, others: bool) -> _T:
    if not isinstance(data, dict):
        raise ValueError(f"{where or 'it'} is {_named(data)}, no object")
    fields = _fields(kind)
    unknown = None if others else next((key for key in data if key not in fields), None)
    if unknown is not None:
        raise ValueError(f"unknown key {_within(where, unknown)!r}")

    values: dict[str, Any] = {}
    for name, (hint, required) in fields.items():
        if name in data:
            values[name] = _value(hint, data[name], _within(where, name), others)
        elif required:
            raise ValueError(f"no {_within(where, name)!r}")
    return kind(**values)


def _value(hint: Any, value: Any, where: str, others: bool) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        (hint,) = (each for each in arguments if each is not types.NoneType)
        return _value(hint, value, where, others)
    if origin is tuple:
        return tuple(_items(hint, value, where, others))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {_named(value)}, no object")
        return {
            _key(arguments[0], key, where): _value(arguments[1], each, _within(where, key), others)
            for key, each in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(Any, hint), value, where, others)
    return _plain(hint, value, where)


def _items(hint: Any, value: Any, where: str, others: bool) -> Iterable[Any]:
    """The items of a tuple, whose hint is `tuple[X, ...]` or has as many arguments as there are items."""
    arguments = typing.get_args(hint)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {_named(value)}, no list")
    items = typing.cast("list[Any]", value)
    hints = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(items):
        raise ValueError(f"{where} has {len(items)} items, not {len(hints)}")
    for index, (each, item) in enumerate(zip(hints, items, strict=True)):
        yield _value(each, item, f"{where}[{index}]", others)


def _plain(hint: Any, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number and math.isfinite(value):
        return value
    if hint is str and isinstance(value, str):
        return _text(value, where)
    fits = hint is not float and type(value) is hint
    if fits and (hint is not int or abs(value) <= LARGEST_INTEGER):
        return value
    if issubclass(hint, str) and isinstance(value, str):
        return hint(value)  # an enumeration: raises ValueError for what is none of it
    raise ValueError(f"{where} is {_named(value)}, no {_KINDS.get(hint, hint.__name__)}")


_KINDS = {int: "whole number", float: "finite number", str: "text", bool: "true or false"}


def _text(value: str, where: str) -> str:
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{where} has half of a surrogate pair")
    return value


def _key(hint: Any, key: str, where: str) -> Any:
    """A key of an object, which JSON writes as text whatever it was."""
    if hint is not int:
        return _text(key, where)
    if not (key.isdecimal() and key.isascii() and len(key) < 20):
        raise ValueError(f"{where} has the key {shorten(key)}, no whole number")
    return int(key)


def shorten(value: object) -> str:
    """A value in a few letters, control characters escaped."""
    text = (
        "a number beyond 64 bits"
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER
        else repr(value)
    )
    return text if len(text) <= 60 else f"{text[:60]}..."


def _within(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _named(value: Any) -> str:
    """A value in a few letters."""
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    return shorten(value)


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Type and whether it must be given, of every field of a dataclass that its constructor takes."""
    hints = typing.get_type_hints(kind)
    absent = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is absent and field.default_factory is absent)
        for field in dataclasses.fields(kind)
        if field.init
    }
