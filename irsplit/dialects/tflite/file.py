"""Writes a model file: tables from memory, payloads in blocks from the files that hold them."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from irsplit.base.errors import ModelError
from irsplit.dialects.tflite.builder import Placed
from irsplit.ir import Constant

DIRECT_BYTES = 1 << 16
"""Smaller payloads go through the mapped file and the output's buffer."""
BLOCK_BYTES = 1 << 19
"""Larger payloads are copied in blocks of this size. `copy_file_range` and `sendfile` take 1.6
times as long if the target is not aligned to pages, and weights are not."""


def write_file(
    path: Path, tables: bytes | bytearray, placed: Sequence[Placed], trailer: bytes = b""
) -> None:
    """Write a model file, which appears whole or not at all.

    Args:
        path: The file to write; one that exists is replaced.
        tables: The beginning of the file.
        placed: The payloads behind the tables, in order of offset.
        trailer: What follows the last payload.

    Raises:
        OSError: The file cannot be written.
        ModelError: A file that has payloads became shorter in the meantime.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with ExitStack() as stack:
            out = stack.enter_context(draft.open("wb", buffering=DIRECT_BYTES))
            sources = _Sources(stack)
            out.write(tables)
            end = len(tables)
            for item in placed:
                length = item.span.length
                head = length.to_bytes(4, "little") if item.counted else b""
                out.write(bytes(item.offset - len(head) - end) + head)
                sources.copy(item.span, out)
                end = item.offset + length
            out.write(trailer)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


class _Sources:
    """The files that hold payloads, each opened once, and one block of memory for all copies."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[Path, FileIO] = {}
        self._block = memoryview(bytearray(BLOCK_BYTES))

    def copy(self, span: Constant, out: BinaryIO) -> None:
        """Append the bytes of a payload to a file."""
        path = span.buffer.path
        if path is None or span.length < DIRECT_BYTES:
            out.write(span.view())
            return

        if path not in self._files:
            self._files[path] = self._stack.enter_context(FileIO(path, "rb"))
        file = self._files[path]
        file.seek(span.offset)
        left = span.length
        while left:
            count = file.readinto(self._block[:left])
            if not count:
                end = span.offset + span.length
                raise ModelError(f"{path}: ends before byte {end}; it changed while it was read")
            out.write(self._block[:count])
            left -= count
