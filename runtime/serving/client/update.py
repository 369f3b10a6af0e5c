"""A device brings its bundle up to the build that a server has: `irsplit.runtime.update(url, bundle)`.

It asks with the digest of its build and gets nothing, a patch, or the whole build as a patch; in pieces, so that a link
that breaks costs no more than the piece under way. The new build takes the place of the old one in one step.
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
"""Of an answer: a piece, or what is wrong."""
_PIECE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_MOST_BAD_ANSWERS = 16
"""For one piece, after which the update ends: about a minute of pauses lies between them."""
_OUT_OF_RANGE = (400, 416)
_MOST_RESTARTS = 4
_LONGEST_TAG, _LONGEST_TEXT = 512, 300
_CONTENT_RANGE = re.compile(r"bytes (\d{1,12})-(\d{1,12})/(\d{1,12})", re.ASCII)

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
    public_key: Path | None = None,
    retrying: Retrying | None = None,
) -> Update:
    """Bring `bundle`, a folder or a packed side, up to the latest build of the server at `url` (http:// or https://).

    `name` is the bundle's name at the server, `place` the side to have: device, server or "" for both; by default what
    is there, and the device's where there is no bundle yet. A server that does not answer is asked again for
    `timeout_s`: a device's link may come back. `retrying` is told why, and for how many seconds more, once as long as
    the reason is the same. With `public_key`, a PEM file, only a build that the owner of that key has signed is taken
    (`irsplit delta --sign`); without, whoever answers at `url` says what this device runs. Raises DeadlineError,
    RemoteError or BundleError; the old build is then as it was.
    """
    if public_key is not None:
        load_public_key(public_key)  # a device without the key need not ask
    parts, folder = split_url(url), Path(bundle)
    if parts.scheme not in ("http", "https"):
        raise RemoteError(
            f"{url}: updates come over HTTP; give http://HOST:PORT or https://HOST:PORT"
        )
    if math.isnan(timeout_s):
        raise RemoteError(f"a timeout of {timeout_s}; give the seconds that the update may take")
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
    transport = HttpTransport(parts, Credentials(token, trusted, answer_bytes=_MOST_BYTES))
    download = _Download(
        transport, f"/v2/models/{quote(wanted, safe='')}/update?{query}", timeout_s, retrying
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent) as file:
            if not download.into(file, lambda: _room(folder.parent)):
                return Update(digest, digest, 0)
            received = file.tell()
            file.seek(0)
            old = folder if before is not None else None
            after = apply_patch(old, file, f"the patch of {url}", folder, public_key=public_key)
            return Update(digest, after.digest, received)
    except OSError as error:
        text = f"{folder}: cannot be written: {error.strerror or error}; give a place with room, that you may write"
        raise BundleError(text) from error
    finally:
        transport.close()


def _room(folder: Path) -> int:
    """Bytes that a patch may have there."""
    return min(shutil.disk_usage(folder).free, LARGEST_BUILD)


def _place(manifest: Manifest | None) -> str:
    """The side that is there, "" for both."""
    if manifest is None:
        return "device"
    there = {name.partition("/")[0] for name in manifest.files if manifest.store.holds(name)}
    return there.pop() if len(there) == 1 else ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a patch, and what says of which patch: its tag and its size."""

    tag: str
    total: int
    data: bytes


_NO_SUCH_PIECE = _Piece("", 0, b"")
"""The server's patch is shorter than what is here already: it is another one."""


class _BadAnswerError(Exception):
    """An answer that a sound server does not give: asked again, but not for long."""


class _Download:
    """A file in pieces; one that does not arrive is asked for again, until time is up.

    A link that is down is waited for. A server that answers what makes no sense is asked a few times and no more, and
    so is one that has another patch whenever it is asked.
    """

    def __init__(
        self, transport: HttpTransport, path: str, timeout_s: float, retrying: Retrying | None
    ) -> None:
        self._transport = transport
        self._path = path
        self._deadline = time.monotonic() + timeout_s
        self._retrying = retrying
        self._told = ""

    def into(self, file: IO[bytes], room: Callable[[], int]) -> bool:
        """Whether there was anything. Raises BundleError for a patch that is larger than `room` says there is."""
        tag, total, restarts = "", 1, 0
        while file.tell() < total:
            piece = self._piece(file.tell())
            if piece is None:
                return False
            if file.tell() and (piece.tag, piece.total) != (tag, total):
                # Another build came while this one was under way.
                restarts += 1
                if restarts > _MOST_RESTARTS:
                    text = f"the server began another patch {restarts} times; try again, the old build is as it was"
                    raise RemoteError(text)
                self._pause(_FIRST_PAUSE_S * 2**restarts)
                file.seek(0)
                file.truncate()
                continue
            tag, total = piece.tag, piece.total
            if not file.tell() and total > room():
                raise BundleError(
                    f"the patch has {total} bytes and {room()} are free; make room for it"
                )
            file.write(piece.data)
        return True

    def _piece(self, start: int) -> _Piece | None:
        """The piece from `start` on; None when there is nothing to get."""
        pause, failure, bad = _FIRST_PAUSE_S, "no time", 0
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                text = f"the update did not arrive in time ({failure}); try again, the old build is as it was"
                raise DeadlineError(text)
            wanted = {"range": f"bytes={start}-{start + _PIECE_BYTES - 1}"}
            try:
                status, headers, body = self._transport.get(self._path, wanted, min(left, _PIECE_S))
                if status == 204:
                    return None
                if status == 206:
                    return _read_piece(start, headers, body)
                if status in _OUT_OF_RANGE and start:
                    return _NO_SUCH_PIECE
                if status not in (429, 503):
                    raise RemoteError(
                        f"the server hands out no update: {_printable(reason_of(body))}"
                    )
                failure = _printable(reason_of(body))
            except (TransportError, _BadAnswerError) as error:
                failure, bad = str(error), bad + _makes_no_sense(error)
                if bad >= _MOST_BAD_ANSWERS:
                    text = f"the server's answers make no sense ({failure}; {bad} of them); the old build is as it was"
                    raise RemoteError(text) from error
            self._tell(failure)
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _pause(self, pause_s: float) -> None:
        time.sleep(min(pause_s, max(self._deadline - time.monotonic(), 0)))

    def _tell(self, failure: str) -> None:
        if self._retrying is not None and failure != self._told:
            self._retrying(failure, max(self._deadline - time.monotonic(), 0))
            self._told = failure


def _read_piece(start: int, headers: Mapping[str, str], body: bytes) -> _Piece:
    """The piece that was asked for. Raises _BadAnswerError for anything else: a server may be broken, or hostile."""
    tag, place = headers.get("etag", ""), headers.get("content-range", "")
    if not piece_is_whole(headers, body):
        raise _BadAnswerError("a piece was damaged")
    match = _CONTENT_RANGE.fullmatch(place)
    if match is None or not tag or len(tag) > _LONGEST_TAG:
        raise _BadAnswerError(f"a piece without its place: content-range '{_printable(place)}'")
    first, last, total = (int(number) for number in match.groups())
    if (
        first != start
        or not first <= last < total
        or len(body) != last - first + 1
        or len(body) > _PIECE_BYTES
    ):
        raise _BadAnswerError(
            f"{len(body)} bytes as '{_printable(place)}' where bytes from {start} on were asked for"
        )
    return _Piece(tag, total, body)


def _makes_no_sense(error: TransportError | _BadAnswerError) -> bool:
    """Whether something came that no sound server sends, rather than nothing or half of an answer."""
    cause = error.__cause__
    if isinstance(error, _BadAnswerError):
        return True
    of_link = isinstance(cause, OSError | http.client.IncompleteRead)
    return isinstance(cause, http.client.HTTPException | ValueError) and not of_link


def _printable(text: str) -> str:
    """What a server said, short and without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:_LONGEST_TEXT])
