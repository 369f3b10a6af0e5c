"""SHA-256 digests of files, computed in threads while other work goes on."""

import hashlib
import mmap
import os
import threading
from collections.abc import Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

THREADS = min(4, os.cpu_count() or 1)
"""More would not help: the disk or the memory is busy then."""

_BLOCK = 1 << 23
"""Large, because a thread waits for Python's lock before each block."""

Content = Path | memoryview
"""A file, or the bytes of one that is mapped."""


class Digests:
    """Computes digests of contents that do not change in the meantime.

    A file is read once, however many links to it there are. It is a context manager; leaving it
    early, with an error, ends the work.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS)
        self._made: dict[Hashable, Future[str]] = {}
        self._stopped = threading.Event()

    def __enter__(self) -> "Digests":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown()

    def start(self, contents: Iterable[Content]) -> None:
        """Begin to compute digests that `of` will be asked for later."""
        for content in contents:
            self._begin(content)

    def of(self, contents: Iterable[Content]) -> list[str]:
        """The digests of some contents, in their order.

        Args:
            contents: Files, or bytes of mapped files.

        Returns:
            The digests as hexadecimal digits.

        Raises:
            OSError: A file cannot be read.
        """
        # All begin before the first is waited for.
        digests = [self._begin(content) for content in contents]
        return [digest.result() for digest in digests]

    def _begin(self, content: Content) -> Future[str]:
        if isinstance(content, memoryview):
            return self._pool.submit(self._digest_of_bytes, content)

        status = content.stat()
        file = status.st_dev, status.st_ino
        if file not in self._made:
            self._made[file] = self._pool.submit(self._digest_of_file, content)
        return self._made[file]

    def _digest_of_file(self, path: Path) -> str:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return hashlib.sha256().hexdigest()
            # Mapped: copying each block out of the page cache would cost a fifth more.
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as data,
            ):
                return self._digest_of_bytes(data)

    def _digest_of_bytes(self, data: memoryview) -> str:
        digest = hashlib.sha256()
        for start in range(0, len(data), _BLOCK):
            if self._stopped.is_set():
                break
            with data[start : start + _BLOCK] as block:
                digest.update(block)
        return digest.hexdigest()
