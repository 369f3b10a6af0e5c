"""A device brings its bundle up to the build that a server has: `irsplit.runtime.update(url, bundle)`.

It asks with the digest of its build and gets nothing, a patch, or the whole build as a patch; in pieces, so that a link
that breaks costs no more than the piece under way. The new build takes the place of the old one in one step.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from irsplit.base.atomic_files import MANIFEST
from irsplit.base.errors import BundleError, DeadlineError, RemoteError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.patch import apply_patch
from irsplit.runtime.bundle.store import PACKED, is_packed
from irsplit.runtime.serving.client.transport import (
    Credentials,
    HttpTransport,
    TransportError,
    reason_of,
    split_url,
)
from irsplit.runtime.serving.protocol.checksum import PIECE_CHECKSUM, piece_checksum

_PIECE_BYTES = 256 << 10
_PIECE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

Retrying = Callable[[str, float], None]
"""Told why a piece did not come, and for how many seconds more it is asked for."""


@dataclass(frozen=True, slots=True)
class Update:
    """Digests of the builds before ("" for none) and after, equal when there was nothing to do, and bytes received."""

    old: str
    new: str
    received_bytes: int

    @property
    def changed(self) -> bool:
        return self.old != self.new


def update(
    url: str,
    bundle: Path | str,
    *,
    name: str = "",
    place: str | None = None,
    timeout_s: float = 600.0,
    token: str = "",
    trusted: Path | None = None,
    retrying: Retrying | None = None,
) -> Update:
    """Bring `bundle`, a folder or a packed side, up to the latest build of the server at `url` (http:// or https://).

    `name` is the bundle's name at the server, `place` the side to have: device, server or "" for both; by default what
    is there, and the device's where there is no bundle yet. A server that does not answer is asked again for
    `timeout_s`: a device's link may come back. `retrying` is told why, and for how many seconds more, once as long as
    the reason is the same. Raises DeadlineError, RemoteError or BundleError; the old build is then as it was.
    """
    parts, folder = split_url(url), Path(bundle)
    if parts.scheme not in ("http", "https"):
        raise RemoteError(
            f"{url}: updates come over HTTP; give http://HOST:PORT or https://HOST:PORT"
        )
    if folder.is_file() and not is_packed(folder):
        raise BundleError(
            f"{folder}: is neither the folder of a bundle nor a packed side ({PACKED})"
        )
    there = folder if is_packed(folder) else folder / MANIFEST
    before = Manifest.load(folder) if there.is_file() else None
    if before is None and not name:
        raise BundleError(f"{folder}: no bundle is there; give the name of the one at the server")
    digest = "" if before is None else before.digest
    wanted = name or (before.name if before is not None else "")
    query = f"have={digest}&place={_place(before) if place is None else place}"
    transport = HttpTransport(parts, Credentials(token, trusted))
    download = _Download(
        transport, f"/v2/models/{quote(wanted, safe='')}/update?{query}", timeout_s, retrying
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent) as file:
            if not download.into(file):
                return Update(digest, digest, 0)
            received = file.tell()
            file.seek(0)
            after = apply_patch(
                folder if before is not None else None, file, f"the patch of {url}", folder
            )
            return Update(digest, after.digest, received)
    except OSError as error:
        text = f"{folder}: cannot be written: {error.strerror or error}; give a place with room, that you may write"
        raise BundleError(text) from error
    finally:
        transport.close()


def _place(manifest: Manifest | None) -> str:
    """The side that is there, "" for both."""
    if manifest is None:
        return "device"
    there = {name.partition("/")[0] for name in manifest.files if manifest.store.holds(name)}
    return there.pop() if len(there) == 1 else ""


class _Download:
    """A file in pieces; one that does not arrive is asked for again, until time is up."""

    def __init__(
        self, transport: HttpTransport, path: str, timeout_s: float, retrying: Retrying | None
    ) -> None:
        self._transport = transport
        self._path = path
        self._deadline = time.monotonic() + timeout_s
        self._retrying = retrying
        self._told = ""

    def into(self, file: IO[bytes]) -> bool:
        """Whether there was anything."""
        tag, total = "", 1
        while file.tell() < total:
            start = file.tell()
            status, headers, piece = self._piece(start)
            if status == 204:
                return False
            if start and headers.get("etag", "") != tag:
                # Another build came while this one was under way.
                file.seek(0)
                file.truncate()
                continue
            tag, total = headers.get("etag", ""), int(headers["content-range"].rpartition("/")[2])
            file.write(piece)
        return True

    def _piece(self, start: int) -> tuple[int, dict[str, str], bytes]:
        pause, failure = _FIRST_PAUSE_S, "no time"
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                text = f"the update did not arrive in time ({failure}); try again, the old build is as it was"
                raise DeadlineError(text)
            wanted = {"range": f"bytes={start}-{start + _PIECE_BYTES - 1}"}
            try:
                status, headers, body = self._transport.get(self._path, wanted, min(left, _PIECE_S))
                if status == 204 or (
                    status == 206 and headers.get(PIECE_CHECKSUM) == piece_checksum(headers, body)
                ):
                    return status, headers, body
                if status not in (206, 429, 503):
                    raise RemoteError(f"the server hands out no update: {reason_of(body)}")
                failure = "a piece was damaged" if status == 206 else reason_of(body)
            except TransportError as error:
                failure = str(error)
            self._tell(failure)
            time.sleep(min(pause, max(self._deadline - time.monotonic(), 0)))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _tell(self, failure: str) -> None:
        if self._retrying is not None and failure != self._told:
            self._retrying(failure, max(self._deadline - time.monotonic(), 0))
            self._told = failure
