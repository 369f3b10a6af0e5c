"""Messages to files: spans are copied inside the kernel, so memory stays small whatever the weights weigh."""

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from irsplit.dialects.onnx.wire import Message, Span
from irsplit.ir import Buffer

_KERNEL_COPY = 64 * 1024
"""Spans from this size on are copied by the kernel; smaller ones go through the mapping and Python's buffer."""
_FICLONE = 0x40049409
"""linux/fs.h: make a file share the blocks of another, copied on write."""
_BLOCK = 8 * 1024 * 1024


class BlockWriter:
    """A file under construction. A context manager; every source file is opened once."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=_KERNEL_COPY)
        self._sources: dict[Buffer, BinaryIO] = {}
        self.position = 0

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for source in self._sources.values():
            source.close()
        self._file.close()

    def message(self, message: Message) -> None:
        for part in message.parts:
            if isinstance(part, Span):
                self.span(part)
            else:
                self.bytes(part)

    def bytes(self, data: bytes | bytearray | memoryview) -> None:
        self._file.write(data)
        self.position += len(data)

    def pad_to(self, alignment: int) -> None:
        self.bytes(bytes(-self.position % alignment))

    def span(self, span: Span) -> None:
        size = span.stop - span.start
        if size < _KERNEL_COPY or span.buffer.path is None:
            self.bytes(span.buffer.view[span.start : span.stop])
            return
        self._file.flush()
        if span.buffer not in self._sources:
            self._sources[span.buffer] = span.buffer.path.open("rb", buffering=0)
        _copy(self._sources[span.buffer].fileno(), span.start, self._file.fileno(), size)
        self.position += size


def _copy(source: int, start: int, target: int, size: int) -> None:
    """`size` bytes at `start` of one file to the end of another: within the kernel, or by blocks where it cannot."""
    stop = start + size
    while start < stop:
        try:
            copied = os.copy_file_range(source, target, stop - start, offset_src=start)
        except OSError:
            copied = 0
        copied = copied or _write_all(target, os.pread(source, min(_BLOCK, stop - start), start))
        if not copied:
            raise EOFError(f"the source ends {stop - start} bytes early; it was changed while it was read")
        start += copied


def _write_all(target: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return len(data)


def share(source: Path, target: Path) -> None:
    """Make `target` the same bytes without storing them twice: a reflink, else a hard link, else a copy.

    Nothing happens when it is the same file already. onnxruntime reads hard links (onnx's own loader does not), and
    neither follows a symbolic link out of the model's folder.
    """
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if not _reflink(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _reflink(source: Path, target: Path) -> bool:
    """Whether the file system could let the two share their blocks; no target is left when it could not."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
            return True
        except OSError:
            target.unlink()
            return False
