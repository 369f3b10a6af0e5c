"""The bytes of a model file: tables from memory, payloads from where they lie, in blocks."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from irsplit.dialects.tflite.builder import Placed
from irsplit.ir import Constant

# Below this a payload goes through the mapped file and the output buffer; above, the kernel copies it.
DIRECT_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20


def write_file(path: Path, tables: bytes | bytearray, placed: Sequence[Placed], trailer: bytes = b"") -> None:
    """Write tables, payloads and trailer; the file appears whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with ExitStack() as stack:
            out = stack.enter_context(draft.open("wb", buffering=BLOCK_BYTES))
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
    """The files that payloads come from, each opened once."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[Path, BinaryIO] = {}

    def copy(self, span: Constant, out: BinaryIO) -> None:
        path = span.buffer.path
        if path is None or span.length < DIRECT_BYTES:
            out.write(span.view())
            return
        if path not in self._files:
            self._files[path] = self._stack.enter_context(path.open("rb", buffering=0))
        out.flush()
        copied = _copy_in_kernel(self._files[path].fileno(), span.offset, span.length, out.fileno())
        out.seek(0, os.SEEK_END)
        for start in range(span.offset + copied, span.offset + span.length, BLOCK_BYTES):
            out.write(os.pread(self._files[path].fileno(), min(BLOCK_BYTES, span.offset + span.length - start), start))


def _copy_in_kernel(source: int, offset: int, length: int, target: int) -> int:
    """Bytes copied to the end of `target`; fewer than asked for where the file systems do not offer it."""
    if not hasattr(os, "copy_file_range"):
        return 0
    done = 0
    while done < length:
        try:
            count = os.copy_file_range(source, target, length - done, offset + done)
        except OSError:
            return done
        if not count:
            return done
        done += count
    return done
