"""The difference between two builds of a bundle as a patch, coded against the weights that the device already has.

Where the dialect finds weights of one name and size in both files, a patch holds nothing for equal ones. Changed ones
are coded as the exclusive or, or as the difference of their bit patterns in the order of the numbers they stand for,
byte plane by byte plane: training moves most weights by little, so that the upper planes are nearly constant. All other
bytes are compressed with their old counterparts as dictionary. Both sides agree on the format in
`irsplit.runtime.bundle.patch_format`; `irsplit.runtime.bundle.patch` applies it.
"""

import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from irsplit.base.atomic_files import MANIFEST, write_file
from irsplit.base.errors import BundleError, IrsplitError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.dialects.registry import dialect_of
from irsplit.ir import TensorType
from irsplit.runtime.bundle.manifest import Manifest, manifest_text
from irsplit.runtime.bundle.patch_format import (
    BLOCK,
    CHECKED_FROM,
    HEAD,
    KINDS,
    LARGEST_BUILD,
    LARGEST_FILE,
    LARGEST_HEADER,
    MAGIC,
    NAME_SIZE,
    PLANE_WINDOW_LOG,
    REST_BLOCK,
    SIGNED,
    VERSION,
    BytePlane,
    Bytes,
    Contents,
    OldRest,
    WeightSpan,
    coded,
    descriptor_of,
    dictionary,
    packed,
)
from irsplit.runtime.bundle.signature import SIGNATURE, SIGNATURE_SIZE, sign

_LEVEL = 17
_SMALL_BYTES = 64
"""Weights up to this size are no spans when they changed: describing one costs as much as it saves."""


@dataclass(frozen=True, slots=True)
class Weight:
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


def delta(
    old: Path | str | None,
    new: Path | str,
    patch: Path | str,
    place: str = "",
    *,
    sign_with: Path | str | None = None,
    progress: Progress = silent,
) -> DeltaReport:
    """Write the patch that makes one bundle of another, as `irsplit delta` does.

    Args:
        old: The bundle that devices have; None for a patch that needs none.
        new: The bundle that they shall have.
        patch: The file to write.
        place: "device" or "server", for a patch with only the files of this side.
        sign_with: An Ed25519 private key (PEM). The new bundle is signed: the signature goes into
            manifest.sig beside its manifest, and every patch to this build carries it.
        progress: Called before every file.

    Returns:
        What the patch costs.

    Raises:
        BundleError: A folder is no bundle or not whole, or the file is no such key.
    """
    patch = Path(patch)
    before, after = None if old is None else Manifest.load(old), Manifest.load(new)
    for manifest in filter(None, (before, after)):
        manifest.check_files()
    names = [name for name in after.files if name.startswith(f"{place}/" if place else "")]
    if not names:
        raise BundleError(f"{new}: has no files of place '{place}'; give device or server")
    largest = max(after.store.size(name) for name in names)
    if largest > LARGEST_FILE or sum(after.store.size(name) for name in names) > LARGEST_BUILD:
        raise BundleError(
            f"{new}: too large for a patch, which makes at most {LARGEST_BUILD >> 30} GiB; copy it whole"
        )
    if sign_with is not None:
        _sign(after, Path(sign_with))
    steps = Steps(progress, len(names) + 1)
    with ExitStack() as stack:

        def scratch() -> IO[bytes]:
            return stack.enter_context(tempfile.TemporaryFile())

        making = _Making(before, after, _Planes(scratch), scratch())
        for name in names:
            steps.begin(name)
            making.add(name)
        steps.begin("compressing")
        write_file(patch, lambda file: making.write(f"{place}/" if place else "", file))
    sizes = [after.path(name).stat().st_size for name in (*names, MANIFEST)]
    return DeltaReport(len(names), len(names) - len(making.made), sum(sizes), patch.stat().st_size)


write_delta = delta
"""`delta` by its old name."""


@dataclass
class _Making:
    """A patch under way: how files are made, and what that takes."""

    before: Manifest | None
    after: Manifest
    planes: "_Planes"
    rests: IO[bytes]
    """The compressed bytes outside of spans."""
    made: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """Files that the old bundle does not have as they are."""

    def __post_init__(self) -> None:
        self._old_weights = {} if self.before is None else _weights(self.before)
        self._new_weights = _weights(self.after)

    def add(self, name: str) -> None:
        if self.before is not None and self.before.files.get(name) == self.after.files[name]:
            return
        self.made[name] = self._derived(name) or self._coded(name)

    def _derived(self, name: str) -> list[Any] | None:
        """A file that another one, or an old boundary, gives."""
        twin = next(
            (other for other in self.made if self.after.files[other] == self.after.files[name]),
            None,
        )
        if twin is not None:
            return ["as", twin]
        data = self.after.path(name)
        for index, boundary in enumerate(() if self.before is None else self.before.boundaries):
            derived = descriptor_of(boundary, self.after.digest)
            if len(derived) == data.stat().st_size and derived == data.read_bytes():
                return ["boundary", index]
        return None

    def _coded(self, name: str) -> list[Any]:
        with _contents(self.after, name) as new:
            if self.before is None or not self.before.store.holds(name):
                sizes, count = self._add_rest(new, (), None)
                return ["coded", 0, sizes, count, []]
            with _contents(self.before, name) as old:
                spans = _spans(
                    self._old_weights.get(name, ()), self._new_weights.get(name, ()), old, new
                )
                for span in spans:
                    if span.coding != "same":
                        self._add_planes(span, old, new)
                sizes, count = self._add_rest(new, spans, OldRest(old, spans))
                return ["coded", 1, sizes, count, packed(spans)]

    def _add_planes(self, span: WeightSpan, old: Contents, new: Contents) -> None:
        for a, b in _element_blocks(span, old, new):
            self.planes.add(span.width, coded(span.coding, a, b))

    def _add_rest(
        self, new: Contents, spans: Sequence[WeightSpan], known: OldRest | None
    ) -> tuple[list[int], int]:
        """Compressed sizes of the blocks of what is outside of the spans, and its size."""
        sizes: list[int] = []
        count = 0
        for index, block in enumerate(_rest_blocks(new, spans)):
            data = compress_against(block, b"" if known is None else known.around(index))
            self.rests.write(data)
            sizes.append(len(data))
            count += len(block)
        return sizes, count

    def write(self, place: str, file: IO[bytes]) -> None:
        text = self.after.path(MANIFEST).read_bytes()
        planes = self.planes.compressed()
        header = {
            "place": place,
            "made": self.made,
            "planes": [[plane.width, plane.index, plane.bits, plane.size] for plane, _ in planes],
        }
        known = b"" if self.before is None else self.before.path(MANIFEST).read_bytes()
        words = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
        header_text = f"{words}\n{self._blanked(text)}".encode()
        if len(header_text) > LARGEST_HEADER:
            raise BundleError(
                f"{self.after.folder / MANIFEST}: too large for a patch; copy the bundle whole"
            )
        packed_header = compress_against(header_text, known)
        old = (
            bytes(NAME_SIZE)
            if self.before is None
            else bytes.fromhex(self.before.digest)[:NAME_SIZE]
        )
        sha = hashlib.sha256(text).digest()
        file.write(HEAD.pack(MAGIC, VERSION, 0, old, sha, len(packed_header)))
        file.write(packed_header)
        for part in (self.rests, *(part for _, part in planes)):
            part.seek(0)
            shutil.copyfileobj(part, file, BLOCK)
        signature = self.after.folder / SIGNATURE
        if signature.is_file():
            file.write(SIGNED + _read_signature(signature))
        _write_crc(file)

    def _blanked(self, text: bytes) -> str:
        """The new manifest without what the result tells. Raises BundleError when it could not be written again."""
        data: dict[str, Any] = json.loads(text)
        if manifest_text(data).encode() != text:
            raise BundleError(
                f"{self.after.folder / MANIFEST}: was changed by hand; compile the bundle again"
            )
        for name in self.made:
            data["files"][name] = ""
        for item in data["boundaries"]:
            item["digest"] = ""
        return manifest_text(data)


def _sign(manifest: Manifest, key: Path) -> None:
    """Write the signature of a build beside its manifest."""
    signature = sign(hashlib.sha256(manifest.path(MANIFEST).read_bytes()).digest(), key)
    write_file(manifest.folder / SIGNATURE, lambda file: file.write(signature))


def _read_signature(path: Path) -> bytes:
    signature = path.read_bytes()
    if len(signature) != SIGNATURE_SIZE:
        raise BundleError(
            "is no signature",
            where=str(path),
            remedy="remove it, or sign the build again (`irsplit.delta`, `sign_with`)",
        )
    return signature


def _write_crc(file: IO[bytes]) -> None:
    """Fill in the CRC of a patch that is written but for it."""
    file.seek(CHECKED_FROM)
    crc = 0
    while block := file.read(BLOCK):
        crc = zlib.crc32(block, crc)
    file.seek(CHECKED_FROM - 4)
    file.write(crc.to_bytes(4, "little"))


@contextmanager
def _contents(manifest: Manifest, name: str) -> Generator[Contents]:
    with manifest.store.open(name) as file:
        yield Contents(file, manifest.store.size(name))


def _weights(manifest: Manifest) -> Mapping[str, list[Weight]]:
    """The weights of every file of a bundle, data files beside a model too; none of what the dialect cannot read."""
    found: dict[str, list[Weight]] = {}
    files = {
        file for segment in manifest.segments for file in (segment.file, *segment.copies.values())
    }
    for path in (manifest.folder / file for file in sorted(files)):
        try:
            model = dialect_of(path).read(path)
        except IrsplitError:
            continue
        for value in (value for graph in model.graphs for value in graph.constants):
            constant = value.constant
            if (
                constant is None
                or constant.encoding != "raw"
                or constant.buffer.path is None
                or not constant.length
            ):
                continue
            storage = value.type.dtype.storage if isinstance(value.type, TensorType) else None
            width = 1 if storage is None or storage.itemsize not in KINDS else storage.itemsize
            weight = Weight(
                value.name,
                constant.offset,
                constant.length,
                width,
                storage is not None and storage.kind == "f",
            )
            name = (
                Path(constant.buffer.path)
                .resolve()
                .relative_to(manifest.folder.resolve())
                .as_posix()
            )
            found.setdefault(name, []).append(weight)
    return found


def _spans(
    old: Sequence[Weight], new: Sequence[Weight], old_file: Contents, new_file: Contents
) -> list[WeightSpan]:
    """The weights that both have, by place in the new file, none inside of another; equal ones with what is equal
    around them."""
    known = {(weight.name, weight.length): weight for weight in old}
    spans: list[WeightSpan] = []
    end = 0
    for weight in sorted(new, key=lambda weight: weight.offset):
        base = known.get((weight.name, weight.length))
        if base is None or weight.offset < end or weight.length % weight.width:
            continue
        span = _span(base.offset, weight, old_file, new_file)
        if span.coding != "same" and span.length <= _SMALL_BYTES:
            continue
        spans.append(span)
        end = span.new + span.length
    return _grown(spans, old_file, new_file)


def _span(base: int, weight: Weight, old: Contents, new: Contents) -> WeightSpan:
    """A weight against the old one at `base`, coded in the way that needs fewer bits."""
    span = WeightSpan(base, weight.offset, weight.length, weight.width, "same")
    if all(np.array_equal(a, b) for a, b in _element_blocks(span, old, new)):
        return replace(span, width=1)
    codings = ("xor", "floats" if weight.is_float else "integers")
    return replace(
        span,
        coding=min(codings, key=lambda coding: _entropy(replace(span, coding=coding), old, new)),
    )


def _element_blocks(
    span: WeightSpan, old: Contents, new: Contents
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    kind = KINDS[span.width]
    for offset in range(0, span.length, BLOCK):
        size = min(BLOCK, span.length - offset)
        before, after = old.read(span.old + offset, size), new.read(span.new + offset, size)
        yield np.frombuffer(before, kind), np.frombuffer(after, kind)


def _entropy(span: WeightSpan, old: Contents, new: Contents) -> float:
    """Bits that an ideal coder without memory needs for the planes."""
    counts = np.zeros((span.width, 256), np.int64)
    for a, b in _element_blocks(span, old, new):
        for index, plane in enumerate(_planes(coded(span.coding, a, b))):
            counts[index] += np.bincount(plane, minlength=256)
    shares = counts[counts > 0] / (span.length // span.width)
    return -float((counts[counts > 0] * np.log2(shares)).sum())


def _planes(elements: NDArray[Any]) -> Bytes:
    """[width, elements], the lowest byte first."""
    return np.ascontiguousarray(elements.view(np.uint8).reshape(-1, elements.itemsize).T)


def _grown(spans: Sequence[WeightSpan], old: Contents, new: Contents) -> list[WeightSpan]:
    """Equal spans with all the bytes around them that are equal too, and as one where they meet."""
    grown: list[WeightSpan] = []
    for index, span in enumerate(spans):
        begin = grown[-1].new + grown[-1].length if grown else 0
        end = spans[index + 1].new if index + 1 < len(spans) else new.size
        if span.coding == "same":
            count = _equal_before(span, old, new, min(span.new - begin, span.old))
            span = replace(
                span, old=span.old - count, new=span.new - count, length=span.length + count
            )
            left = min(end - span.new, old.size - span.old) - span.length
            span = replace(span, length=span.length + _equal_behind(span, old, new, left))
        if grown and _continues(grown[-1], span):
            before = grown.pop()
            span = replace(before, length=before.length + span.length)
        grown.append(span)
    return grown


def _continues(span: WeightSpan, other: WeightSpan) -> bool:
    both_same = span.coding == other.coding == "same"
    return both_same and other.new == span.new + span.length and other.old == span.old + span.length


def _equal_before(span: WeightSpan, old: Contents, new: Contents, limit: int) -> int:
    """How many bytes before a span are equal, of at most `limit`."""
    for offset in range(0, limit, BLOCK):
        size = min(BLOCK, limit - offset)
        before, after = (
            f.read(at - offset - size, size) for f, at in ((old, span.old), (new, span.new))
        )
        count = _equal(before[::-1], after[::-1])
        if count < size:
            return offset + count
    return limit


def _equal_behind(span: WeightSpan, old: Contents, new: Contents, limit: int) -> int:
    for offset in range(span.length, span.length + limit, BLOCK):
        size = min(BLOCK, span.length + limit - offset)
        count = _equal(old.read(span.old + offset, size), new.read(span.new + offset, size))
        if count < size:
            return offset - span.length + count
    return limit


def _equal(before: bytes, after: bytes) -> int:
    """How many bytes are equal from the first on."""
    differs = np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
    return int(differs.argmax()) if differs.any() else len(before)


def _rest_blocks(new: Contents, spans: Sequence[WeightSpan]) -> Iterator[bytes]:
    """What is outside of the spans, in blocks of REST_BLOCK."""
    block = bytearray()
    ends = [0, *(span.new + span.length for span in spans)]
    for begin, end in zip(ends, [*(span.new for span in spans), new.size], strict=True):
        while begin < end:
            size = min(end - begin, REST_BLOCK - len(block))
            block += new.read(begin, size)
            begin += size
            if len(block) == REST_BLOCK:
                yield bytes(block)
                block.clear()
    if block:
        yield bytes(block)


class _Planes:
    """Byte planes gathered by width and number, each in a temporary file until it is compressed."""

    def __init__(self, scratch: Callable[[], IO[bytes]]) -> None:
        self._scratch = scratch
        self._files: dict[tuple[int, int], IO[bytes]] = {}
        self._largest: dict[tuple[int, int], int] = {}

    def add(self, width: int, elements: NDArray[Any]) -> None:
        for index, plane in enumerate(_planes(elements)):
            key = width, index
            if key not in self._files:
                self._files[key] = self._scratch()
            self._files[key].write(plane.tobytes())
            self._largest[key] = max(self._largest.get(key, 0), int(plane.max(initial=0)))

    def compressed(self) -> list[tuple[BytePlane, IO[bytes]]]:
        """Every plane and its compressed bytes; small values go two a byte, since zstandard spends at least a bit on
        each byte."""
        found: list[tuple[BytePlane, IO[bytes]]] = []
        for (width, index), file in sorted(self._files.items()):
            bits = 4 if self._largest[width, index] < 16 else 8
            source = self._paired(file) if bits == 4 else file
            size = source.seek(0, SEEK_END)
            source.seek(0)
            target = self._scratch()
            _compressor(size, PLANE_WINDOW_LOG).copy_stream(source, target, size=size)
            found.append((BytePlane(width, index, bits, target.tell()), target))
        return found

    def _paired(self, file: IO[bytes]) -> IO[bytes]:
        file.seek(0)
        target = self._scratch()
        while block := file.read(BLOCK):
            pairs = np.frombuffer(block + bytes(len(block) % 2), np.uint8).reshape(-1, 2)
            target.write((pairs[:, 0] | pairs[:, 1] << np.uint8(4)).tobytes())
        return target


def compress_against(data: bytes, known: bytes) -> bytes:
    """zstandard with `known` as what came before, as `zstd --patch-from` does."""
    window = max(10, min(24, (len(data) + len(known)).bit_length()))
    return _compressor(len(data), window, known).compress(data)


def _compressor(size: int, window_log: int, known: bytes = b"") -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL,
        source_size=size,
        dict_size=len(known),
        window_log=window_log,
        enable_ldm=bool(known),
        write_content_size=False,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary(known))
