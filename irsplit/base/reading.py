"""Reads files that anybody may have written, so that whatever goes wrong becomes one clear error.

    with reading(path, "no profile", "make one with 'irsplit profile'", PlanError):
        return record(Profile, json.loads(read_text(path)))

A reader puts everything that looks at the contents into the block, and nothing else: a defect of
irsplit that shows elsewhere keeps its traceback.
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
"""The most bytes of a file that is parsed whole, such as a manifest; we write far less."""
LARGEST_INTEGER = (1 << 63) - 1
"""The largest integer in a file, because sizes and times end in arrays of 64-bit integers."""

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
"""What parsers, and code that trusts their results, raise for unexpected contents."""


@contextmanager
def reading(
    source: Path | str,
    problem: str,
    remedy: str,
    error: type[IrsplitError],
    also: tuple[type[Exception], ...] = (),
) -> Generator[None]:
    """Turn whatever a block raises while it reads a file into one error.

    The text of the error is "SOURCE: PROBLEM (REASON); REMEDY". An IrsplitError that the block
    raises passes unchanged.

    Args:
        source: The file, as the user named it.
        problem: What is wrong with it, such as "damaged manifest".
        remedy: What the user can do.
        error: The class of the error.
        also: Exceptions of a library that do not derive from the usual ones.
    """
    try:
        yield
    except (*_TRIPPED, *also) as tripped:
        if isinstance(tripped, OSError) and tripped.errno is not None:
            what = f"cannot be read: {tripped.strerror}"
        else:
            what = f"{problem} ({reason(tripped)})"
        raise error(what, where=str(source), remedy=remedy) from tripped


def reason(error: BaseException) -> str:
    """The text of an exception on one line, for a reader who does not know Python.

    Args:
        error: Any exception.

    Returns:
        At most 300 letters and an ellipsis.
    """
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
    """Read a file, which may also be a pipe or an endless device.

    Raises:
        ValueError: The file has more than `largest` bytes.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return read_all(file, largest)


def read_all(file: typing.BinaryIO | io.BufferedReader, largest: int = LARGEST_TEXT) -> bytes:
    """Read the rest of an open file. Raises ValueError above `largest` bytes."""
    # In blocks, because a single read would first allocate all that it may return.
    data = bytearray()
    while block := file.read(_BLOCK):
        data += block
        if len(data) > largest:
            raise ValueError(f"more than {largest} bytes")
    return bytes(data)


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Read a file of UTF-8 text, as `read_bytes` does."""
    return read_bytes(path, largest).decode()


def record(kind: type[_T], data: Any, *, others: bool = False) -> _T:
    """Make a dataclass of what `dataclasses.asdict` and `json` made of one, nested ones included.

    Every value must have the type that its field names. Integers must fit into 64 bits, numbers
    must be finite, and text must be such that it can be written again.

    Args:
        kind: The dataclass.
        data: What `json.loads` returned.
        others: Whether keys that are not fields are ignored, in every object, instead of refused.

    Raises:
        ValueError: A key is missing, unknown or has a wrong value; the text names the key.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Link:
        ...     name: str
        ...     rtt_s: float = 0.0
        >>> record(Link, {"name": "lte", "rtt_s": 0.05})
        Link(name='lte', rtt_s=0.05)
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
    """A value checked against the type of its field, and converted to it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not types.NoneType)
        return _value(hint, value, where, others)

    if origin is tuple:
        return tuple(_items(hint, value, where, others))
    if origin is dict:
        return _mapping(arguments[0], arguments[1], value, where, others)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(Any, hint), value, where, others)
    return _plain(hint, value, where)


def _mapping(key_hint: Any, hint: Any, value: Any, where: str, others: bool) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_named(value)}, no object")
    items = typing.cast("dict[str, Any]", value).items()
    return {
        _key(key_hint, key, where): _value(hint, item, _within(where, key), others)
        for key, item in items
    }


def _items(hint: Any, value: Any, where: str, others: bool) -> Iterable[Any]:
    """The items of a tuple.

    Its hint is `tuple[X, ...]`, or has as many arguments as the tuple has items.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {_named(value)}, no list")

    arguments = typing.get_args(hint)
    items = typing.cast("list[Any]", value)
    hints = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(items):
        raise ValueError(f"{where} has {len(items)} items, not {len(hints)}")
    for index, (item_hint, item) in enumerate(zip(hints, items, strict=True)):
        yield _value(item_hint, item, f"{where}[{index}]", others)


def _plain(hint: Any, value: Any, where: str) -> Any:
    """A value that is no container."""
    if hint is float and _is_finite_number(value):
        return value
    if hint is str and isinstance(value, str):
        return _text(value, where)
    if hint is not float and type(value) is hint and not _is_too_large(value):
        return value
    if issubclass(hint, str) and isinstance(value, str):
        # An enumeration, which raises ValueError for a text that is no member.
        return hint(value)
    raise ValueError(f"{where} is {_named(value)}, no {_KINDS.get(hint, hint.__name__)}")


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > LARGEST_INTEGER


_KINDS = {int: "whole number", float: "finite number", str: "text", bool: "true or false"}


def _text(value: str, where: str) -> str:
    """A text, which must have no half of a surrogate pair: it could not be written as UTF-8."""
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
    """A value in at most 60 letters and an ellipsis, with control characters escaped."""
    # Python would refuse to print an integer of very many digits.
    text = "a number beyond 64 bits" if _is_too_large(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _within(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _named(value: Any) -> str:
    """What an error message calls a value."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return shorten(value)


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The fields that the constructor of a dataclass takes: their types, and whether they must be
    given."""
    hints = typing.get_type_hints(kind)
    absent = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is absent and field.default_factory is absent)
        for field in dataclasses.fields(kind)
        if field.init
    }
