"""A new build of a bundle out of an old one and a patch, made in blocks: memory does not grow with its files."""

import hashlib
import json
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

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
from irsplit.runtime.bundle.manifest import Manifest, manifest_text
from irsplit.runtime.bundle.packing import write_packed
from irsplit.runtime.bundle.patch_format import (
    BLOCK,
    HEAD,
    KINDS,
    LARGEST_FILE,
    NAME_SIZE,
    REST_BLOCK,
    Block,
    BytePlane,
    Contents,
    Head,
    OldRest,
    PlaneReader,
    WeightSpan,
    blocks_of,
    descriptor_of,
    expand,
    expand_header,
    fits,
    read_head,
    restored,
    sections,
    unpacked,
)
from irsplit.runtime.bundle.store import is_packed
from irsplit.runtime.frame.descriptor import FrameSchema


def apply_delta(
    old: Path | None, patch: Path, new: Path, *, progress: Progress = silent
) -> Manifest:
    """As `apply_patch`, for a patch in a file."""
    try:
        with patch.open("rb") as file:
            return apply_patch(old, file, str(patch), new, progress=progress)
    except OSError as error:
        raise BundleError(f"{patch}: {error.strerror}") from error


def apply_patch(
    old: Path | None, file: BinaryIO, patch: str, new: Path, *, progress: Progress = silent
) -> Manifest:
    """Make bundle `new` of bundle `old` and a patch; it appears whole or not at all, even when the power fails.

    Either may be a packed side, by its name. `patch` is what errors call it. A patch that holds the whole build needs
    no old one. Raises BundleError when it is damaged or for another build, or a result does not have its digest.
    """
    head = read_head(file, patch)
    before = Manifest.load(old) if old is not None and head.old else None
    mine = "" if before is None else before.digest[: 2 * NAME_SIZE]
    if head.old != mine:
        raise BundleError(
            f"{patch}: is for build {head.old}, {old} is {mine or 'none'}; get another patch"
        )
    try:
        with _new_packed(new) if is_packed(new) else new_folder(new) as build:
            _Rebuild(before, file, head, build).run(progress)
            make_durable(build)
        make_durable_name(new)
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        struct.error,
        zstandard.ZstdError,
    ) as error:
        raise BundleError(f"{patch}: impossible contents ({error}); get it again") from error
    return Manifest.load(new)


@contextmanager
def _new_packed(path: Path) -> Generator[Path]:
    """A temporary folder that is packed into `path` when the block ends well."""
    with scratch_folder(path) as build:
        yield build
        manifest = Manifest.load(build)
        names = [name for name in manifest.files if manifest.store.holds(name)]
        if len({name.partition("/")[0] for name in names}) != 1:
            raise BundleError(
                f"{path}: the patch makes both sides; make one with --place, or give a folder"
            )
        write_file(path, lambda file: write_packed(manifest, names, file), durable=True)


class _Rebuild:
    """Makes the files of the new build in a folder."""

    def __init__(self, before: Manifest | None, file: BinaryIO, head: Head, build: Path) -> None:
        self._before = before
        self._head = head
        self._build = build
        file.seek(HEAD.size)
        known = b"" if before is None else _read(before, MANIFEST)
        words, _, manifest = expand_header(file.read(head.header_size), known).partition(b"\n")
        self._header: dict[str, Any] = json.loads(words)
        self._manifest: dict[str, Any] = json.loads(manifest)
        self._files: dict[str, str] = self._manifest["files"]
        rests = [
            size
            for recipe in self._header["made"].values()
            if recipe[0] == "coded"
            for size in recipe[2]
        ]
        self._rests = sections(file, HEAD.size + head.header_size, rests)
        planes = [BytePlane(*row) for row in self._header["planes"]]
        coded = sections(
            file, HEAD.size + head.header_size + sum(rests), [plane.size for plane in planes]
        )
        self._planes = {
            (p.width, p.index): PlaneReader(s, p.bits) for p, s in zip(planes, coded, strict=True)
        }

    def run(self, progress: Progress) -> None:
        names = [name for name in self._files if name.startswith(self._header["place"])]
        steps = Steps(progress, len(names))
        for name in names:
            steps.begin(name)
            self._make(name)
        for item in self._manifest["boundaries"]:
            found = next(
                path
                for name in item["descriptor"].values()
                if (path := self._build / name).is_file()
            )
            item["digest"] = FrameSchema.from_bytes(found.read_bytes()).digest.hex()
        text = manifest_text(self._manifest).encode()
        if hashlib.sha256(text).hexdigest() != self._head.manifest:
            if self._before is not None:
                self._before.check_files()
            raise BundleError(
                "the result is not the build that the patch was made for; get the patch again"
            )
        (self._build / MANIFEST).write_bytes(text)

    def _make(self, name: str) -> None:
        path = self._build / name
        if not path.resolve().is_relative_to(self._build.resolve()):
            raise ValueError(f"a file '{name}' outside of the bundle")
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = self._header["made"].get(name)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for block in self._copied(name) if recipe is None else self._blocks(name, recipe):
                digest.update(block)
                file.write(block)
        if recipe is None and digest.hexdigest() != self._files[name]:
            raise BundleError(
                f"{name}: differs from what the patch was made for; check the old bundle"
            )
        self._files[name] = digest.hexdigest()

    def _copied(self, name: str) -> Iterator[Block]:
        if self._before is None:
            raise ValueError(f"'{name}' is to be copied from nothing")
        with self._before.store.open(name) as file:
            yield from blocks_of(file)

    def _blocks(self, name: str, recipe: list[Any]) -> Iterator[Block]:
        kinds: dict[str, Callable[..., Iterator[Block]]] = {
            "as": self._as_another,
            "boundary": self._boundary,
            "coded": partial(self._coded_as, name),
        }
        return kinds[recipe[0]](*recipe[1:])

    def _as_another(self, name: str) -> Iterator[Block]:
        """The same as a file that was made before."""
        if name not in self._files:
            raise ValueError(f"no file '{name}'")
        with (self._build / name).open("rb") as file:
            yield from blocks_of(file)

    def _boundary(self, index: int) -> Iterator[Block]:
        """The descriptor of an old boundary that crosses in the new build just so."""
        if self._before is None:
            raise ValueError("a boundary of nothing")
        yield descriptor_of(self._before.boundaries[index], self._manifest["digest"])

    def _coded_as(
        self, name: str, has_old: bool, rests: Sequence[int], rest_size: int, spans: list[int]
    ) -> Iterator[Block]:
        """A file by its recipe in the patch."""
        return self._coded(name if has_old else "", len(rests), rest_size, unpacked(spans))

    def _coded(
        self, base: str, rests: int, rest_size: int, spans: Sequence[WeightSpan]
    ) -> Iterator[Block]:
        """The new file in order: spans, and between them the other bytes."""
        size = 0 if self._before is None or not base else self._before.store.size(base)
        new_size = rest_size + sum(span.length for span in spans)
        if not 0 <= new_size <= LARGEST_FILE or any(not fits(span, size) for span in spans):
            raise ValueError("a span or a size that no file has")
        if self._before is None or not base:
            yield from self._coded_from(None, rests, rest_size, new_size, spans)
            return
        with self._before.store.open(base) as old:
            yield from self._coded_from(Contents(old, size), rests, rest_size, new_size, spans)

    def _coded_from(
        self,
        old: Contents | None,
        rests: int,
        rest_size: int,
        new_size: int,
        spans: Sequence[WeightSpan],
    ) -> Iterator[Block]:
        others = _Bytes(self._rest_blocks(old, rests, rest_size, spans))
        end = 0
        for span in spans:
            yield from others.take(span.new - end)
            for offset in range(0, span.length, BLOCK):
                assert old is not None  # a span fits in it
                before = old.read(span.old + offset, min(BLOCK, span.length - offset))
                yield before if span.coding == "same" else self._restored(span, before)
            end = span.new + span.length
        yield from others.take(new_size - end)

    def _restored(self, span: WeightSpan, before: bytes) -> bytes:
        kind = KINDS[span.width]
        count = len(before) // span.width
        coded = np.empty((count, span.width), np.uint8)
        for index in range(span.width):
            coded[:, index] = self._planes[span.width, index].take(count)
        return restored(
            span.coding, np.frombuffer(before, kind), coded.reshape(-1).view(kind)
        ).tobytes()

    def _rest_blocks(
        self, old: Contents | None, count: int, size: int, spans: Sequence[WeightSpan]
    ) -> Iterator[Block]:
        known = None if old is None else OldRest(old, spans)
        if count != -(-size // REST_BLOCK):
            raise ValueError(f"{count} blocks for {size} bytes")
        for index in range(count):
            section = next(self._rests).read()
            around = b"" if known is None else known.around(index)
            yield expand(section, around, min(REST_BLOCK, size - index * REST_BLOCK))


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
