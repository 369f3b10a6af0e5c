"""Patches for devices: from the build that one has to the latest that the server has, made when first asked for."""

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
"""Old bundle (None: nothing), new bundle, patch to write, place."""

_KEY_LENGTH = 32
"""Of what names a patch: its file, and the tag by which a device knows it again."""

PLACES = ("device", "server")


class PatchMaker:
    """`make` runs on a thread of its own, one patch at a time; patches are kept in a temporary folder until `close`."""

    def __init__(self, service: Service, make: MakePatch) -> None:
        self._service = service
        self._make = make
        self._folder = tempfile.TemporaryDirectory(prefix="irsplit-patches-")
        self._thread = ThreadPoolExecutor(1, "irsplit-patches")
        self._patches: dict[str, asyncio.Future[Path]] = {}

    async def patch(self, name: str, digest: str, place: str) -> Path | None:
        """What makes the latest build of the one with this digest ("" or unknown here: of nothing); None when it is it.

        Raises ServiceError.
        """
        latest = self._service.find(name)
        if place and place not in PLACES:
            raise ServiceError(
                Code.INVALID, f"no place '{place}'; give device or server, or neither for both"
            )
        if digest == latest.manifest.digest:
            return None
        versions = self._service.bundles[name].values()
        old = next((bundle for bundle in versions if bundle.manifest.digest == digest), None)
        words = (name, "" if old is None else old.manifest.digest, latest.manifest.digest, place)
        key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:_KEY_LENGTH]
        if key not in self._patches:
            path = Path(self._folder.name) / key
            call = asyncio.get_running_loop().run_in_executor(
                self._thread, self._made, old, latest, path, place
            )
            self._patches[key] = call
        try:
            return await asyncio.shield(self._patches[key])
        except Exception as error:
            self._patches.pop(key, None)  # the next device may have more luck
            if not isinstance(error, IrsplitError):
                raise
            raise ServiceError(Code.NOT_FOUND, f"'{name}' cannot be handed out: {error}") from error

    def _made(self, old: ServedBundle | None, latest: ServedBundle, path: Path, place: str) -> Path:
        if old is not None:
            try:
                self._make(old.manifest.folder, latest.manifest.folder, path, place)
            except IrsplitError:
                pass  # of the old build, this server may have one side only
            else:
                return path
        self._make(None, latest.manifest.folder, path, place)
        return path

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._folder.cleanup()
