"""Writes messages to files, copying weights block by block.

A model's weights may be larger than memory. So spans of the source are copied within the kernel or
through one small block, never through the mapping: its pages would count as this process's memory.
"""

import fcntl
import os
import threading
from logging import getLogger
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from irsplit.base.lazy import LazyModule
from irsplit.dialects.onnx.wire import ProtoMessage, ProtoSpan
from irsplit.ir import Buffer

if TYPE_CHECKING:
    import shutil
else:
    shutil = LazyModule("shutil")

_log = getLogger("irsplit")

_KERNEL_COPY = 64 * 1024
"""Spans of this size and more are copied block by block, smaller ones through Python's buffer."""

_FICLONE = 0x40049409
"""The ioctl of linux/fs.h that makes a file share the blocks of another, copied on write."""

_SHARING = threading.Lock()
"""Held while a file is shared: two threads may share the same file with models of one folder."""

_BLOCK = 256 * 1024
"""Bytes that stay in the cache of a core between being read and being written."""

_PAGE = 4096


class BlockWriter:
    """A file under construction; a context manager. Every source file is opened once."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=_KERNEL_COPY)
        self._sources: dict[Buffer, BinaryIO] = {}
        self._block = memoryview(bytearray(_BLOCK))
        self.position = 0
        """Bytes written so far."""

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for source in self._sources.values():
            source.close()
        self._file.close()

    def message(self, message: ProtoMessage) -> None:
        """Write a whole message."""
        for part in message.parts:
            if isinstance(part, ProtoSpan):
                self.span(part)
            else:
                self.bytes(part)

    def bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes that are in memory."""
        self._file.write(data)
        self.position += len(data)

    def span(self, span: ProtoSpan) -> None:
        """Copy bytes of a source."""
        size = span.stop - span.start
        if span.buffer.path is None:
            self.bytes(span.buffer.view[span.start : span.stop])
            return

        if span.buffer not in self._sources:
            self._sources[span.buffer] = span.buffer.path.open("rb", buffering=0)
        source = self._sources[span.buffer].fileno()
        if size < _KERNEL_COPY:
            self.bytes(os.pread(source, size, span.start))
            return

        # The copies below go past Python's buffer.
        self._file.flush()
        if (span.start - self.position) % _PAGE == 0:
            self._copy_pages(source, span.start, span.stop)
        else:
            self._copy_blocks(source, span.start, span.stop)

    def _copy_pages(self, source: int, start: int, stop: int) -> None:
        """Copy within the kernel, where a file system may even share the blocks.

        Where the kernel refuses, the rest is copied through memory.
        """
        target = self._file.fileno()
        while start < stop:
            try:
                copied = os.copy_file_range(source, target, stop - start, offset_src=start)
            except OSError:
                self._copy_blocks(source, start, stop)
                return
            start = self._advance(start, copied, stop)

    def _copy_blocks(self, source: int, start: int, stop: int) -> None:
        """Copy through one block of memory, in whole pages of the target.

        Between offsets that differ within a page this takes two thirds of the CPU time of the
        kernel's own copy.
        """
        while start < stop:
            # The first block ends at a page of the target, so that all others begin at one.
            capacity = _BLOCK - self.position % _PAGE
            block = self._block[: min(capacity, stop - start)]
            copied = os.preadv(source, [block], start)
            _write_all(self._file.fileno(), block[:copied])
            start = self._advance(start, copied, stop)

    def _advance(self, start: int, copied: int, stop: int) -> int:
        """Count copied bytes. Returns the position in the source after them."""
        if not copied:
            raise EOFError(
                f"the source ends {stop - start} bytes early; it was changed while it was read"
            )
        self.position += copied
        return start + copied


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


def share(source: Path, target: Path) -> None:
    """Make `target` a file with the bytes of `source`, if possible without storing them twice.

    Tries a reflink, then a hard link, then a copy. If both already are one file, nothing happens.
    onnxruntime reads hard links, but onnx's own loader refuses a file that has several, and that
    includes the source: hence the warning. Neither follows a symbolic link out of its folder.
    """
    with _SHARING:
        if target.exists() and target.samefile(source):
            return

        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)

        if _reflink(source, target):
            return

        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
            return
        _log.warning(
            "%s is hard-linked, not copied; onnx.load refuses it while links exist", source
        )


def _reflink(source: Path, target: Path) -> bool:
    """Let the two files share their blocks. Where that fails, there is no target afterwards."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            target.unlink()
            return False
        return True
