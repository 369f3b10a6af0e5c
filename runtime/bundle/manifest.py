"""manifest.json of a bundle: segments, boundaries and files, read and checked.

The one description of a bundle that both sides share; the compiler writes it, sessions read it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from irsplit.base.atomic_files import MANIFEST
from irsplit.base.digests import Digests
from irsplit.base.errors import BundleError
from irsplit.base.reading import read_all, reading, record, shorten
from irsplit.runtime.bundle.store import MOST_FILES, BundleFolder, Store, check_name, open_store
from irsplit.runtime.bundle.working_memory import RunLimits, TensorLike, WorkingMemory, needed
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.engines import Engine, EngineOptions
from irsplit.runtime.run.state import StateInfo, open_segment

FORMAT_VERSION = 1

_LARGEST_READ = 1 << 28
"""Bytes of a manifest or of a boundary's descriptor, which are read whole."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor at the edge of a segment: original name, element type, shape (None: a dimension that may vary).

    `symbols` are the model's names of open dimensions, by axis: of one size wherever they occur.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    symbols: dict[int, str] = field(default_factory=dict[int, str], compare=False)

    def to_json(self) -> dict[str, Any]:
        shape = None if self.shape is None else list(self.shape)
        symbols = {str(axis): symbol for axis, symbol in self.symbols.items()}
        named = {"symbols": symbols} if symbols else {}
        return {"name": self.name, "dtype": self.dtype, "shape": shape, **named}

    def __post_init__(self) -> None:
        if any(dim is not None and dim < 0 for dim in self.shape or ()):
            raise ValueError(f"'{self.name}' has a negative dimension")


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment: where it runs, its model file, and what the engine is fed and gives, in the file's order.

    `results` are the outputs of the whole model that are ready after this segment. `stateful` segments keep state
    between calls and must see every call of a stream in order. `copies` has the segment's file at other places: an
    autonomous bundle's device can run what the server runs.
    """

    name: str
    placement: str
    file: str
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    results: tuple[str, ...]
    stateful: bool = False
    copies: dict[str, str] = field(default_factory=dict[str, str])
    state: tuple[StateInfo, ...] = ()
    """State that the session keeps: neither fed by the caller nor part of a frame or a result."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "place": self.placement,
            "file": self.file,
            "format": self.format,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "results": list(self.results),
            "stateful": self.stateful,
            "copies": self.copies,
            "state": [[info.input, info.output] for info in self.state],
            "state_tensors": [info.to_json() for info in self.state],
        }

    @classmethod
    def from_json(cls, data: Any) -> "SegmentInfo":
        """Raises ValueError."""
        if not isinstance(data, dict):
            raise ValueError("a segment is no object")
        tensors = data.get("state_tensors", [])  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        given = {**data, "placement": data.get("place"), "state": tensors}
        return record(cls, given, others=True)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's description. `store` has the files; `digest` names the bundle's contents."""

    store: Store
    name: str
    digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    segments: tuple[SegmentInfo, ...]
    boundaries: tuple[FrameSchema, ...]
    files: dict[str, str] = field(repr=False)
    """SHA-256 of every file of the bundle but the manifest itself, by path relative to the bundle."""
    working_memory: tuple[WorkingMemory | None, ...] = field(repr=False)
    """For every segment that a run may begin with; None where nothing is open or known."""
    raw: dict[str, Any] = field(repr=False)
    """The whole JSON object: what only the compiler's side looks at."""

    @classmethod
    def load(cls, bundle: Path | str) -> "Manifest":
        """Read the manifest of a bundle's folder or packed side. Raises BundleError when it is none, or damaged."""
        store = open_store(Path(bundle))
        path = store.root / MANIFEST
        with reading(path, "damaged manifest", "compile the bundle again", BundleError):
            data = json.loads(_read(store, MANIFEST))
            version = data["format_version"]
            if version != FORMAT_VERSION:
                raise BundleError(
                    f"{path}: format version {shorten(version)}, this release reads {FORMAT_VERSION}; "
                    "compile the bundle again"
                )
            return cls._from_json(store, data)

    @classmethod
    def _from_json(cls, store: Store, data: dict[str, Any]) -> "Manifest":
        segments = tuple(SegmentInfo.from_json(item) for item in data["segments"])
        found = record(_Contents, data, others=True)
        _check_names(data)
        boundaries = tuple(_read_boundary(store, item) for item in found.boundaries)
        if not segments or len(boundaries) != len(segments) - 1:
            raise ValueError(f"{len(segments)} segments and {len(boundaries)} boundaries")
        if found.boundary_ops is not None and len(found.boundary_ops) != len(boundaries):
            raise ValueError(
                f"{len(boundaries)} boundaries and {len(found.boundary_ops)} with operators"
            )
        _check_wiring(found.inputs, segments, boundaries)
        return cls(
            store,
            found.name,
            found.digest,
            found.inputs,
            found.outputs,
            segments,
            boundaries,
            found.files,
            _read_working_memory(data.get("working_memory"), found.inputs, boundaries),
            data,
        )

    def received(self, start: int) -> list[TensorLike]:
        """What a run that begins with segment `start` is given: the model's inputs, or what crosses before it."""
        return _received(self.inputs, self.boundaries, start)

    def needed(self, start: int, shapes: Mapping[str, Sequence[int]], limits: RunLimits) -> int:
        """Bytes that a run from segment `start` on takes, by estimate, when what it is given has these shapes.

        Raises ValueError for a run beyond the limits. Nothing is allocated.
        """
        return needed(limits, self.received(start), shapes, self.working_memory[start])

    @property
    def folder(self) -> Path:
        """The bundle's folder. Raises BundleError for a packed side, which has none."""
        return self._folder().root

    def path(self, file: str) -> Path:
        """Where a file of the bundle is. Raises BundleError for a packed side, and for one that is missing."""
        return self._folder().path(file)

    def _folder(self) -> BundleFolder:
        if not isinstance(self.store, BundleFolder):
            raise BundleError(
                f"{self.store.root}: is one packed side of a bundle; give the folder that 'irsplit compile' wrote, "
                "which has both"
            )
        return self.store

    def file(self, index: int) -> str | None:
        """The file of a segment that is here: its own, or the copy of an autonomous bundle; None without one."""
        segment = self.segments[index]
        return next(
            (file for file in (segment.file, *segment.copies.values()) if self.store.holds(file)),
            None,
        )

    def engine(self, index: int, options: EngineOptions) -> Engine:
        """An engine with a segment. Raises BundleError when its file is not here or no longer this build's."""
        segment = self.segments[index]
        engine = open_segment(self.store.model(self.file(index) or segment.file), segment, options)
        self.store.check_same()
        return engine

    def check_files(self, places: Collection[str] | None = None) -> None:
        """Read the files that are present, in threads, and compare their digests with those of the compilation.

        Args:
            places: Check the sides of these places alone; None for all that is here.

        Raises BundleError that names the file for one that has changed, and for a segment without a digest.
        """
        for segment in self.segments:
            for file in (segment.file, *segment.copies.values()):
                if file not in self.files:
                    raise BundleError(
                        f"{self.store.root / MANIFEST}: no digest of {file}; compile the bundle again"
                    )

        wanted = [
            file for file in self.files if places is None or PurePosixPath(file).parts[0] in places
        ]
        present = [file for file in wanted if self.store.holds(file)]
        try:
            with Digests() as digests:
                found = digests.of(self.store.content(file) for file in present)
        except OSError as error:
            raise BundleError(f"{self.store.root}: cannot be read: {error.strerror}") from error

        for file, digest in zip(present, found, strict=True):
            if digest != self.files[file]:
                path = self.store.root / file
                raise BundleError(
                    f"{path}: changed since it was compiled; copy or compile the bundle again"
                )


def run_engine(
    engine: Engine, segment: SegmentInfo, values: Mapping[str, Any], large: bool
) -> list[Any]:
    """What a segment's engine gives for the values that it reads; after a `large` run it keeps no memory."""
    inputs = [values[name] for name in segment.inputs]
    in_engine = segment.stateful and not segment.state  # the state, which would go too
    return engine.run(inputs, large=True) if large and not in_engine else engine.run(inputs)


def manifest_text(data: dict[str, Any]) -> str:
    """The one way to write a manifest: equal objects give equal bytes."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Those of a priced cut that choosing a cut at run time reads."""

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
    """What the manifest says beside the segments, as far as anybody reads it: older ones lack what has a default."""

    name: str
    digest: str
    source: _Source
    pipeline: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    boundaries: tuple[_BoundaryEntry, ...]
    files: dict[str, str]
    provenance: _Provenance | None = None
    choice: _Choice | None = None
    boundary_ops: tuple[dict[str, dict[str, Any]], ...] | None = None


def _check_wiring(
    inputs: Sequence[TensorInfo], segments: Sequence[SegmentInfo], boundaries: Sequence[FrameSchema]
) -> None:
    """Raise ValueError for a segment that reads, or a boundary that carries, what nothing before it gives."""
    known = {info.name for info in inputs}
    for index, segment in enumerate(segments):
        _check_known(f"segment '{segment.name}' reads", segment.inputs, known)
        known.update(segment.outputs)
        _check_known(f"segment '{segment.name}' has the result", segment.results, known)
        if index < len(boundaries):
            boundary = boundaries[index]
            if boundary.index != index:
                raise ValueError(f"{boundary} at the place of boundary {index}")
            crossing = [spec.name for spec in boundary.tensors]
            _check_known(f"{boundary} carries", crossing, known)
            known = set(crossing)


def _check_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise ValueError(f"{what} '{missing}', which nothing before it gives")


def named_files(data: dict[str, Any]) -> set[str]:
    """The files that the segments and boundaries of a manifest's JSON want, on whatever side."""
    names: set[str] = set()
    for segment in data["segments"]:
        names.update((segment["file"], *segment.get("copies", {}).values()))
    for boundary in data["boundaries"]:
        names.update(boundary["descriptor"].values())
    return names


def _check_names(data: dict[str, Any]) -> None:
    """Raise ValueError for a name, a digest or a file that no bundle has: they come from whoever wrote the manifest."""
    for digest in (data["digest"], *data["files"].values()):
        if not isinstance(digest, str) or len(digest) != 64 or len(bytes.fromhex(digest)) != 32:
            raise ValueError(f"{digest!r:.80} is no SHA-256")
    if len(data["files"]) > MOST_FILES:
        raise ValueError(f"{len(data['files'])} files, a bundle has at most {MOST_FILES}")
    for name in (*data["files"], *named_files(data)):
        if check_name(name) == MANIFEST:
            raise ValueError(f"{MANIFEST} as a file that it lists itself")


def _read(store: Store, file: str) -> bytes:
    if store.size(file) > _LARGEST_READ:
        raise ValueError(f"{file} has {store.size(file)} bytes, at most {_LARGEST_READ} are read")
    with store.open(file) as opened:
        return read_all(opened)


def _received(
    inputs: Sequence[TensorInfo], boundaries: Sequence[FrameSchema], start: int
) -> list[TensorLike]:
    tensors = inputs if start == 0 else boundaries[start - 1].tensors
    return [(tensor.name, tensor.dtype, tensor.shape or ()) for tensor in tensors]


def _read_working_memory(
    found: Any, inputs: Sequence[TensorInfo], boundaries: Sequence[FrameSchema]
) -> tuple[WorkingMemory | None, ...]:
    """Older bundles have none."""
    count = len(boundaries) + 1
    if found is None:
        return (None,) * count
    if len(found) != count:
        raise ValueError(f"working memory of {len(found)} segments, not {count}")
    pairs = enumerate(found)
    return tuple(
        item and WorkingMemory.from_json(item, _received(inputs, boundaries, start))
        for start, item in pairs
    )


def _read_boundary(store: Store, entry: _BoundaryEntry) -> FrameSchema:
    """The boundary from the first descriptor that is present: a device has its own copy only."""
    for name in entry.descriptor.values():
        if store.holds(name):
            return FrameSchema.from_bytes(_read(store, name))
    raise BundleError(
        f"{store.root}: no descriptor of boundary {entry.index}; copy the folder of this side whole"
    )
