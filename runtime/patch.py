"""A new build of a bundle out of an old one and a patch (`irsplit.delta` writes them).

    magic "IRSP", version, 3 zeros, SHA-256 of all that follows, size of the header (u32), header (JSON, zstandard),
    streams

The header names the old and the new build, files that are copied, and for every other file its weights, equal or coded
against the old ones, and the stream that holds the rest, compressed with the old rest as dictionary. Other streams hold
the byte planes of all weights of one width. The digests of the new manifest verify everything.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from irsplit.errors import BundleError
from irsplit.progress import Progress, Steps, silent
from irsplit.runtime.folders import MANIFEST, make_durable, make_durable_name, new_folder
from irsplit.runtime.manifest import Manifest, file_digest

HEAD = struct.Struct("<4sB3x32s")
SIZE = struct.Struct("<I")
MAGIC = b"IRSP"
VERSION = 1
_LARGEST_FILE = 1 << 34

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Change:
    """One weight of the new file: equal to the old one, or coded against it."""

    old: int
    new: int
    length: int
    width: int
    coding: str
    """"same", "xor", "integers" or "floats"."""


def apply_delta(old: Path | None, patch: Path, new: Path, *, progress: Progress = silent) -> Manifest:
    """As `apply_bytes`, for a patch in a file."""
    try:
        data = patch.read_bytes()
    except OSError as error:
        raise BundleError(f"{patch}: {error.strerror}") from error
    return apply_bytes(old, data, str(patch), new, progress=progress)


def apply_bytes(old: Path | None, data: bytes, patch: str, new: Path, *, progress: Progress = silent) -> Manifest:
    """Make bundle `new` of bundle `old` and a patch; it appears whole or not at all, even when the power fails.

    `patch` is what errors call it. A patch that holds the whole build needs no old one. Raises BundleError when it is
    damaged or for another build, or a result does not have its digest.
    """
    header, streams = _open_patch(data, patch)
    before = Manifest.load(old) if old is not None and header["old"] else None
    mine = "" if before is None else before.digest
    if header["old"] != mine:
        raise BundleError(
            f"{patch}: is for build {header['old'][:16]}, {old} is {mine[:16] or 'none'}; get another patch"
        )
    try:
        with new_folder(new) as build:
            _rebuild(before, header, streams, build, progress)
            make_durable(build)
        make_durable_name(new)
    except (KeyError, TypeError, ValueError, IndexError, zstandard.ZstdError) as error:
        raise BundleError(f"{patch}: impossible contents ({error}); get it again") from error
    return Manifest.load(new)


def _open_patch(data: bytes, patch: str) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Header and streams of a patch. Raises BundleError for what is none, or damaged."""
    if len(data) < HEAD.size + SIZE.size or not data.startswith(MAGIC):
        raise BundleError(f"{patch}: is no patch; make one with 'irsplit delta'")
    _, version, digest = HEAD.unpack_from(data)
    body = data[HEAD.size :]
    if version != VERSION:
        raise BundleError(f"{patch}: version {version}, this release reads {VERSION}; update irsplit")
    if hashlib.sha256(body).digest() != digest:
        raise BundleError(f"{patch}: damaged; get it again")
    (size,) = SIZE.unpack_from(body)
    header = json.loads(_expand(body[SIZE.size : SIZE.size + size], b""))
    streams: list[tuple[str, bytes]] = []
    offset = SIZE.size + size
    for name, length in header["streams"]:
        streams.append((name, body[offset : offset + length]))
        offset += length
    return header, streams


def _rebuild(
    before: Manifest | None,
    header: dict[str, Any],
    streams: Sequence[tuple[str, bytes]],
    build: Path,
    progress: Progress,
) -> None:
    manifest = _expand(streams[header["manifest"]][1], _old_bytes(before, MANIFEST))
    if hashlib.sha256(manifest).hexdigest() != header["manifest_sha256"]:
        raise BundleError("the patch gives another manifest than it was made for; get it again")
    expected = json.loads(manifest)["files"]
    reader = _Reader(streams)
    contents: dict[str, Callable[[], bytes]] = {
        name: lambda name=name: _old_bytes(before, name) for name in header["copied"]
    }
    for entry in header["files"]:
        contents[entry["name"]] = lambda entry=entry: reader.file(before, entry)
    steps = Steps(progress, len(contents))
    for name, content in contents.items():
        steps.begin(name)
        path = build / name
        if name not in expected or not path.resolve().is_relative_to(build.resolve()):
            raise BundleError(f"the patch has a file '{name}' that its manifest does not know")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content())
        if file_digest(path) != expected[name]:
            raise BundleError(
                f"{name}: differs from what the patch was made for; check the old bundle, get the patch again"
            )
    (build / MANIFEST).write_bytes(manifest)


def _old_bytes(before: Manifest | None, name: str) -> bytes:
    return b"" if before is None or not name else before.path(name).read_bytes()


def restored(change: Change, old: Bytes, planes: Bytes) -> bytes:
    """The inverse of `_planes`."""
    before = cut(old, change.old, change.length)
    if change.coding == "same":
        return before.tobytes()
    kind = np.dtype(f"<u{change.width}")
    a = np.frombuffer(before.tobytes(), kind)
    coded = np.frombuffer(np.ascontiguousarray(planes.T).tobytes(), kind)
    if change.coding == "xor":
        return (a ^ coded).tobytes()
    one = np.array(1, kind)
    d = (coded >> one) ^ (np.array(0, kind) - (coded & one))
    if change.coding == "floats":
        return ordered(ordered(a) + d, backwards=True).astype(kind).tobytes()
    return (a + d).astype(kind).tobytes()


def cut(data: Bytes, offset: int, length: int) -> Bytes:
    if offset < 0 or length < 0 or offset + length > data.size:
        raise ValueError(f"{length} bytes at {offset} of {data.size}")
    return data[offset : offset + length]


def unchanged_bytes(data: Bytes, spans: Sequence[tuple[int, int]]) -> Bytes:
    """The bytes outside of all spans (offset, length), in order."""
    keep = np.ones(data.size, np.bool_)
    for offset, length in spans:
        keep[offset : offset + length] = False
    return data[keep]


def ordered(bits: NDArray[Any], backwards: bool = False) -> NDArray[Any]:
    """Bit patterns of floats as integers in the order of the floats, and back."""
    top = np.array(1, bits.dtype) << np.array(8 * bits.itemsize - 1, bits.dtype)
    negative = bits < top if backwards else bits >= top
    return np.where(negative, ~bits, bits ^ top)


class _Reader:
    """Takes planes off the streams in the order in which they were added."""

    def __init__(self, streams: Sequence[tuple[str, bytes]]) -> None:
        self._streams = streams
        self._planes = {name: np.frombuffer(_expand(data, b""), np.uint8) for name, data in streams if name}
        self._taken: dict[str, int] = {}

    def file(self, before: Manifest | None, entry: dict[str, Any]) -> bytes:
        old = np.frombuffer(_old_bytes(before, entry["base"]), np.uint8)
        changes = [Change(*row) for row in entry["changes"]]
        if not 0 <= entry["size"] <= _LARGEST_FILE or any(change.width not in (1, 2, 4, 8) for change in changes):
            raise ValueError("a size or width that no file has")
        known = unchanged_bytes(old, [(change.old, change.length) for change in changes]).tobytes()
        rest = np.frombuffer(_expand(self._streams[entry["rest"]][1], known), np.uint8)
        new = np.empty(rest.size + sum(change.length for change in changes), np.uint8)
        if new.size != entry["size"]:
            raise ValueError("weights and other bytes do not add up to the file")
        keep = np.ones(new.size, np.bool_)
        for change in changes:
            planes = self._take(change)
            cut(new, change.new, change.length)[:] = np.frombuffer(restored(change, old, planes), np.uint8)
            keep[change.new : change.new + change.length] = False
        new[keep] = rest
        return new.tobytes()

    def _take(self, change: Change) -> Bytes:
        count = 0 if change.coding == "same" else change.length // change.width
        planes = np.empty((change.width, count), np.uint8)
        for index in range(change.width if count else 0):
            name = f"{change.width}.{index}"
            start = self._taken.get(name, 0)
            planes[index] = cut(self._planes[name], start, count)
            self._taken[name] = start + count
        return planes


def _expand(data: bytes, dictionary: bytes) -> bytes:
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    if zstandard.get_frame_parameters(data).content_size > _LARGEST_FILE:
        raise ValueError("a stream that expands beyond every file")
    return zstandard.ZstdDecompressor(dict_data=known, max_window_size=1 << 27).decompress(data)
