"""Makes a new build of a bundle from an old one and a patch.

Files are made in blocks, so that memory does not grow with their sizes.
"""

import hashlib
import shutil
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zstandard

from irsplit.base.atomic_files import (
    MANIFEST,
    make_durable,
    make_durable_name,
    new_folder,
    scratch_folder,
    write_file,
)
from irsplit.base.errors import BundleError
from irsplit.base.progress import Progress, Steps, silent
from irsplit.runtime.bundle.manifest import Manifest, manifest_text, named_files
from irsplit.runtime.bundle.packing import write_packed
from irsplit.runtime.bundle.patch_format import (
    BLOCK,
    HEAD,
    KINDS,
    NAME_SIZE,
    REST_BLOCK,
    Block,
    Contents,
    Head,
    OldRest,
    PlaneReader,
    WeightSpan,
    blocks_of,
    descriptor_of,
    expand,
    expand_header,
    read_head,
    restored,
    sections,
)
from irsplit.runtime.bundle.patch_plan import (
    CodedFile,
    Copied,
    OldDescriptor,
    PatchPlan,
    Recipe,
    Twin,
    read_plan,
)
from irsplit.runtime.bundle.signature import is_signed_by, load_public_key
from irsplit.runtime.bundle.store import is_packed
from irsplit.runtime.frame.descriptor import FrameSchema

_SPARE_ROOM = 1 << 20
"""Bytes that stay free beside a new build."""

_NOT_A_PATCH = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zstandard.ZstdError,
)
"""What applying a patch raises when its contents are not what `irsplit delta` writes."""


def apply_delta(
    old: Path | None,
    patch: Path,
    new: Path,
    *,
    public_key: Path | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Apply a patch in a file; see `apply_patch`.

    Example:
        manifest = apply_delta(Path("build"), Path("build.irsp"), Path("new"))
    """
    if patch.exists() and not patch.is_file():
        raise BundleError(f"{patch}: is no file; give a patch that 'irsplit delta' wrote")
    try:
        with patch.open("rb") as file:
            return apply_patch(old, file, str(patch), new, public_key=public_key, progress=progress)
    except OSError as error:
        raise BundleError(f"{patch}: {error.strerror}") from error


def apply_patch(
    old: Path | None,
    file: BinaryIO,
    patch: str,
    new: Path,
    *,
    public_key: Path | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Make the bundle `new` from the bundle `old` and a patch.

    The new bundle appears whole or not at all, even when the power fails. It is loaded and its
    digests are checked before it takes the place of anything.

    Args:
        old: The bundle that the patch was made for: a folder, or a packed side. None for a patch
            that holds the whole build.
        file: The patch, at its beginning.
        patch: What errors call the patch.
        new: The bundle to make: a folder, or a packed side by its name.
        public_key: A PEM file. The patch must be signed by its owner (`irsplit delta --sign`).
        progress: Is told of every file.

    Returns:
        The manifest of the new bundle.

    Raises:
        BundleError: The patch is damaged, is for another build, is not signed by the owner of the
            key, or does not make a bundle that runs here. What was at `new` is as it was.
    """
    head = read_head(file, patch)
    if public_key is not None:
        _check_signature(head, public_key, patch)

    before = Manifest.load(old) if old is not None and head.old else None

    name = "" if before is None else before.digest[: 2 * NAME_SIZE]
    if head.old != name:
        raise BundleError(
            f"{patch}: is for build {head.old}, {old} is {name or 'none'}; get another patch"
        )

    try:
        plan = _read_plan(before, file, head)
        with _new_packed(new, patch) if is_packed(new) else new_folder(new) as build:
            _check_room(build, new, plan)
            _Rebuild(before, file, head, plan, build).run(progress)
            _check_result(build, new, plan, patch)
            make_durable(build)
        make_durable_name(new)
    except _NOT_A_PATCH as error:
        raise BundleError(
            f"{patch}: impossible contents ({_reason(error)}); get it again"
        ) from error
    return Manifest.load(new)


def _check_signature(head: Head, public_key: Path, patch: str) -> None:
    key = load_public_key(public_key)
    if not head.signature:
        raise BundleError(
            f"{patch}: is not signed; make it with 'irsplit delta --sign', or leave the public "
            "key out"
        )

    if not is_signed_by(key, head.signature, bytes.fromhex(head.manifest)):
        raise BundleError(
            f"{patch}: is not signed by the owner of {public_key}; get it from whom you trust"
        )


def _read_plan(before: Manifest | None, file: BinaryIO, head: Head) -> PatchPlan:
    old_manifest = b"" if before is None else _read(before, MANIFEST)
    file.seek(HEAD.size)
    return read_plan(expand_header(file.read(head.header_size), old_manifest), head, before)


def _check_room(build: Path, new: Path, plan: PatchPlan) -> None:
    """Raise BundleError before the first file is begun when the new files do not fit."""
    # Packing copies every file.
    needed = sum(plan.sizes.values()) * (2 if is_packed(new) else 1)

    free = shutil.disk_usage(build).free
    if needed + _SPARE_ROOM > free:
        raise BundleError(
            f"{new}: the new build needs {needed} bytes of room and {free} are free; "
            "make room for it"
        )


def _check_result(build: Path, new: Path, plan: PatchPlan, patch: str) -> None:
    """Raise BundleError unless the files in `build` are a bundle that this release runs."""
    try:
        result = Manifest.load(build)
        result.check_files()
    except BundleError as error:
        text = str(error).replace(str(build), str(new))
        raise BundleError(
            f"{patch}: makes no bundle that runs here ({text}); get another patch"
        ) from error

    # A patch makes whole sides: all files of each placement that it makes one of.
    if not plan.recipes:
        raise BundleError(f"{patch}: makes a bundle with no files; get another patch")
    places = {_place_of(name) for name in plan.recipes}
    for name in sorted(named_files(result.raw)):
        if _place_of(name) in places and name not in plan.recipes:
            raise BundleError(
                f"{patch}: makes a bundle with no {name!r}, which it names; get another patch"
            )


def _place_of(name: str) -> str:
    """The placement that a file of a bundle belongs to."""
    return name.partition("/")[0]


def _reason(error: BaseException) -> str:
    """An exception in one short line."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r:.80}"
    return str(error)[:200] or type(error).__name__


@contextmanager
def _new_packed(path: Path, patch: str) -> Generator[Path]:
    """A temporary folder that is packed into `path` when the block ends without an error."""
    with scratch_folder(path) as build:
        yield build

        manifest = Manifest.load(build)
        names = [name for name in manifest.files if manifest.store.holds(name)]
        if len({_place_of(name) for name in names}) != 1:
            raise BundleError(
                f"{path}: {patch} makes both sides; make one with --place, or give a folder"
            )
        write_file(path, lambda file: write_packed(manifest, names, file), durable=True)


class _Rebuild:
    """Makes the files of the new build in a folder.

    Blocks and planes lie in the patch in the order in which the files are made, so that each is
    read once, forwards.
    """

    def __init__(
        self, before: Manifest | None, file: BinaryIO, head: Head, plan: PatchPlan, build: Path
    ) -> None:
        self._before = before
        self._head = head
        self._plan = plan
        self._build = build
        self._files: dict[str, str] = plan.manifest["files"]

        start = HEAD.size + head.header_size
        self._rests = sections(file, start, plan.rests)
        start += sum(plan.rests)
        plane_sections = sections(file, start, [plane.size for plane in plan.planes])
        self._planes: dict[tuple[int, int], PlaneReader] = {}
        for plane, section in zip(plan.planes, plane_sections, strict=True):
            self._planes[plane.width, plane.index] = PlaneReader(section, plane.bits)

    def run(self, progress: Progress) -> None:
        """Make all files and the manifest, and verify the manifest's digest."""
        steps = Steps(progress, len(self._plan.recipes))
        for name, recipe in self._plan.recipes.items():
            steps.begin(name)
            self._make(name, recipe)

        # The patch leaves out the digests that the files tell.
        boundaries = self._plan.manifest["boundaries"]
        for boundary, name in zip(boundaries, self._plan.descriptors, strict=True):
            schema = FrameSchema.from_bytes((self._build / name).read_bytes())
            boundary["digest"] = schema.digest.hex()

        text = manifest_text(self._plan.manifest).encode()
        if hashlib.sha256(text).hexdigest() != self._head.manifest:
            if self._before is not None:
                self._before.check_files()
            raise BundleError(
                "the result is not the build that the patch was made for; get the patch again"
            )
        (self._build / MANIFEST).write_bytes(text)

    def _make(self, name: str, recipe: Recipe) -> None:
        """Make one file, which must have the size that the plan says."""
        path = self._build / name
        path.parent.mkdir(parents=True, exist_ok=True)

        digest = hashlib.sha256()
        left = self._plan.sizes[name]
        with path.open("xb") as file:
            for block in self._blocks(name, recipe):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                file.write(block)

        if left:
            raise ValueError(f"'{name}' is not as large as it is said to be")
        if isinstance(recipe, Copied) and digest.hexdigest() != self._files[name]:
            raise BundleError(
                f"{name}: differs from what the patch was made for; check the old bundle"
            )
        self._files[name] = digest.hexdigest()

    def _blocks(self, name: str, recipe: Recipe) -> Iterator[Block]:
        """The contents of a file."""
        if isinstance(recipe, CodedFile):
            return self._coded(recipe)
        if isinstance(recipe, Twin):
            return self._contents(self._build / recipe.name)

        assert self._before is not None  # `read_plan` has checked it
        if isinstance(recipe, OldDescriptor):
            old = self._before.boundaries[recipe.index]
            return iter((descriptor_of(old, self._plan.manifest["digest"]),))
        return self._copied(self._before, name)

    def _copied(self, before: Manifest, name: str) -> Iterator[Block]:
        with before.store.open(name) as file:
            yield from blocks_of(file)

    def _contents(self, path: Path) -> Iterator[Block]:
        with path.open("rb") as file:
            yield from blocks_of(file)

    def _coded(self, recipe: CodedFile) -> Iterator[Block]:
        if self._before is None or not recipe.base:
            yield from self._coded_from(None, recipe)
            return
        store = self._before.store
        with store.open(recipe.base) as file:
            yield from self._coded_from(Contents(file, store.size(recipe.base)), recipe)

    def _coded_from(self, old: Contents | None, recipe: CodedFile) -> Iterator[Block]:
        """The new file in order: spans, and between them the other bytes."""
        others = _Bytes(self._rest_blocks(old, recipe))
        end = taken = 0
        for span in recipe.spans:
            gap = span.new - end
            yield from others.take(gap)
            taken += gap
            for offset in range(0, span.length, BLOCK):
                assert old is not None  # `read_plan` has checked that the span lies in it
                before = old.read(span.old + offset, min(BLOCK, span.length - offset))
                yield before if span.coding == "same" else self._restored(span, before)

            end = span.new + span.length
        yield from others.take(recipe.rest_size - taken)

    def _restored(self, span: WeightSpan, before: bytes) -> bytes:
        """New elements from old ones and from the byte planes of their differences."""
        kind = KINDS[span.width]
        count = len(before) // span.width
        difference = np.empty((count, span.width), np.uint8)

        for index in range(span.width):
            difference[:, index] = self._planes[span.width, index].take(count)

        old = np.frombuffer(before, kind)
        return restored(span.coding, old, difference.reshape(-1).view(kind)).tobytes()

    def _rest_blocks(self, old: Contents | None, recipe: CodedFile) -> Iterator[Block]:
        """The bytes outside of spans, in blocks as they were compressed."""
        old_rest = None if old is None else OldRest(old, recipe.spans)
        for index in range(len(recipe.rests)):
            section = next(self._rests).read()
            around = b"" if old_rest is None else old_rest.around(index)

            size = min(REST_BLOCK, recipe.rest_size - index * REST_BLOCK)
            yield expand(section, around, size)


@dataclass
class _Bytes:
    """A sequence of blocks to take bytes off, whatever the sizes of the blocks."""

    blocks: Iterator[Block]
    left: memoryview = field(default_factory=lambda: memoryview(b""))

    def take(self, count: int) -> Iterator[Block]:
        """The next `count` bytes. Raises ValueError when there are fewer."""
        if count < 0:
            raise ValueError("spans that overlap")
        while count:
            if not self.left:
                self.left = memoryview(next(self.blocks, b""))
                if not self.left:
                    raise ValueError("other bytes end too early")

            block, self.left = self.left[:count], self.left[count:]
            count -= len(block)
            yield block


def _read(manifest: Manifest, name: str) -> bytes:
    with manifest.store.open(name) as file:
        return file.read()
