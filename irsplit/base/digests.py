"""SHA-256 of files, made in threads beside other work."""

import hashlib
import mmap
import os
import threading
from collections.abc import Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

THREADS = min(4, os.cpu_count() or 1)
"""As many as help: then the disk or the memory is busy."""

_BLOCK = 1 << 23
"""Large, because each block waits for Python's lock: passes that hold it would slow small ones down."""

Content = Path | memoryview
"""A file, or the bytes of one that is mapped."""


class Digests:
    """Digests of contents that do not change meanwhile; a file is read once, however many links to it there are.

    A context: leaving it early, with an error, ends the work.
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
        """Begin with these; whoever asks for their digests later may not have to wait."""
        for content in contents:
            self._begin(content)

    def of(self, contents: Iterable[Content]) -> list[str]:
        """The digests of these, in hexadecimal. Raises OSError for a file that cannot be read."""
        return [each.result() for each in [self._begin(content) for content in contents]]

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
