"""The manifest of a bundle, `manifest.json`: its segments, boundaries and files, read and checked.

Both sides share it: the compiler writes it and sessions read it. It describes and opens nothing;
`irsplit.runtime.run` opens engines.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from irsplit.base.atomic_files import MANIFEST
from irsplit.base.digests import Digests
from irsplit.base.errors import BundleError
from irsplit.base.reading import read_all, reading, record, shorten
from irsplit.runtime.bundle.segment import SegmentInfo, TensorInfo
from irsplit.runtime.bundle.store import MOST_FILES, BundleFolder, Store, check_name, open_store
from irsplit.runtime.bundle.working_memory import RunLimits, TensorLike, WorkingMemory, needed
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.frame.frame import Bytes, frame_digest

FORMAT_VERSION = 1

_SHA256 = re.compile("[0-9a-fA-F]{64}")
_LARGEST_READ = 1 << 28
"""Largest manifest or descriptor in bytes. Both are read whole."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of one build of a bundle.

    Example:
        manifest = Manifest.load("build/digits")
        [segment.placement for segment in manifest.segments]    # ["device", "server"]

    Attributes:
        store: Gives access to the bundle's files.
        name: The bundle's name.
        digest: SHA-256 of the bundle's contents, in hexadecimal: it names the build.
        inputs: The inputs of the whole model.
        outputs: The outputs of the whole model.
        segments: The segments in the order in which they run.
        boundaries: Boundary `i` lies between segments `i` and `i + 1`.
        files: SHA-256 of every file but the manifest itself, by the path in the bundle.
        working_memory: For every segment that a run may begin with, an estimate of the memory
            that the run takes; None where no dimension is open or nothing is known.
        raw: The whole JSON object, with what only the compiler's side reads.
    """

    store: Store
    name: str
    digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    segments: tuple[SegmentInfo, ...]
    boundaries: tuple[FrameSchema, ...]
    files: dict[str, str] = field(repr=False)
    working_memory: tuple[WorkingMemory | None, ...] = field(repr=False)
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, bundle: Path | str) -> "Manifest":
        """Read and check the manifest of a bundle.

        Args:
            bundle: The bundle's folder, or a packed side.

        Raises:
            BundleError: There is no bundle, its manifest is damaged or of another format version,
                or a descriptor is missing.
        """
        store = open_store(Path(bundle))
        path = store.root / MANIFEST
        with reading(path, "damaged manifest", "compile the bundle again", BundleError):
            data = json.loads(_read(store, MANIFEST))
            version = data["format_version"]
            if version != FORMAT_VERSION:
                raise BundleError(
                    f"{path}: format version {shorten(version)}, this release reads "
                    f"{FORMAT_VERSION}; compile the bundle again"
                )
            return cls._from_json(store, data)

    @classmethod
    def _from_json(cls, store: Store, data: dict[str, Any]) -> "Manifest":
        segments = tuple(SegmentInfo.from_json(item) for item in data["segments"])
        contents = record(_Contents, data, others=True)
        _check_names(data)

        boundaries = tuple(_read_boundary(store, entry) for entry in contents.boundaries)
        _check_counts(contents, segments)
        _check_wiring(contents.inputs, segments, boundaries)

        return cls(
            store,
            contents.name,
            contents.digest,
            _with_symbols(contents.inputs, contents.symbols),
            _with_symbols(contents.outputs, contents.symbols),
            segments,
            boundaries,
            contents.files,
            _read_working_memory(data.get("working_memory"), contents.inputs, boundaries),
            data,
        )

    def received(self, start: int) -> list[TensorLike]:
        """The tensors that a run beginning with segment `start` receives.

        These are the model's inputs for segment 0, and the tensors of the boundary before any
        other segment.
        """
        return _received(self.inputs, self.boundaries, start)

    def needed(self, start: int, shapes: Mapping[str, Sequence[int]], limits: RunLimits) -> int:
        """Estimate the memory of a run. Nothing is allocated.

        Args:
            start: The segment that the run begins with.
            shapes: Shapes of the tensors that the run receives, by name.
            limits: What the run may take.

        Returns:
            Bytes.

        Raises:
            ValueError: The run is beyond the limits.
        """
        return needed(limits, self.received(start), shapes, self.working_memory[start])

    def boundary_of(self, frame: Bytes) -> FrameSchema | None:
        """Find the boundary that a frame belongs to by its header; None for one of another build.

        Raises:
            FrameError: The bytes do not begin like a frame.
        """
        head = frame_digest(frame)
        for boundary in self.boundaries:
            if boundary.digest.startswith(head):
                return boundary
        return None

    @property
    def folder(self) -> Path:
        """The bundle's folder. Raises BundleError for a packed side, which has none."""
        return self._folder().root

    def path(self, file: str) -> Path:
        """Where a file of the bundle lies.

        Raises:
            BundleError: The bundle is a packed side, or the file is missing.
        """
        return self._folder().path(file)

    def _folder(self) -> BundleFolder:
        if isinstance(self.store, BundleFolder):
            return self.store
        raise BundleError(
            f"{self.store.root}: is one packed side of a bundle; give the folder that "
            "'irsplit compile' wrote, which has both"
        )

    def file(self, index: int) -> str | None:
        """The model file of a segment that is present: its own, else a copy; None without any."""
        segment = self.segments[index]

        # A bundle may be one side only, without the file of the other one.
        for file in (segment.file, *segment.copies.values()):
            if self.store.holds(file):
                return file
        return None

    def check_files(self, places: Collection[str] | None = None) -> None:
        """Compare the digests of the files that are present with those of the compilation.

        The files are read in several threads.

        Args:
            places: Check the files of these placements alone; None for all that are present.

        Raises:
            BundleError: A file has changed or cannot be read, or the manifest lacks the digest of
                a segment. The text names the file.
        """
        self._check_digests_exist()

        present: list[str] = []
        for file in self.files:
            selected = places is None or PurePosixPath(file).parts[0] in places
            if selected and self.store.holds(file):
                present.append(file)

        try:
            with Digests() as digests:
                computed = digests.of(self.store.content(file) for file in present)
        except OSError as error:
            raise BundleError(f"{self.store.root}: cannot be read: {error.strerror}") from error

        for file, digest in zip(present, computed, strict=True):
            if digest != self.files[file]:
                path = self.store.root / file
                raise BundleError(
                    f"{path}: changed since it was compiled; copy or compile the bundle again"
                )

    def _check_digests_exist(self) -> None:
        """Raise BundleError for a segment whose file has no digest."""
        for segment in self.segments:
            for file in (segment.file, *segment.copies.values()):
                if file not in self.files:
                    raise BundleError(
                        f"{self.store.root / MANIFEST}: no digest of {file}; "
                        "compile the bundle again"
                    )


def manifest_text(data: dict[str, Any]) -> str:
    """The text of a manifest. Equal objects give equal bytes, which patches rely on."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_files(data: dict[str, Any]) -> set[str]:
    """The files of all segments and boundaries in a manifest's JSON, whatever their placement."""
    names: set[str] = set()
    for segment in data["segments"]:
        names.update((segment["file"], *segment.get("copies", {}).values()))
    for boundary in data["boundaries"]:
        names.update(boundary["descriptor"].values())
    return names


@dataclass(frozen=True, slots=True)
class _BoundaryEntry:
    index: int
    descriptor: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Source:
    file: str
    sha256: str
    dialect: str


@dataclass(frozen=True, slots=True)
class _SourceFile:
    file: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class _Provenance:
    source_files: tuple[_SourceFile, ...]


@dataclass(frozen=True, slots=True)
class _Terms:
    """The cost terms of a cut that choosing a cut at run time reads."""

    device_ns: int
    device_codec_ns: int
    server_ns: int
    server_codec_ns: int
    uplink_ns: int
    message_ns: int
    up_bytes: int
    down_bytes: int


@dataclass(frozen=True, slots=True)
class _Ranked:
    cut: str
    terms: _Terms


@dataclass(frozen=True, slots=True)
class _Choice:
    cuts: tuple[str, ...]
    ranked: tuple[_Ranked, ...]
    load: int = 100

    def __post_init__(self) -> None:
        if self.load <= 0:
            raise ValueError("a load of the server that is not positive")


@dataclass(frozen=True, slots=True)
class _Contents:
    """Everything in a manifest but the segments, as far as it is read.

    What has a default is missing from manifests of older releases.
    """

    name: str
    digest: str
    source: _Source
    pipeline: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    boundaries: tuple[_BoundaryEntry, ...]
    files: dict[str, str]
    symbols: dict[str, str] = field(default_factory=dict[str, str])
    """Symbols of open dimensions by "TENSOR.AXIS"."""
    provenance: _Provenance | None = None
    choice: _Choice | None = None
    boundary_ops: tuple[dict[str, dict[str, Any]], ...] | None = None


def _with_symbols(
    tensors: Sequence[TensorInfo], symbols: Mapping[str, str]
) -> tuple[TensorInfo, ...]:
    """The tensors with the symbols of their open dimensions."""
    return tuple(replace(info, symbols=_symbols_of(info, symbols)) for info in tensors)


def _symbols_of(info: TensorInfo, symbols: Mapping[str, str]) -> dict[int, str]:
    """The symbols of one tensor's open dimensions by axis."""
    by_axis: dict[int, str] = {}
    for axis, dim in enumerate(info.shape or ()):
        symbol = symbols.get(f"{info.name}.{axis}")
        if dim is None and symbol is not None:
            by_axis[axis] = symbol
    return by_axis


def _check_counts(contents: _Contents, segments: Sequence[SegmentInfo]) -> None:
    """Raise ValueError unless every two neighbouring segments have one boundary between them."""
    count = len(contents.boundaries)
    if not segments or count != len(segments) - 1:
        raise ValueError(f"{len(segments)} segments and {count} boundaries")
    if contents.boundary_ops is not None and len(contents.boundary_ops) != count:
        raise ValueError(f"{count} boundaries and {len(contents.boundary_ops)} with operators")


def _check_wiring(
    inputs: Sequence[TensorInfo], segments: Sequence[SegmentInfo], boundaries: Sequence[FrameSchema]
) -> None:
    """Raise ValueError for a value that is read or sent where nothing before has given it."""
    available = {info.name for info in inputs}
    for index, segment in enumerate(segments):
        _check_available(f"segment '{segment.name}' reads", segment.inputs, available)
        available.update(segment.outputs)

        # A result may be an input of the model that is given back as it is.
        _check_available(f"segment '{segment.name}' has the result", segment.results, available)
        if index == len(boundaries):
            break

        boundary = boundaries[index]
        if boundary.index != index:
            raise ValueError(f"{boundary} in the place of boundary {index}")
        crossing = [spec.name for spec in boundary.tensors]
        _check_available(f"{boundary} carries", crossing, available)
        # The next segment runs on what crossed, and on nothing else.
        available = set(crossing)


def _check_available(what: str, names: Iterable[str], available: Collection[str]) -> None:
    for name in names:
        if name not in available:
            raise ValueError(f"{what} '{name}', which nothing before it gives")


def _check_names(data: dict[str, Any]) -> None:
    """Raise ValueError for a digest or a file name that no bundle has.

    The manifest may come from anybody, and its names become paths.
    """
    files: dict[str, Any] = data["files"]
    if len(files) > MOST_FILES:
        raise ValueError(f"{len(files)} files, a bundle has at most {MOST_FILES}")

    for digest in (data["digest"], *files.values()):
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(f"{digest!r:.80} is no SHA-256")

    for name in (*files, *named_files(data)):
        if check_name(name) == MANIFEST:
            raise ValueError(f"{MANIFEST} as a file that it lists itself")


def _read(store: Store, file: str) -> bytes:
    """A whole file. Raises ValueError for one that is larger than any that we write."""
    size = store.size(file)
    if size > _LARGEST_READ:
        raise ValueError(f"{file} has {size} bytes, at most {_LARGEST_READ} are read")
    with store.open(file) as opened:
        return read_all(opened)


def _received(
    inputs: Sequence[TensorInfo], boundaries: Sequence[FrameSchema], start: int
) -> list[TensorLike]:
    """The tensors that a run beginning with segment `start` receives."""
    tensors = inputs if start == 0 else boundaries[start - 1].tensors
    return [(tensor.name, tensor.dtype, tensor.shape or ()) for tensor in tensors]


def _read_working_memory(
    entries: Any, inputs: Sequence[TensorInfo], boundaries: Sequence[FrameSchema]
) -> tuple[WorkingMemory | None, ...]:
    """The estimates of all segments. Bundles of older releases have none."""
    count = len(boundaries) + 1
    if entries is None:
        return (None,) * count
    if len(entries) != count:
        raise ValueError(f"working memory of {len(entries)} segments, not {count}")

    estimates: list[WorkingMemory | None] = []
    for start, entry in enumerate(entries):
        tensors = _received(inputs, boundaries, start)
        estimate = None if entry is None else WorkingMemory.from_json(entry, tensors)
        estimates.append(estimate)
    return tuple(estimates)


def _read_boundary(store: Store, entry: _BoundaryEntry) -> FrameSchema:
    """Read the first descriptor that is present: each side has its own copy only."""
    for name in entry.descriptor.values():
        if store.holds(name):
            return FrameSchema.from_bytes(_read(store, name))
    raise BundleError(
        f"{store.root}: no descriptor of boundary {entry.index}; copy the folder of this side whole"
    )
