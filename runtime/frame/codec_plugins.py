"""Codecs of other packages: offered through the entry points `irsplit.codecs`, on both sides of a boundary.

An entry point is named like its codec and gives an object with `code`, a number from 128 to 255 that descriptors carry,
and `open`. In C such a codec comes through `irs_hooks`.
"""

from functools import cache
from typing import Protocol

from irsplit.base.entry_points import entry_points, load
from irsplit.base.errors import IrsplitError

ENTRY_POINTS = "irsplit.codecs"
Bytes = bytes | bytearray | memoryview

FIRST_CODE, LAST_CODE = 128, 255


class Coder(Protocol):
    """One opened codec; used by one thread at a time."""

    def compress(self, data: Bytes) -> bytes:
        """The same data give the same bytes. A result that is not smaller is not sent."""
        ...

    def decompress(self, payload: Bytes, size: int) -> bytes:
        """Exactly `size` bytes. Raises ValueError for a payload that no `compress` gave; it may be hostile."""
        ...


class PluginCodec(Protocol):
    """`open` takes the codec's bytes in the descriptor, which a pass may have set."""

    code: int

    def open(self, parameters: bytes) -> Coder: ...


@cache
def plugin_codecs() -> dict[str, PluginCodec]:
    """Every installed codec by name. Raises IrsplitError, naming both, when a name or a code is taken twice."""
    codecs: dict[str, PluginCodec] = {}
    origins: dict[str | int, str] = {}
    for point in entry_points(ENTRY_POINTS):
        name, origin = point.name, point.value
        codec: PluginCodec = load(point, "codec")
        code = getattr(codec, "code", None)
        if not isinstance(code, int) or not FIRST_CODE <= code <= LAST_CODE:
            raise IrsplitError(
                f"the codec '{name}' of {origin} has code {code}; use {FIRST_CODE} to {LAST_CODE}"
            )
        for taken in (name, codec.code):
            if taken in origins:
                raise IrsplitError(
                    f"two codecs have the name or code '{taken}': {origins[taken]} and {origin}"
                )
            origins[taken] = origin
        codecs[name] = codec
    return codecs
