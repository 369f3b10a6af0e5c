"""A new build of a bundle out of an old one and a patch, made in blocks: memory does not grow with its files."""

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
"""What reading and applying a patch raises when its contents are not what `irsplit delta` writes."""


def apply_delta(
    old: Path | None,
    patch: Path,
    new: Path,
    *,
    public_key: Path | None = None,
    progress: Progress = silent,
) -> Manifest:
    """As `apply_patch`, for a patch in a file."""
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
    """Make bundle `new` of bundle `old` and a patch; it appears whole or not at all, even when the power fails.

    Either may be a packed side, by its name. `patch` is what errors call it. A patch that holds the whole build needs
    no old one. With `public_key`, a PEM file, the patch must be signed by its owner (`irsplit delta --sign`). The
    result is loaded and its digests are checked before it takes the place of anything.

    Raises BundleError when the patch is damaged or for another build, or does not make a bundle that runs here; what
    was at `new` is then as it was.
    """
    head = read_head(file, patch)
    if public_key is not None:
        _check_signature(head, public_key, patch)
    before = Manifest.load(old) if old is not None and head.old else None
    mine = "" if before is None else before.digest[: 2 * NAME_SIZE]
    if head.old != mine:
        raise BundleError(
            f"{patch}: is for build {head.old}, {old} is {mine or 'none'}; get another patch"
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
        raise BundleError(f"{patch}: impossible contents ({_told(error)}); get it again") from error
    return Manifest.load(new)


def _check_signature(head: Head, public_key: Path, patch: str) -> None:
    key = load_public_key(public_key)
    if not head.signature:
        raise BundleError(
            f"{patch}: is not signed; make it with 'irsplit delta --sign', or leave the public key out"
        )
    if not is_signed_by(key, head.signature, bytes.fromhex(head.manifest)):
        raise BundleError(
            f"{patch}: is not signed by the owner of {public_key}; get it from whom you trust"
        )


def _read_plan(before: Manifest | None, file: BinaryIO, head: Head) -> PatchPlan:
    known = b"" if before is None else _read(before, MANIFEST)
    file.seek(HEAD.size)
    return read_plan(expand_header(file.read(head.header_size), known), head, before)


def _check_room(build: Path, new: Path, plan: PatchPlan) -> None:
    """Raise BundleError when the files that the patch makes do not fit, before the first of them is begun."""
    needed = sum(plan.sizes.values()) * (2 if is_packed(new) else 1)  # packing copies them
    free = shutil.disk_usage(build).free
    if needed + _SPARE_ROOM > free:
        raise BundleError(
            f"{new}: the new build needs {needed} bytes of room and {free} are free; make room for it"
        )


def _check_result(build: Path, new: Path, plan: PatchPlan, patch: str) -> None:
    """Raise BundleError unless the files in `build` are a bundle that this release runs, each with its digest."""
    try:
        made = Manifest.load(build)
        made.check_files()
    except BundleError as error:
        text = str(error).replace(str(build), str(new))
        raise BundleError(
            f"{patch}: makes no bundle that runs here ({text}); get another patch"
        ) from error
    places = {name.partition("/")[0] for name in plan.recipes}
    wanted = {name for name in named_files(made.raw) if name.partition("/")[0] in places}
    missing = min(wanted - set(plan.recipes), default=None)
    if missing is not None or not plan.recipes:
        text = "no files" if missing is None else f"no {missing!r}, which it names"
        raise BundleError(f"{patch}: makes a bundle with {text}; get another patch")


def _told(error: BaseException) -> str:
    """What an exception says, or is called, in one short line."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r:.80}"
    return str(error)[:200] or type(error).__name__


@contextmanager
def _new_packed(path: Path, patch: str) -> Generator[Path]:
    """A temporary folder that is packed into `path` when the block ends well."""
    with scratch_folder(path) as build:
        yield build
        manifest = Manifest.load(build)
        names = [name for name in manifest.files if manifest.store.holds(name)]
        if len({name.partition("/")[0] for name in names}) != 1:
            raise BundleError(
                f"{path}: {patch} makes both sides; make one with --place, or give a folder"
            )
        write_file(path, lambda file: write_packed(manifest, names, file), durable=True)


class _Rebuild:
    """Makes the files of the new build in a folder."""

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
        coded = sections(file, start + sum(plan.rests), [plane.size for plane in plan.planes])
        self._planes = {
            (p.width, p.index): PlaneReader(s, p.bits)
            for p, s in zip(plan.planes, coded, strict=True)
        }

    def run(self, progress: Progress) -> None:
        steps = Steps(progress, len(self._plan.recipes))
        for name, recipe in self._plan.recipes.items():
            steps.begin(name)
            self._make(name, recipe)
        for item, name in zip(
            self._plan.manifest["boundaries"], self._plan.descriptors, strict=True
        ):
            item["digest"] = FrameSchema.from_bytes((self._build / name).read_bytes()).digest.hex()

        text = manifest_text(self._plan.manifest).encode()
        if hashlib.sha256(text).hexdigest() != self._head.manifest:
            if self._before is not None:
                self._before.check_files()
            raise BundleError(
                "the result is not the build that the patch was made for; get the patch again"
            )
        (self._build / MANIFEST).write_bytes(text)

    def _make(self, name: str, recipe: Recipe) -> None:
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
        if isinstance(recipe, CodedFile):
            return self._coded(recipe)
        if isinstance(recipe, Twin):
            return self._contents(self._build / recipe.name)
        assert self._before is not None  # the plan says so
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
        """The new file in order: spans, and between them the other bytes."""
        if self._before is None or not recipe.base:
            yield from self._coded_from(None, recipe)
            return
        with self._before.store.open(recipe.base) as old:
            yield from self._coded_from(Contents(old, self._before.store.size(recipe.base)), recipe)

    def _coded_from(self, old: Contents | None, recipe: CodedFile) -> Iterator[Block]:
        others = _Bytes(self._rest_blocks(old, recipe))
        end = rest_end = 0
        for span in recipe.spans:
            rest_end += span.new - end
            yield from others.take(span.new - end)
            for offset in range(0, span.length, BLOCK):
                assert old is not None  # a span fits in it
                before = old.read(span.old + offset, min(BLOCK, span.length - offset))
                yield before if span.coding == "same" else self._restored(span, before)
            end = span.new + span.length
        yield from others.take(recipe.rest_size - rest_end)

    def _restored(self, span: WeightSpan, before: bytes) -> bytes:
        kind = KINDS[span.width]
        count = len(before) // span.width
        coded = np.empty((count, span.width), np.uint8)
        for index in range(span.width):
            coded[:, index] = self._planes[span.width, index].take(count)
        return restored(
            span.coding, np.frombuffer(before, kind), coded.reshape(-1).view(kind)
        ).tobytes()

    def _rest_blocks(self, old: Contents | None, recipe: CodedFile) -> Iterator[Block]:
        known = None if old is None else OldRest(old, recipe.spans)
        for index in range(len(recipe.rests)):
            section = next(self._rests).read()
            around = b"" if known is None else known.around(index)
            yield expand(section, around, min(REST_BLOCK, recipe.rest_size - index * REST_BLOCK))


@dataclass
class _Bytes:
    """Blocks as one sequence to take bytes off."""

    blocks: Iterator[Block]
    left: memoryview = field(default_factory=lambda: memoryview(b""))

    def take(self, count: int) -> Iterator[Block]:
        if count < 0:
            raise ValueError("spans that overlap")
        while count:
            if not self.left:
                self.left = memoryview(next(self.blocks, b""))
                if not self.left:
                    raise ValueError("other bytes end too early")
            part, self.left = self.left[:count], self.left[count:]
            count -= len(part)
            yield part


def _read(manifest: Manifest, name: str) -> bytes:
    with manifest.store.open(name) as file:
        return file.read()
