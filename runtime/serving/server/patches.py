"""Patches for devices, made when they are first asked for.

A patch leads from the build that a device has to the latest one that the server has.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from irsplit.base.errors import IrsplitError
from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.service import Service

MakePatch = Callable[[Path | None, Path, Path, str], object]
"""Takes the old bundle (None for none), the new bundle, the patch to write, and the placement."""

_KEY_LENGTH = 32
"""Letters of a patch's key: the name of its file, and the tag by which a device knows it again."""

PLACEMENTS = ("device", "server")


class PatchMaker:
    """Makes patches on a thread of its own, one at a time, and keeps them until `close`.

    Args:
        service: The bundles.
        make: Writes one patch.
    """

    def __init__(self, service: Service, make: MakePatch) -> None:
        self._service = service
        self._make = make
        self._folder = tempfile.TemporaryDirectory(prefix="irsplit-patches-")
        self._thread = ThreadPoolExecutor(1, "irsplit-patches")
        self._patches: dict[str, asyncio.Future[Path]] = {}

    async def patch(self, name: str, digest: str, placement: str) -> Path | None:
        """The patch that makes the latest build of a bundle.

        Args:
            name: Name of the bundle.
            digest: Digest of the build that the device has. With "", or one that this server does
                not have, the patch starts from nothing.
            placement: The side to patch; "" for both.

        Returns:
            The file of the patch, or None if the device has the latest build.

        Raises:
            ServiceError: The bundle or placement is unknown, or no patch can be made.
        """
        latest = self._service.find(name)
        if placement and placement not in PLACEMENTS:
            raise ServiceError(
                Code.INVALID,
                f"no place '{placement}'; give device or server, or neither for both",
            )
        if digest == latest.manifest.digest:
            return None

        versions = self._service.bundles[name].values()
        old = next((bundle for bundle in versions if bundle.manifest.digest == digest), None)
        old_digest = "" if old is None else old.manifest.digest
        words = (name, old_digest, latest.manifest.digest, placement)
        key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:_KEY_LENGTH]
        if key not in self._patches:
            path = Path(self._folder.name) / key
            self._patches[key] = asyncio.get_running_loop().run_in_executor(
                self._thread, self._write, old, latest, path, placement
            )

        try:
            # A device that goes away must not cancel the patch for the others that wait for it.
            return await asyncio.shield(self._patches[key])
        except Exception as error:
            self._patches.pop(key, None)  # the next request tries again
            if not isinstance(error, IrsplitError):
                raise

            raise ServiceError(Code.NOT_FOUND, f"'{name}' cannot be handed out: {error}") from error

    def _write(
        self, old: ServedBundle | None, latest: ServedBundle, path: Path, placement: str
    ) -> Path:
        """Write a patch from the old build, or from nothing where that is impossible."""
        if old is not None:
            try:
                self._make(old.manifest.folder, latest.manifest.folder, path, placement)
            except IrsplitError:
                pass  # this server may have one side only of the old build
            else:
                return path

        self._make(None, latest.manifest.folder, path, placement)
        return path

    def close(self) -> None:
        """Stop the thread and remove all patches."""
        self._thread.shutdown(cancel_futures=True)
        self._folder.cleanup()
