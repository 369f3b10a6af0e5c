"""The difference between two builds of a bundle as a patch, coded against the weights that the device already has.

Where the dialect finds weights of one name and size in both files, a patch holds nothing for equal ones. Changed ones
are coded as the exclusive or, or as the difference of their bit patterns in the order of the numbers they stand for,
byte plane by byte plane: training moves most weights by little, so that the upper planes are nearly constant. All other
bytes are compressed with their old counterparts as dictionary. The digests of the manifests verify everything.

    magic "IRSP", version, 3 zeros, SHA-256 of all that follows, size of the header (u32), header (JSON, zstandard),
    streams
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

from irsplit.bundle import new_folder, write_file
from irsplit.dialects.registry import dialect_of
from irsplit.errors import BundleError, IrsplitError
from irsplit.ir import TensorType
from irsplit.progress import Progress, Steps, silent
from irsplit.runtime.manifest import MANIFEST, Manifest, file_digest

_HEAD = struct.Struct("<4sB3x32s")
_SIZE = struct.Struct("<I")
_MAGIC = b"IRSP"
_VERSION = 1
_LEVEL = 17
_LARGEST_FILE = 1 << 34

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Span:
    """A weight inside of a file."""

    name: str
    offset: int
    length: int
    width: int
    """Bytes of an element; 1 where its bits mean nothing to us."""
    is_float: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One weight of the new file: equal to the old one, or coded against it."""

    old: int
    new: int
    length: int
    width: int
    coding: str
    """"same", "xor", "integers" or "floats"."""


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """What a patch costs: bytes of the new build's files, and of the patch."""

    files: int
    unchanged_files: int
    new_bytes: int
    patch_bytes: int


def write_delta(old: Path, new: Path, patch: Path, place: str = "", *, progress: Progress = silent) -> DeltaReport:
    """Write the patch that makes bundle `new` of bundle `old`; with `place`, only that side's files.

    Raises BundleError for what is no bundle, or not whole.
    """
    before, after = Manifest.load(old), Manifest.load(new)
    before.check_files()
    after.check_files()
    names = [name for name in after.files if name.startswith(f"{place}/" if place else "")]
    if not names:
        raise BundleError(f"{new}: has no files of place '{place}'; give device or server")
    streams = _Streams()
    steps = Steps(progress, len(names) + 1)
    entries: list[dict[str, Any] | None] = []
    for name in names:
        steps.begin(name)
        entries.append(_entry(before, after, name, streams))
    steps.begin("compressing")
    manifest = after.path(MANIFEST).read_bytes()
    manifest_stream = streams.add_against(manifest, before.path(MANIFEST).read_bytes())
    copied = [name for name, entry in zip(names, entries, strict=True) if entry is None]
    parts = streams.parts()
    header = {
        "old": before.digest,
        "new": after.digest,
        "files": [entry for entry in entries if entry is not None],
        "copied": copied,
        "manifest": manifest_stream,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "streams": [[name, len(part)] for name, part in parts],
    }
    packed = zstandard.ZstdCompressor(_LEVEL).compress(json.dumps(header).encode())
    body = b"".join([_SIZE.pack(len(packed)), packed, *(part for _, part in parts)])
    data = _HEAD.pack(_MAGIC, _VERSION, hashlib.sha256(body).digest()) + body
    write_file(patch, lambda file: file.write(data))
    sizes = [after.path(name).stat().st_size for name in names]
    return DeltaReport(len(names), len(copied), sum(sizes) + len(manifest), len(data))


def apply_delta(old: Path, patch: Path, new: Path, *, progress: Progress = silent) -> Manifest:
    """Make bundle `new` of bundle `old` and a patch; it appears whole or not at all, whatever happens.

    Raises BundleError when the patch is damaged or for another build, or a result does not have its digest.
    """
    before = Manifest.load(old)
    header, streams = _open_patch(patch)
    if header["old"] != before.digest:
        raise BundleError(
            f"{patch}: is for build {header['old'][:16]}, {old} is {before.digest[:16]}; get another patch"
        )
    try:
        with new_folder(new) as build:
            _rebuild(before, header, streams, build, progress)
    except (KeyError, TypeError, ValueError, IndexError, zstandard.ZstdError) as error:
        raise BundleError(f"{patch}: impossible contents ({error}); get it again") from error
    return Manifest.load(new)


def _open_patch(patch: Path) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Header and streams of a patch. Raises BundleError for a file that is none, or damaged."""
    try:
        data = patch.read_bytes()
    except OSError as error:
        raise BundleError(f"{patch}: {error.strerror}") from error
    if len(data) < _HEAD.size + _SIZE.size or not data.startswith(_MAGIC):
        raise BundleError(f"{patch}: is no patch; make one with 'irsplit delta'")
    _, version, digest = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if version != _VERSION:
        raise BundleError(f"{patch}: version {version}, this release reads {_VERSION}; update irsplit")
    if hashlib.sha256(body).digest() != digest:
        raise BundleError(f"{patch}: damaged; get it again")
    (size,) = _SIZE.unpack_from(body)
    header = json.loads(_expand(body[_SIZE.size : _SIZE.size + size], b""))
    streams: list[tuple[str, bytes]] = []
    offset = _SIZE.size + size
    for name, length in header["streams"]:
        streams.append((name, body[offset : offset + length]))
        offset += length
    return header, streams


def _rebuild(
    before: Manifest,
    header: dict[str, Any],
    streams: Sequence[tuple[str, bytes]],
    build: Path,
    progress: Progress,
) -> None:
    manifest = _expand(streams[header["manifest"]][1], before.path(MANIFEST).read_bytes())
    if hashlib.sha256(manifest).hexdigest() != header["manifest_sha256"]:
        raise BundleError("the patch gives another manifest than it was made for; get it again")
    expected = json.loads(manifest)["files"]
    reader = _Reader(streams)
    contents: dict[str, Callable[[], bytes]] = {
        name: lambda name=name: before.path(name).read_bytes() for name in header["copied"]
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


def _entry(before: Manifest, after: Manifest, name: str, streams: "_Streams") -> dict[str, Any] | None:
    """What the patch says of one file; None when the old bundle has it as it is."""
    if before.files.get(name) == after.files[name]:
        return None
    new = np.fromfile(after.path(name), np.uint8)
    base = name if (before.folder / name).is_file() else ""
    old = np.fromfile(before.path(base), np.uint8) if base else np.empty(0, np.uint8)
    changes = _changes(_spans(before, base), _spans(after, name), old, new)
    for change in changes:
        streams.add_planes(_planes(change, old, new))
    left = streams.add_against(_rest(new, changes, "new").tobytes(), _rest(old, changes, "old").tobytes())
    rows = [[change.old, change.new, change.length, change.width, change.coding] for change in changes]
    return {"name": name, "base": base, "size": new.size, "changes": rows, "rest": left}


def _spans(manifest: Manifest, name: str) -> list[Span]:
    """The weights of a segment's file; none for other files, or when the dialect cannot read it."""
    files = {file for segment in manifest.segments for file in (segment.file, *segment.copies.values())}
    if name not in files:
        return []
    path = manifest.path(name)
    try:
        model = dialect_of(path).read(path)
    except IrsplitError:
        return []
    spans: list[Span] = []
    for value in (value for graph in model.graphs for value in graph.constants):
        constant = value.constant
        if constant is None or constant.encoding != "raw" or constant.buffer.path != path or not constant.length:
            continue
        storage = value.type.dtype.storage if isinstance(value.type, TensorType) else None
        width = 1 if storage is None or storage.itemsize not in (2, 4, 8) else storage.itemsize
        is_float = storage is not None and storage.kind == "f"
        spans.append(Span(value.name, constant.offset, constant.length, width, is_float))
    return spans


def _changes(old: Sequence[Span], new: Sequence[Span], old_data: Bytes, new_data: Bytes) -> list[Change]:
    """The weights that both have, by place in the new file, none inside of another."""
    known = {(span.name, span.length): span for span in old}
    changes: list[Change] = []
    end = 0
    for span in sorted(new, key=lambda span: span.offset):
        base = known.get((span.name, span.length))
        if base is None or span.offset < end or span.length % span.width:
            continue
        end = span.offset + span.length
        change = Change(base.offset, span.offset, span.length, span.width, "same")
        before, after = _cut(old_data, base.offset, span.length), _cut(new_data, span.offset, span.length)
        if not np.array_equal(before, after):
            codings = ("xor", "floats" if span.is_float else "integers")
            tried = [Change(base.offset, span.offset, span.length, span.width, coding) for coding in codings]
            change = min(tried, key=lambda change: _entropy(_planes(change, old_data, new_data)))
        changes.append(change)
    return changes


def _cut(data: Bytes, offset: int, length: int) -> Bytes:
    if offset < 0 or length < 0 or offset + length > data.size:
        raise ValueError(f"{length} bytes at {offset} of {data.size}")
    return data[offset : offset + length]


def _rest(data: Bytes, changes: Sequence[Change], side: str) -> Bytes:
    """The bytes that belong to no change, in order."""
    keep = np.ones(data.size, np.bool_)
    for change in changes:
        offset = change.new if side == "new" else change.old
        keep[offset : offset + change.length] = False
    return data[keep]


def _ordered(bits: NDArray[Any], backwards: bool = False) -> NDArray[Any]:
    """Bit patterns of floats as integers in the order of the floats, and back."""
    top = np.array(1, bits.dtype) << np.array(8 * bits.itemsize - 1, bits.dtype)
    negative = bits < top if backwards else bits >= top
    return np.where(negative, ~bits, bits ^ top)


def _planes(change: Change, old: Bytes, new: Bytes) -> Bytes:
    """[width, elements]: the new weight against the old one, lowest byte first; nothing for equal ones."""
    if change.coding == "same":
        return np.empty((change.width, 0), np.uint8)
    kind = np.dtype(f"<u{change.width}")
    before, after = (
        _cut(data, at, change.length).view(np.uint8) for data, at in ((old, change.old), (new, change.new))
    )
    a, b = np.frombuffer(before.tobytes(), kind), np.frombuffer(after.tobytes(), kind)
    if change.coding == "xor":
        coded = a ^ b
    else:
        a, b = (_ordered(a), _ordered(b)) if change.coding == "floats" else (a, b)
        d = b - a
        coded = (d << np.array(1, kind)) ^ (np.array(0, kind) - (d >> np.array(8 * change.width - 1, kind)))
    return np.ascontiguousarray(coded.astype(kind).view(np.uint8).reshape(-1, change.width).T)


def _restored(change: Change, old: Bytes, planes: Bytes) -> bytes:
    """The inverse of `_planes`."""
    before = _cut(old, change.old, change.length)
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
        return _ordered(_ordered(a) + d, backwards=True).astype(kind).tobytes()
    return (a + d).astype(kind).tobytes()


def _entropy(planes: Bytes) -> float:
    """Bits that an ideal coder without memory needs."""
    bits = 0.0
    for plane in planes:
        counts = np.bincount(plane, minlength=256)
        counts = counts[counts > 0]
        bits -= float((counts * np.log2(counts / plane.size)).sum())
    return bits


class _Streams:
    """What a patch carries beside its header: byte planes gathered by (width, plane), and compressed rests."""

    def __init__(self) -> None:
        self._planes: dict[str, list[bytes]] = {}
        self._rests: list[bytes] = []

    def add_planes(self, planes: Bytes) -> None:
        for index, plane in enumerate(planes):
            self._planes.setdefault(f"{len(planes)}.{index}", []).append(plane.tobytes())

    def add_against(self, data: bytes, dictionary: bytes) -> int:
        """Index of the stream that holds `data`."""
        self._rests.append(compress_against(data, dictionary))
        return len(self._rests) - 1

    def parts(self) -> list[tuple[str, bytes]]:
        """Every stream with its name, in order; rests have none."""
        compressor = zstandard.ZstdCompressor(_LEVEL)
        planes = [(name, compressor.compress(b"".join(parts))) for name, parts in sorted(self._planes.items())]
        return [("", rest) for rest in self._rests] + planes


class _Reader:
    """Takes planes off the streams in the order in which they were added."""

    def __init__(self, streams: Sequence[tuple[str, bytes]]) -> None:
        self._streams = streams
        self._planes = {name: np.frombuffer(_expand(data, b""), np.uint8) for name, data in streams if name}
        self._taken: dict[str, int] = {}

    def file(self, before: Manifest, entry: dict[str, Any]) -> bytes:
        base = entry["base"]
        old = np.fromfile(before.path(base), np.uint8) if base else np.empty(0, np.uint8)
        changes = [Change(*row) for row in entry["changes"]]
        if not 0 <= entry["size"] <= _LARGEST_FILE or any(change.width not in (1, 2, 4, 8) for change in changes):
            raise ValueError("a size or width that no file has")
        rest = np.frombuffer(_expand(self._streams[entry["rest"]][1], _rest(old, changes, "old").tobytes()), np.uint8)
        new = np.empty(rest.size + sum(change.length for change in changes), np.uint8)
        if new.size != entry["size"]:
            raise ValueError("weights and other bytes do not add up to the file")
        keep = np.ones(new.size, np.bool_)
        for change in changes:
            planes = self._take(change)
            _cut(new, change.new, change.length)[:] = np.frombuffer(_restored(change, old, planes), np.uint8)
            keep[change.new : change.new + change.length] = False
        new[keep] = rest
        return new.tobytes()

    def _take(self, change: Change) -> Bytes:
        count = 0 if change.coding == "same" else change.length // change.width
        planes = np.empty((change.width, count), np.uint8)
        for index in range(change.width if count else 0):
            name = f"{change.width}.{index}"
            start = self._taken.get(name, 0)
            planes[index] = _cut(self._planes[name], start, count)
            self._taken[name] = start + count
        return planes


def compress_against(data: bytes, dictionary: bytes) -> bytes:
    """zstandard with `dictionary` as what came before, as `zstd --patch-from` does."""
    window = max(10, min(27, (len(data) + len(dictionary)).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=window, enable_ldm=True)
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=known).compress(data)


def _expand(data: bytes, dictionary: bytes) -> bytes:
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    if zstandard.get_frame_parameters(data).content_size > _LARGEST_FILE:
        raise ValueError("a stream that expands beyond every file")
    return zstandard.ZstdDecompressor(dict_data=known, max_window_size=1 << 27).decompress(data)
