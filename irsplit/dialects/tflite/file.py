"""The bytes of a model file: tables from memory, payloads from where they lie, in blocks."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from irsplit.base.errors import ModelError
from irsplit.dialects.tflite.builder import Placed
from irsplit.ir import Constant

# Below this a payload goes through the mapped file and the output's buffer.
DIRECT_BYTES = 1 << 16
# Of half a megabyte at a time: `copy_file_range` and `sendfile` take 1.6 times as long when the target is not aligned
# to pages, and weights are not.
BLOCK_BYTES = 1 << 19


def write_file(
    path: Path, tables: bytes | bytearray, placed: Sequence[Placed], trailer: bytes = b""
) -> None:
    """Write tables, payloads and trailer; the file appears whole or not at all."""
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
    """The files that payloads come from, each opened once, and one block for all that is read."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[Path, FileIO] = {}
        self._block = memoryview(bytearray(BLOCK_BYTES))

    def copy(self, span: Constant, out: BinaryIO) -> None:
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
                raise ModelError(
                    f"{path}: ends before byte {span.offset + span.length}; it changed while it was read"
                )
            out.write(self._block[:count])
            left -= count
