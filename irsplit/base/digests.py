"""SHA-256 of files, made in threads beside other work."""

import hashlib
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

THREADS = min(4, os.cpu_count() or 1)
"""As many as help: then the disk or the memory is busy."""
_BLOCK = 1 << 23
"""Large, because each block waits for Python's lock: passes that hold it would slow small ones down."""


class Digests:
    """Digests of files that do not change meanwhile, each read once, however many links to it there are.

    A context: leaving it early, with an error, ends the work.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS)
        self._made: dict[tuple[int, int], Future[str]] = {}
        self._stopped = threading.Event()

    def __enter__(self) -> "Digests":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown()

    def start(self, paths: Iterable[Path]) -> None:
        """Begin with these files; whoever asks for their digests later may not have to wait."""
        for path in paths:
            self._begin(path)

    def of(self, paths: Iterable[Path]) -> list[str]:
        """The digests of these files, in hexadecimal."""
        return [each.result() for each in [self._begin(path) for path in paths]]

    def _begin(self, path: Path) -> Future[str]:
        status = path.stat()
        file = status.st_dev, status.st_ino
        if file not in self._made:
            self._made[file] = self._pool.submit(self._digest, path)
        return self._made[file]

    def _digest(self, path: Path) -> str:
        digest, block = (
            hashlib.sha256(),
            memoryview(bytearray(min(_BLOCK, path.stat().st_size + 1))),
        )
        with path.open("rb", buffering=0) as file:
            while (count := file.readinto(block)) and not self._stopped.is_set():
                digest.update(block[:count])
        return digest.hexdigest()
