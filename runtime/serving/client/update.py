"""Bring the bundle of a device up to the build of a server: `irsplit.runtime.update(url, bundle)`.

The device asks with the digest of its build. It gets nothing, a patch, or the whole build as a
patch. The patch comes in pieces, so that a link that breaks costs no more than the piece under
way. The new build takes the place of the old one in one step.
"""

import http.client
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from irsplit.base.atomic_files import MANIFEST
from irsplit.base.errors import BundleError, DeadlineError, RemoteError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.patch import apply_patch
from irsplit.runtime.bundle.patch_format import LARGEST_BUILD
from irsplit.runtime.bundle.signature import load_public_key
from irsplit.runtime.bundle.store import PACKED, is_packed
from irsplit.runtime.serving.client.transport import (
    Credentials,
    HttpTransport,
    TransportError,
    reason_of,
    split_url,
)
from irsplit.runtime.serving.protocol.checksum import piece_is_whole

_PIECE_BYTES = 256 << 10
_MOST_BYTES = 1 << 20
"""The largest answer: a piece, or an error."""
_PIECE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_MOST_BAD_ANSWERS = 16
"""For one piece, after which the update ends; the pauses between them are about a minute."""
_OUT_OF_RANGE = (400, 416)
_MOST_RESTARTS = 4
_LONGEST_TAG, _LONGEST_TEXT = 512, 300
_CONTENT_RANGE = re.compile(r"bytes (\d{1,12})-(\d{1,12})/(\d{1,12})", re.ASCII)

Retrying = Callable[[str, float], None]
"""Takes why a piece did not come, and for how many seconds more it is asked for."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an update did.

    Attributes:
        old: Digest of the build before, "" if there was none.
        new: Digest of the build after; equal to `old` if there was nothing to do.
        received_bytes: Size of the patch.
    """

    old: str
    new: str
    received_bytes: int

    @property
    def changed(self) -> bool:
        """Whether there is a new build."""
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
    public_key: Path | None = None,
    retrying: Retrying | None = None,
) -> Update:
    """Bring a bundle up to the latest build of a server.

    Args:
        url: Address of the server, http:// or https://.
        bundle: The bundle's folder, or a packed side. It need not exist if `name` is given.
        name: The bundle's name at the server; by default, its own.
        place: The side to have: "device", "server", or "" for both. By default the side that is
            there, and the device side if there is no bundle yet.
        timeout_s: How long to ask a server that does not answer; a link may come back.
        token: The bearer token, empty for none.
        trusted: PEM file of certificates to trust; None for those of the system.
        public_key: PEM file. Only a build that the owner of this key has signed is accepted
            (`irsplit delta --sign`). Without a key, whoever answers at `url` decides what this
            device runs.
        retrying: Called when a piece does not come, once for as long as the reason stays the same.

    Returns:
        The builds before and after.

    Raises:
        DeadlineError: The time is up.
        RemoteError: The server has no update, or its answers make no sense.
        BundleError: The bundle or the patch is not valid, or cannot be written. Whatever is
            raised, the old build is as it was.

    Example:
        result = irsplit.runtime.update("http://server:8000", "build")
        result.changed
    """
    if public_key is not None:
        load_public_key(public_key)  # without a valid key, there is no need to ask
    if math.isnan(timeout_s):
        raise RemoteError(f"a timeout of {timeout_s}; give the seconds that the update may take")
    server = split_url(url)
    if server.scheme not in ("http", "https"):
        raise RemoteError(
            f"{url}: updates come over HTTP; give http://HOST:PORT or https://HOST:PORT"
        )

    folder = Path(bundle)
    before = _installed(folder)
    if before is None and not name:
        raise BundleError(f"{folder}: there is no bundle; give the name of the one at the server")
    digest = "" if before is None else before.digest
    side = _place(before) if place is None else place
    path = _path(name or ("" if before is None else before.name), digest, side)

    transport = HttpTransport(server, Credentials(token, trusted, answer_bytes=_MOST_BYTES))
    download = _Download(transport, path, timeout_s, retrying)
    # The patch is kept on the file system of the bundle, whose free room limits it.
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent) as file:
            if not download.into(file, lambda: _room(folder.parent)):
                return Update(digest, digest, 0)

            received_bytes = file.tell()
            file.seek(0)
            old = folder if before is not None else None
            after = apply_patch(old, file, f"the patch of {url}", folder, public_key=public_key)
            return Update(digest, after.digest, received_bytes)
    except OSError as error:
        raise BundleError(
            f"{folder}: cannot be written: {error.strerror or error}; give a place with room, "
            "that you may write"
        ) from error
    finally:
        transport.close()


def _installed(folder: Path) -> Manifest | None:
    """The manifest of the bundle that is there, None if there is none."""
    packed = is_packed(folder)
    if folder.is_file() and not packed:
        raise BundleError(
            f"{folder}: is neither the folder of a bundle nor a packed side ({PACKED})"
        )
    file = folder if packed else folder / MANIFEST
    return Manifest.load(folder) if file.is_file() else None


def _path(name: str, digest: str, side: str) -> str:
    return f"/v2/models/{quote(name, safe='')}/update?have={digest}&place={side}"


def _room(folder: Path) -> int:
    """The largest patch that fits, in bytes."""
    return min(shutil.disk_usage(folder).free, LARGEST_BUILD)


def _place(manifest: Manifest | None) -> str:
    """The side that is there, "" for both."""
    if manifest is None:
        return "device"
    sides = {name.partition("/")[0] for name in manifest.files if manifest.store.holds(name)}
    return sides.pop() if len(sides) == 1 else ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a patch; `tag` and `total`, the size of the whole patch, tell patches apart."""

    tag: str
    total: int
    data: bytes


_NO_SUCH_PIECE = _Piece("", 0, b"")
"""The server's patch is shorter than what was received already, so it is another patch."""


class _BadAnswerError(Exception):
    """An answer that no working server gives; it is asked again, but not for long."""


class _Download:
    """A file that arrives in pieces.

    A piece that does not arrive is asked for again until the time is up, so a link that is down is
    waited for. A server whose answers make no sense is asked only a few times, and so is one that
    has another patch each time.

    Args:
        transport: Sends requests.
        path: Path and query of the file.
        timeout_s: For the whole download.
        retrying: Called when a piece does not come.
    """

    def __init__(
        self, transport: HttpTransport, path: str, timeout_s: float, retrying: Retrying | None
    ) -> None:
        self._transport = transport
        self._path = path
        self._deadline = time.monotonic() + timeout_s
        self._retrying = retrying
        self._reported = ""

    def into(self, file: IO[bytes], room: Callable[[], int]) -> bool:
        """Write the whole file.

        Args:
            file: Empty, and opened for writing.
            room: Returns how many bytes are free.

        Returns:
            Whether the server had anything to send.

        Raises:
            BundleError: The patch is larger than the room.
            DeadlineError: The time is up.
            RemoteError: The server has no update, or its answers make no sense.
        """
        tag, total, restarts = "", 1, 0
        while file.tell() < total:
            piece = self._piece(file.tell())
            if piece is None:
                return False

            if file.tell() and (piece.tag, piece.total) != (tag, total):
                # The server got another build while this one was under way: begin again.
                restarts += 1
                self._restart(file, restarts)
                continue

            tag, total = piece.tag, piece.total
            if not file.tell() and total > room():
                raise BundleError(
                    f"the patch has {total} bytes and {room()} are free; make room for it"
                )
            file.write(piece.data)
        return True

    def _restart(self, file: IO[bytes], restarts: int) -> None:
        """Empty the file, after a pause. Raises RemoteError after too many restarts."""
        if restarts > _MOST_RESTARTS:
            raise RemoteError(
                f"the server began another patch {restarts} times; try again, "
                "the old build is as it was"
            )
        self._pause(_FIRST_PAUSE_S * 2**restarts)
        file.seek(0)
        file.truncate()

    def _piece(self, start: int) -> _Piece | None:
        """The piece from `start` on; None if there is nothing to get."""
        pause_s, failure, bad_answers = _FIRST_PAUSE_S, "no time", 0
        while True:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise DeadlineError(
                    f"the update did not arrive in time ({failure}); try again, "
                    "the old build is as it was"
                )

            try:
                answer = self._ask(start, min(left_s, _PIECE_S))
                if not isinstance(answer, str):
                    return answer
                failure = answer
            except (TransportError, _BadAnswerError) as error:
                failure = str(error)
                bad_answers += _makes_no_sense(error)
                if bad_answers >= _MOST_BAD_ANSWERS:
                    raise RemoteError(
                        f"the server's answers make no sense ({failure}; {bad_answers} of them); "
                        "the old build is as it was"
                    ) from error
            self._report(failure)
            self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _ask(self, start: int, timeout_s: float) -> _Piece | str | None:
        """Ask once for the piece from `start` on.

        Returns:
            The piece, None if there is nothing to get, or why to ask again.

        Raises:
            RemoteError: The server has no update.
            TransportError: There is no answer.
            _BadAnswerError: The answer makes no sense.
        """
        asked = {"range": f"bytes={start}-{start + _PIECE_BYTES - 1}"}
        status, headers, body = self._transport.get(self._path, asked, timeout_s)
        if status == 204:
            return None
        if status == 206:
            return _read_piece(start, headers, body)
        if status in _OUT_OF_RANGE and start:
            return _NO_SUCH_PIECE

        # A server that is busy or starting may have the patch later.
        reason = _printable(reason_of(body))
        if status in (429, 503):
            return reason
        raise RemoteError(f"the server hands out no update: {reason}")

    def _pause(self, pause_s: float) -> None:
        time.sleep(min(pause_s, max(self._deadline - time.monotonic(), 0)))

    def _report(self, failure: str) -> None:
        """Tell the caller why a piece did not come, unless it was the last to be told."""
        if self._retrying is not None and failure != self._reported:
            self._retrying(failure, max(self._deadline - time.monotonic(), 0))
            self._reported = failure


def _read_piece(start: int, headers: Mapping[str, str], body: bytes) -> _Piece:
    """Read the piece from `start` on. Raises _BadAnswerError if the answer is anything else."""
    tag, place = headers.get("etag", ""), headers.get("content-range", "")
    if not piece_is_whole(headers, body):
        raise _BadAnswerError("a piece was damaged")
    match = _CONTENT_RANGE.fullmatch(place)
    if match is None or not tag or len(tag) > _LONGEST_TAG:
        raise _BadAnswerError(f"a piece without its place: content-range '{_printable(place)}'")

    first, last, total = (int(number) for number in match.groups())
    is_asked_for = first == start and first <= last < total
    if not is_asked_for or len(body) != last - first + 1 or len(body) > _PIECE_BYTES:
        raise _BadAnswerError(
            f"{len(body)} bytes as '{_printable(place)}' where bytes from {start} on were asked for"
        )
    return _Piece(tag, total, body)


def _makes_no_sense(error: TransportError | _BadAnswerError) -> bool:
    """Whether the server sent nonsense, rather than nothing or half of an answer."""
    if isinstance(error, _BadAnswerError):
        return True
    cause = error.__cause__
    of_link = isinstance(cause, OSError | http.client.IncompleteRead)
    return isinstance(cause, http.client.HTTPException | ValueError) and not of_link


def _printable(text: str) -> str:
    """Text of a server, short and without control characters, fit for a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:_LONGEST_TEXT])
