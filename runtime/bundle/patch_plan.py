"""The plan of a patch, read and checked before the first byte is written.

A patch may come from a stranger. The check makes sure that its names stay inside of the bundle,
that a file which repeats another one names one that this patch has made before, that old files are
files of the old bundle, and that the size of every file is known.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irsplit.base.atomic_files import MANIFEST
from irsplit.runtime.bundle import patch_format
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.patch_format import (
    HEAD,
    KINDS,
    LARGEST_BUILD,
    LARGEST_FILE,
    BytePlane,
    Head,
    WeightSpan,
    fits,
    unpacked,
)
from irsplit.runtime.bundle.store import MOST_FILES, check_name

_MOST_VALUES = 1 << 21
"""Limit on the JSON values of a header. Each takes about 100 bytes when it is parsed."""
_LARGEST_DESCRIPTOR = 1 << 28
_MOST_PLANES = sum(KINDS)
_PLACES = ("", "device/", "server/")


@dataclass(frozen=True, slots=True)
class Copied:
    """Take a file of the old build as it is."""


@dataclass(frozen=True, slots=True)
class Twin:
    """Repeat a file that this patch has made before."""

    name: str


@dataclass(frozen=True, slots=True)
class OldDescriptor:
    """Take the descriptor of an old boundary, which crosses unchanged in the new build."""

    index: int


@dataclass(frozen=True, slots=True)
class CodedFile:
    """Decode spans, and put other bytes between them.

    Attributes:
        base: The old file that the spans are coded against; "" without one.
        rests: Compressed sizes of the blocks of the other bytes.
        rest_size: How many other bytes there are.
        spans: The spans in the order of the new file.
    """

    base: str
    rests: tuple[int, ...]
    rest_size: int
    spans: Sequence[WeightSpan]


Recipe = Copied | Twin | OldDescriptor | CodedFile
"""How a file of the new build is made."""


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """How the files of a build are made.

    Attributes:
        manifest: The new manifest, still without the digests that the result tells.
        recipes: By file, in the order in which they are made.
        sizes: Bytes of each file.
        descriptors: For each boundary, a file with its descriptor among those that are made.
        planes: The byte planes, in the order in which they lie in the patch.
    """

    manifest: dict[str, Any]
    recipes: Mapping[str, Recipe]
    sizes: Mapping[str, int]
    descriptors: Sequence[str]
    planes: Sequence[BytePlane]

    @property
    def rests(self) -> list[int]:
        """Compressed sizes of all blocks, in the order in which they lie in the patch."""
        sizes: list[int] = []
        for recipe in self.recipes.values():
            if isinstance(recipe, CodedFile):
                sizes.extend(recipe.rests)
        return sizes


def read_plan(text: bytes, head: Head, before: Manifest | None) -> PatchPlan:
    """Read a plan and check it against the old build.

    Args:
        text: The expanded header of the patch.
        head: The fixed fields of the patch.
        before: The old build; None without one.

    Raises:
        ValueError: The header asks for something that no patch asks for. KeyError, TypeError and
            RecursionError mean the same.
        BundleError: The old bundle lacks a file.
    """
    # A line of JSON, and the new manifest.
    first_line, _, described = text.partition(b"\n")
    header, manifest = _read_object(first_line), _read_object(described)
    if header["place"] not in _PLACES:
        raise ValueError(f"the place {header['place']!r:.80}")
    names = [name for name in _names_of(manifest) if name.startswith(header["place"])]
    if not set(header["made"]) <= set(names):
        raise ValueError("a file that the new build has not")

    # In this order, so that a file can repeat one that is made before.
    recipes: dict[str, Recipe] = {}
    sizes: dict[str, int] = {}
    for name in names:
        recipe = _read_recipe(name, header["made"].get(name), sizes)
        size = _size(name, recipe, before, manifest["digest"], sizes)
        recipes[name], sizes[name] = recipe, _whole(size, LARGEST_FILE)
    _whole(sum(sizes.values()), LARGEST_BUILD)

    descriptors = [_made_descriptor(item, sizes) for item in manifest["boundaries"]]
    planes = _read_planes(header["planes"])
    plan = PatchPlan(manifest, recipes, sizes, descriptors, planes)
    end = HEAD.size + head.header_size + sum(plan.rests) + sum(plane.size for plane in planes)
    if end > head.size:
        raise ValueError("sections that end behind the patch")
    return plan


def _read_object(text: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for one that would take much memory."""
    # Every value but the first of a list or object is behind a comma.
    values = text.count(b"[") + text.count(b"{") + text.count(b",")
    if values > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES} values")

    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("a header that is no object")
    return data


def _names_of(manifest: Mapping[str, Any]) -> list[str]:
    """The files of the new build. No file may be in the place of another one's folder."""
    if len(manifest["files"]) > MOST_FILES:
        raise ValueError(f"{len(manifest['files'])} files, a bundle has at most {MOST_FILES}")
    names = [check_name(name) for name in manifest["files"]]

    folders: set[str] = set()
    for name in names:
        components = name.split("/")
        folders.update("/".join(components[:depth]) for depth in range(1, len(components)))
    taken = folders.intersection(names)
    if taken or MANIFEST in names:
        raise ValueError(f"two files in the place of {min(taken, default=MANIFEST)!r}")
    return names


def _read_recipe(name: str, words: Any, made: Mapping[str, int]) -> Recipe:
    """The recipe of a file.

    Args:
        name: The file.
        words: The kind of the recipe and its values; None to copy the old file.
        made: The files that are made before.
    """
    if words is None:
        return Copied()
    kind, *values = words
    if kind == "as":
        (twin,) = values
        if twin not in made:
            raise ValueError(f"{name!r} as {twin!r:.80}, which is not made before")
        return Twin(twin)
    if kind == "boundary":
        (index,) = values
        return OldDescriptor(_whole(index, LARGEST_FILE))
    if kind == "coded":
        has_old, rests, rest_size, numbers = values
        return _read_coded(name if _whole(has_old, 1) else "", rests, rest_size, numbers)
    raise ValueError(f"{name!r} made by {kind!r:.80}")


def _read_coded(
    base: str, rests: Sequence[Any], rest_size: Any, numbers: Sequence[Any]
) -> CodedFile:
    """The recipe of a coded file.

    Args:
        base: The old file; "" without one.
        rests: Compressed sizes of the blocks of other bytes.
        rest_size: How many other bytes there are.
        numbers: The packed spans.
    """
    count = -(-_whole(rest_size, LARGEST_FILE) // patch_format.REST_BLOCK)
    if len(rests) != count:
        raise ValueError(f"{len(rests)} blocks for {rest_size} bytes")
    if not all(isinstance(number, int) and abs(number) <= LARGEST_BUILD for number in numbers):
        raise ValueError("a span that no file has")

    # Data that zstandard cannot compress grow by less than this.
    largest = patch_format.REST_BLOCK + patch_format.REST_BLOCK // 16 + 1024
    sizes = tuple(_whole(size, largest) for size in rests)
    return CodedFile(base, sizes, rest_size, unpacked(numbers))


def _size(
    name: str, recipe: Recipe, before: Manifest | None, digest: Any, made: Mapping[str, int]
) -> int:
    """Bytes of a file, after a look at what it is made from.

    Args:
        name: The file.
        recipe: How it is made.
        before: The old build; None without one.
        digest: The digest of the new build.
        made: Sizes of the files that are made before.
    """
    if isinstance(recipe, Twin):
        return made[recipe.name]
    if isinstance(recipe, CodedFile):
        return _coded_size(recipe, before)

    # Everything else is made from the old build.
    if before is None:
        raise ValueError(f"{name!r} is to be made from nothing")
    if isinstance(recipe, Copied):
        return before.store.size(name)
    if recipe.index >= len(before.boundaries):
        raise ValueError(f"boundary {recipe.index} of {len(before.boundaries)}")
    return len(patch_format.descriptor_of(before.boundaries[recipe.index], digest))


def _coded_size(recipe: CodedFile, before: Manifest | None) -> int:
    """Bytes of a coded file, whose spans are checked against the old file."""
    old_size = 0
    if before is not None and recipe.base:
        old_size = before.store.size(recipe.base)

    size = recipe.rest_size + sum(span.length for span in recipe.spans)
    _check_spans(recipe.spans, old_size, size)
    return size


def _check_spans(spans: Sequence[WeightSpan], old_size: int, size: int) -> None:
    """Raise ValueError unless the spans lie in both files, in the order of the new one.

    Args:
        spans: The spans.
        old_size: Bytes of the old file.
        size: Bytes of the new file.
    """
    end = 0
    for span in spans:
        if not fits(span, old_size) or span.new < end:
            raise ValueError("a span that no file has, or two that overlap")
        end = span.new + span.length
    if end > size:
        raise ValueError("a span behind the end of its file")


def _read_planes(rows: Sequence[Sequence[Any]]) -> list[BytePlane]:
    """The planes, at most one for each byte of each width."""
    planes: list[BytePlane] = []
    kinds: set[tuple[int, int]] = set()
    for row in rows[:_MOST_PLANES]:
        plane = BytePlane(*(_whole(number, LARGEST_BUILD) for number in row))
        planes.append(plane)
        if plane.width in KINDS and plane.index < plane.width:
            kinds.add((plane.width, plane.index))

    if len(kinds) != len(rows):
        raise ValueError("a plane that no patch has, or one twice")
    return planes


def _made_descriptor(boundary: Mapping[str, Any], made: Mapping[str, int]) -> str:
    """The file among those that are made that has a boundary's descriptor."""
    for name in boundary["descriptor"].values():
        if name in made:
            break
    else:
        raise ValueError("a boundary without a descriptor")

    # It is read whole to find the digest of the boundary.
    if made[name] > _LARGEST_DESCRIPTOR:
        raise ValueError("a descriptor larger than any")
    return name


def _whole(number: Any, most: int) -> int:
    """A whole number from 0 to `most`. Raises ValueError for anything else."""
    if not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError(f"{number!r:.40} where a number from 0 to {most} stands")
    return number
