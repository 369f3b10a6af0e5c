"""Write a patch: the difference between two builds of a bundle.

A patch is coded against the files that the device already has. `weights` matches the weights of
both builds. Changed weights are stored byte plane by byte plane: training moves most weights by
little, so that the upper planes are nearly constant. All other bytes are compressed with their old
counterparts as dictionary. `irsplit.runtime.bundle.patch_format` has the format, and
`irsplit.runtime.bundle.patch` applies a patch.
"""

import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from irsplit.base.atomic_files import MANIFEST, write_file
from irsplit.base.errors import BundleError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.compilation.weights import byte_planes, element_blocks, spans_of, weights_of
from irsplit.runtime.bundle.manifest import Manifest, manifest_text
from irsplit.runtime.bundle.patch_format import (
    BLOCK,
    CHECKED_FROM,
    HEAD,
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
    """Write the patch that turns one build of a bundle into another, as `irsplit delta` does.

    Args:
        old: The bundle that devices have; None for a patch that needs none.
        new: The bundle that devices get.
        patch: The file to write.
        place: "device" or "server", for a patch with only the files of this side.
        sign_with: An Ed25519 private key (PEM). The new bundle is signed: the signature goes into
            manifest.sig beside its manifest, and every patch to this build carries it.
        progress: Called before every file.

    Returns:
        What the patch costs.

    Raises:
        BundleError: A folder is no bundle or not whole, or the key file is no such key.

    Example:
        >>> report = delta("build/old", "build/new", "build/update.irsd", "device")
        >>> report.patch_bytes < report.new_bytes
        True
    """
    patch = Path(patch)
    before = None if old is None else Manifest.load(old)
    after = Manifest.load(new)
    if before is not None:
        before.check_files()
    after.check_files()

    prefix = f"{place}/" if place else ""
    names = [name for name in after.files if name.startswith(prefix)]
    if not names:
        raise BundleError(f"{new}: has no files of place '{place}'; give device or server")
    _check_sizes(after, names)

    if sign_with is not None:
        _sign(after, Path(sign_with))
    steps = Steps(progress, len(names) + 1)
    with ExitStack() as stack:

        def scratch() -> IO[bytes]:
            return stack.enter_context(tempfile.TemporaryFile())

        writer = _PatchWriter(before, after, _Planes(scratch), scratch())
        for name in names:
            steps.begin(name)
            writer.add(name)
        steps.begin("compressing")
        write_file(patch, lambda file: writer.write(prefix, file))

    new_bytes = sum(after.path(name).stat().st_size for name in (*names, MANIFEST))
    unchanged = len(names) - len(writer.made)
    return DeltaReport(len(names), unchanged, new_bytes, patch.stat().st_size)


write_delta = delta
"""`delta` by its old name."""


def _check_sizes(manifest: Manifest, names: Sequence[str]) -> None:
    """Raise BundleError for a build that is larger than a patch may make."""
    sizes = [manifest.store.size(name) for name in names]
    if max(sizes) > LARGEST_FILE or sum(sizes) > LARGEST_BUILD:
        raise BundleError(
            f"{manifest.folder}: too large for a patch, which makes at most "
            f"{LARGEST_BUILD >> 30} GiB; copy it whole"
        )


@dataclass
class _PatchWriter:
    """Collects how each file of the new build is made, then writes the patch."""

    before: Manifest | None
    after: Manifest
    planes: "_Planes"
    rests: IO[bytes]
    """The compressed bytes outside of spans."""
    made: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """How to make each file that the old bundle does not have as it is, as JSON."""

    def __post_init__(self) -> None:
        self._old_weights = {} if self.before is None else weights_of(self.before)
        self._new_weights = weights_of(self.after)

    def add(self, name: str) -> None:
        """Add a file, unless the old build has the same."""
        if self.before is not None and self.before.files.get(name) == self.after.files[name]:
            return
        self.made[name] = self._derived(name) or self._coded(name)

    def _derived(self, name: str) -> list[Any] | None:
        """Say how another file or an old boundary gives this file; None where nothing does."""
        for other in self.made:
            if self.after.files[other] == self.after.files[name]:
                return ["as", other]

        path = self.after.path(name)
        boundaries = () if self.before is None else self.before.boundaries
        for index, boundary in enumerate(boundaries):
            descriptor = descriptor_of(boundary, self.after.digest)
            # Sizes are compared first: a large model is not read for this.
            if len(descriptor) == path.stat().st_size and descriptor == path.read_bytes():
                return ["boundary", index]
        return None

    def _coded(self, name: str) -> list[Any]:
        """Store the contents of a file, against the old file where there is one."""
        with _contents(self.after, name) as new:
            if self.before is None or not self.before.store.holds(name):
                sizes, count = self._add_rest(new, (), None)
                return ["coded", 0, sizes, count, []]

            old_weights = self._old_weights.get(name, ())
            new_weights = self._new_weights.get(name, ())
            with _contents(self.before, name) as old:
                spans = spans_of(old_weights, new_weights, old, new)
                for span in spans:
                    if span.coding != "same":
                        self._add_planes(span, old, new)
                sizes, count = self._add_rest(new, spans, OldRest(old, spans))
                return ["coded", 1, sizes, count, packed(spans)]

    def _add_planes(self, span: WeightSpan, old: Contents, new: Contents) -> None:
        for a, b in element_blocks(span, old, new):
            self.planes.add(span.width, coded(span.coding, a, b))

    def _add_rest(
        self, new: Contents, spans: Sequence[WeightSpan], old_rest: OldRest | None
    ) -> tuple[list[int], int]:
        """Compress what lies outside of the spans.

        Returns the compressed size of every block, and the size of all before compression.
        """
        sizes: list[int] = []
        count = 0
        for index, block in enumerate(_rest_blocks(new, spans)):
            old_bytes = b"" if old_rest is None else old_rest.around(index)
            data = compress_against(block, old_bytes)
            self.rests.write(data)
            sizes.append(len(data))
            count += len(block)
        return sizes, count

    def write(self, place: str, file: IO[bytes]) -> None:
        """Write the patch: head, header, rests, byte planes, and a signature where there is one."""
        manifest = self.after.path(MANIFEST).read_bytes()
        planes = self.planes.compressed()
        header = self._header(place, manifest, [plane for plane, _ in planes])

        old_name = bytes(NAME_SIZE)
        if self.before is not None:
            old_name = bytes.fromhex(self.before.digest)[:NAME_SIZE]
        digest = hashlib.sha256(manifest).digest()
        file.write(HEAD.pack(MAGIC, VERSION, 0, old_name, digest, len(header)))
        file.write(header)
        for section in (self.rests, *(contents for _, contents in planes)):
            section.seek(0)
            shutil.copyfileobj(section, file, BLOCK)

        signature = self.after.folder / SIGNATURE
        if signature.is_file():
            file.write(SIGNED + _read_signature(signature))
        _write_crc(file)

    def _header(self, place: str, manifest: bytes, planes: Sequence[BytePlane]) -> bytes:
        """Return the compressed header. Raises BundleError where it is too large."""
        header = {
            "place": place,
            "made": self.made,
            "planes": [[plane.width, plane.index, plane.bits, plane.size] for plane in planes],
        }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
        data = f"{text}\n{self._blanked(manifest)}".encode()
        if len(data) > LARGEST_HEADER:
            raise BundleError(
                f"{self.after.folder / MANIFEST}: too large for a patch; copy the bundle whole"
            )
        old_manifest = b"" if self.before is None else self.before.path(MANIFEST).read_bytes()
        return compress_against(data, old_manifest)

    def _blanked(self, text: bytes) -> str:
        """Return the new manifest without the digests, which follow from the files.

        Raises BundleError where the manifest could not be restored byte by byte.
        """
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
    """Read a signature. Raises BundleError where the file holds none."""
    signature = path.read_bytes()
    if len(signature) != SIGNATURE_SIZE:
        raise BundleError(
            "is no signature",
            where=str(path),
            remedy="remove it, or sign the build again (`irsplit.delta`, `sign_with`)",
        )
    return signature


def _write_crc(file: IO[bytes]) -> None:
    """Fill in the checksum of a patch that is complete but for it."""
    file.seek(CHECKED_FROM)
    crc = 0
    while block := file.read(BLOCK):
        crc = zlib.crc32(block, crc)
    file.seek(CHECKED_FROM - 4)
    file.write(crc.to_bytes(4, "little"))


@contextmanager
def _contents(manifest: Manifest, name: str) -> Generator[Contents]:
    """Open a file of a bundle for reading at any offset."""
    with manifest.store.open(name) as file:
        yield Contents(file, manifest.store.size(name))


def _rest_blocks(new: Contents, spans: Sequence[WeightSpan]) -> Iterator[bytes]:
    """Yield what lies outside of the spans, in blocks of REST_BLOCK bytes."""
    begins = [0, *(span.new + span.length for span in spans)]
    ends = [*(span.new for span in spans), new.size]

    block = bytearray()
    for begin, end in zip(begins, ends, strict=True):
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
    """Byte planes by width and index, each in a temporary file until it is compressed."""

    def __init__(self, scratch: Callable[[], IO[bytes]]) -> None:
        self._scratch = scratch
        self._files: dict[tuple[int, int], IO[bytes]] = {}
        self._largest: dict[tuple[int, int], int] = {}

    def add(self, width: int, elements: NDArray[Any]) -> None:
        """Append the bytes of coded elements to the planes of their width."""
        for index, plane in enumerate(byte_planes(elements)):
            key = width, index
            if key not in self._files:
                self._files[key] = self._scratch()
            self._files[key].write(plane.tobytes())
            self._largest[key] = max(self._largest.get(key, 0), int(plane.max(initial=0)))

    def compressed(self) -> list[tuple[BytePlane, IO[bytes]]]:
        """Compress every plane, and return its description with a file of its bytes.

        zstandard spends at least a bit on each byte, so small values go two to a byte.
        """
        planes: list[tuple[BytePlane, IO[bytes]]] = []
        for (width, index), file in sorted(self._files.items()):
            bits = 4 if self._largest[width, index] < 16 else 8
            source = self._paired(file) if bits == 4 else file
            size = source.seek(0, SEEK_END)
            source.seek(0)
            target = self._scratch()
            _compressor(size, PLANE_WINDOW_LOG).copy_stream(source, target, size=size)
            planes.append((BytePlane(width, index, bits, target.tell()), target))
        return planes

    def _paired(self, file: IO[bytes]) -> IO[bytes]:
        """Copy a plane with two values in each byte, the first in the lower bits."""
        file.seek(0)
        target = self._scratch()
        while block := file.read(BLOCK):
            pairs = np.frombuffer(block + bytes(len(block) % 2), np.uint8).reshape(-1, 2)
            target.write((pairs[:, 0] | pairs[:, 1] << np.uint8(4)).tobytes())
        return target


def compress_against(data: bytes, old: bytes) -> bytes:
    """Compress data with zstandard, with `old` as dictionary, as `zstd --patch-from` does."""
    window = max(10, min(24, (len(data) + len(old)).bit_length()))
    return _compressor(len(data), window, old).compress(data)


def _compressor(size: int, window_log: int, old: bytes = b"") -> zstandard.ZstdCompressor:
    """Return a compressor for `size` bytes; distant matches are sought in a dictionary only."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL,
        source_size=size,
        dict_size=len(old),
        window_log=window_log,
        enable_ldm=bool(old),
        write_content_size=False,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary(old))
