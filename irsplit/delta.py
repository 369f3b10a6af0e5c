"""The difference between two builds of a bundle as a patch, coded against the weights that the device already has.

Where the dialect finds weights of one name and size in both files, a patch holds nothing for equal ones. Changed ones
are coded as the exclusive or, or as the difference of their bit patterns in the order of the numbers they stand for,
byte plane by byte plane: training moves most weights by little, so that the upper planes are nearly constant. All other
bytes are compressed with their old counterparts as dictionary. `irsplit.runtime.patch` reads and applies it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from irsplit.dialects.registry import dialect_of
from irsplit.errors import BundleError, IrsplitError
from irsplit.ir import TensorType
from irsplit.progress import Progress, Steps, silent
from irsplit.runtime.folders import MANIFEST, write_file
from irsplit.runtime.manifest import Manifest
from irsplit.runtime.patch import HEAD, MAGIC, SIZE, VERSION, Bytes, Change, cut, ordered, unchanged_bytes

_LEVEL = 17
_NONE = np.empty(0, np.uint8)


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
class DeltaReport:
    """What a patch costs: bytes of the new build's files, and of the patch."""

    files: int
    unchanged_files: int
    new_bytes: int
    patch_bytes: int


def write_delta(
    old: Path | None, new: Path, patch: Path, place: str = "", *, progress: Progress = silent
) -> DeltaReport:
    """Write the patch that makes bundle `new` of bundle `old`, or of nothing; with `place`, only that side's files.

    Raises BundleError for what is no bundle, or not whole.
    """
    before, after = None if old is None else Manifest.load(old), Manifest.load(new)
    for manifest in filter(None, (before, after)):
        manifest.check_files()
    names = [name for name in after.files if name.startswith(f"{place}/" if place else "")]
    if not names:
        raise BundleError(f"{new}: has no files of place '{place}'; give device or server")
    entries = _Entries(before, after)
    steps = Steps(progress, len(names) + 1)
    for name in names:
        steps.begin(name)
        entries.add(name)
    steps.begin("compressing")
    data = _packed(entries)
    write_file(patch, lambda file: file.write(data))
    sizes = [after.path(name).stat().st_size for name in (*names, MANIFEST)]
    return DeltaReport(len(names), len(entries.copied), sum(sizes), len(data))


def _packed(entries: "_Entries") -> bytes:
    manifest = entries.after.path(MANIFEST).read_bytes()
    known = b"" if entries.before is None else entries.before.path(MANIFEST).read_bytes()
    manifest_stream = entries.streams.add_against(manifest, known)
    parts = entries.streams.parts()
    header = {
        "old": "" if entries.before is None else entries.before.digest,
        "new": entries.after.digest,
        "files": entries.changed,
        "copied": entries.copied,
        "manifest": manifest_stream,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "streams": [[name, len(part)] for name, part in parts],
    }
    packed = zstandard.ZstdCompressor(_LEVEL).compress(json.dumps(header).encode())
    body = b"".join([SIZE.pack(len(packed)), packed, *(part for _, part in parts)])
    return HEAD.pack(MAGIC, VERSION, hashlib.sha256(body).digest()) + body


class _Entries:
    """What a patch says of every file, and the streams that it points to."""

    def __init__(self, before: Manifest | None, after: Manifest) -> None:
        self.before = before
        self.after = after
        self.streams = _Streams()
        self.changed: list[dict[str, Any]] = []
        self.copied: list[str] = []
        """Files that the old bundle has as they are."""
        self._old_weights = {} if before is None else _weights(before)
        self._new_weights = _weights(after)

    def add(self, name: str) -> None:
        if self.before is not None and self.before.files.get(name) == self.after.files[name]:
            self.copied.append(name)
            return
        new = np.fromfile(self.after.path(name), np.uint8)
        base = name if self.before is not None and (self.before.folder / name).is_file() else ""
        old = _NONE if self.before is None or not base else np.fromfile(self.before.path(base), np.uint8)
        changes = _changes(self._old_weights.get(base, ()), self._new_weights.get(name, ()), old, new)
        for change in changes:
            self.streams.add_planes(_planes(change, old, new))
        rest = unchanged_bytes(new, [(change.new, change.length) for change in changes])
        known = unchanged_bytes(old, [(change.old, change.length) for change in changes])
        stream = self.streams.add_against(rest.tobytes(), known.tobytes())
        rows = [[change.old, change.new, change.length, change.width, change.coding] for change in changes]
        self.changed.append({"name": name, "base": base, "size": new.size, "changes": rows, "rest": stream})


def _weights(manifest: Manifest) -> Mapping[str, list[Span]]:
    """The weights of every file of a bundle, data files beside a model too; none of what the dialect cannot read."""
    found: dict[str, list[Span]] = {}
    files = {file for segment in manifest.segments for file in (segment.file, *segment.copies.values())}
    for path in (manifest.folder / file for file in sorted(files)):
        try:
            model = dialect_of(path).read(path)
        except IrsplitError:
            continue
        for value in (value for graph in model.graphs for value in graph.constants):
            constant = value.constant
            if constant is None or constant.encoding != "raw" or constant.buffer.path is None or not constant.length:
                continue
            storage = value.type.dtype.storage if isinstance(value.type, TensorType) else None
            width = 1 if storage is None or storage.itemsize not in (2, 4, 8) else storage.itemsize
            span = Span(
                value.name,
                constant.offset,
                constant.length,
                width,
                storage is not None and storage.kind == "f",
            )
            name = Path(constant.buffer.path).resolve().relative_to(manifest.folder.resolve()).as_posix()
            found.setdefault(name, []).append(span)
    return found


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
        before, after = cut(old_data, base.offset, span.length), cut(new_data, span.offset, span.length)
        if not np.array_equal(before, after):
            codings = ("xor", "floats" if span.is_float else "integers")
            tried = [Change(base.offset, span.offset, span.length, span.width, coding) for coding in codings]
            change = min(tried, key=lambda change: _entropy(_planes(change, old_data, new_data)))
        changes.append(change)
    return changes


def _planes(change: Change, old: Bytes, new: Bytes) -> Bytes:
    """[width, elements]: the new weight against the old one, lowest byte first; nothing for equal ones."""
    if change.coding == "same":
        return np.empty((change.width, 0), np.uint8)
    kind = np.dtype(f"<u{change.width}")
    before, after = (cut(data, at, change.length).view(np.uint8) for data, at in ((old, change.old), (new, change.new)))
    a, b = np.frombuffer(before.tobytes(), kind), np.frombuffer(after.tobytes(), kind)
    if change.coding == "xor":
        coded = a ^ b
    else:
        a, b = (ordered(a), ordered(b)) if change.coding == "floats" else (a, b)
        d = b - a
        coded = (d << np.array(1, kind)) ^ (np.array(0, kind) - (d >> np.array(8 * change.width - 1, kind)))
    return np.ascontiguousarray(coded.astype(kind).view(np.uint8).reshape(-1, change.width).T)


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


def compress_against(data: bytes, dictionary: bytes) -> bytes:
    """zstandard with `dictionary` as what came before, as `zstd --patch-from` does."""
    window = max(10, min(27, (len(data) + len(dictionary)).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=window, enable_ldm=True)
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=known).compress(data)
