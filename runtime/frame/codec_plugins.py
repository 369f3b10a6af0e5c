"""Codecs of other packages, offered through the entry points `irsplit.codecs` on both sides.

An entry point has the codec's name and gives a `PluginCodec`. In C, such a codec comes through
`irs_hooks`.
"""

from functools import cache
from typing import Protocol

from irsplit.base.entry_points import entry_points, load
from irsplit.base.errors import IrsplitError

ENTRY_POINTS = "irsplit.codecs"
Bytes = bytes | bytearray | memoryview

FIRST_CODE, LAST_CODE = 128, 255
"""The codes that descriptors have for codecs of other packages."""


class Coder(Protocol):
    """A codec that is opened for one tensor. One thread at a time uses it."""

    def compress(self, data: Bytes) -> bytes:
        """Compress the elements of a chunk. The same data must give the same bytes.

        A result that is not smaller than the data is not sent.
        """
        ...

    def decompress(self, payload: Bytes, size: int) -> bytes:
        """Restore exactly `size` bytes. The payload may be hostile.

        Raises:
            ValueError: No `compress` gave this payload.
        """
        ...


class PluginCodec(Protocol):
    """What an entry point stands for.

    Attributes:
        code: The number that descriptors carry, FIRST_CODE to LAST_CODE.
    """

    code: int

    def open(self, parameters: bytes) -> Coder:
        """Open the codec with its bytes in the descriptor, which a pass may have set."""
        ...


@cache
def plugin_codecs() -> dict[str, PluginCodec]:
    """Every installed codec of another package by name.

    Raises:
        IrsplitError: A codec cannot be loaded or has no valid code, or a name or a code is taken
            twice; the text names both packages.
    """
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

        for taken in (name, code):
            if taken in origins:
                raise IrsplitError(
                    f"two codecs have the name or code '{taken}': {origins[taken]} and {origin}"
                )
            origins[taken] = origin
        codecs[name] = codec
    return codecs
