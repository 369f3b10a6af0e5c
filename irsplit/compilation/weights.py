"""Find the weights that two builds of a bundle share, and choose how a patch codes each of them.

A weight of the new build is matched with the old weight of the same name and size. Equal weights
cost nothing. A changed weight is coded as the exclusive or of the bits, or as the difference of the
bit patterns in the order of the numbers that they stand for, whichever needs fewer bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import IrsplitError
from irsplit.dialects.registry import dialect_of
from irsplit.ir import TensorType, Value
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.patch_format import (
    BLOCK,
    KINDS,
    Bytes,
    Contents,
    WeightSpan,
    coded,
)

_SMALL_BYTES = 64
"""A changed weight up to this size becomes no span: describing one costs as much as it saves."""


@dataclass(frozen=True, slots=True)
class Weight:
    """Where a weight lies in a file, and what its elements are."""

    name: str
    offset: int
    length: int
    width: int
    """Bytes of an element; 1 where the bits of an element mean nothing to a patch."""
    is_float: bool


def weights_of(manifest: Manifest) -> Mapping[str, list[Weight]]:
    """Find the weights in all files of a bundle, data files beside a model included.

    Args:
        manifest: The bundle.

    Returns:
        The weights of every file, by its path in the bundle. A segment that its dialect cannot
        read has none.
    """
    files: set[str] = set()
    for segment in manifest.segments:
        files.update((segment.file, *segment.copies.values()))

    weights: dict[str, list[Weight]] = {}
    for file in sorted(files):
        path = manifest.folder / file
        try:
            model = dialect_of(path).read(path)
        except IrsplitError:
            continue
        for graph in model.graphs:
            for value in graph.constants:
                _add_weight(weights, value, manifest.folder)
    return weights


def _add_weight(weights: dict[str, list[Weight]], value: Value, folder: Path) -> None:
    """Add a constant to the weights of its file; one without bytes in a file is left out."""
    constant = value.constant
    if constant is None or constant.encoding != "raw" or not constant.length:
        return
    if constant.buffer.path is None:
        return

    width, is_float = 1, False
    storage = value.type.dtype.storage if isinstance(value.type, TensorType) else None
    if storage is not None:
        is_float = storage.kind == "f"
        if storage.itemsize in KINDS:
            width = storage.itemsize

    path = Path(constant.buffer.path).resolve()
    name = path.relative_to(folder.resolve()).as_posix()
    weight = Weight(value.name, constant.offset, constant.length, width, is_float)
    weights.setdefault(name, []).append(weight)


def spans_of(
    old: Sequence[Weight], new: Sequence[Weight], old_file: Contents, new_file: Contents
) -> list[WeightSpan]:
    """Match the weights of two builds of a file.

    Args:
        old: The weights of the old file.
        new: The weights of the new file.
        old_file: The bytes of the old file.
        new_file: The bytes of the new file.

    Returns:
        The weights that both files have, ordered by offset in the new file and without overlap.
        Spans of equal bytes reach as far as the bytes around the weight are equal too.
    """
    old_by_name = {(weight.name, weight.length): weight for weight in old}
    spans: list[WeightSpan] = []
    end = 0
    for weight in sorted(new, key=lambda weight: weight.offset):
        base = old_by_name.get((weight.name, weight.length))
        overlaps = weight.offset < end
        if base is None or overlaps or weight.length % weight.width:
            continue

        span = _span(base.offset, weight, old_file, new_file)
        if span.coding != "same" and span.length <= _SMALL_BYTES:
            continue
        spans.append(span)
        end = span.new + span.length
    return _grown(spans, old_file, new_file)


def _span(base: int, weight: Weight, old: Contents, new: Contents) -> WeightSpan:
    """Code a weight against the old one at `base`, in the coding that needs fewer bits."""
    span = WeightSpan(base, weight.offset, weight.length, weight.width, "same")
    if all(np.array_equal(a, b) for a, b in element_blocks(span, old, new)):
        return replace(span, width=1)

    by_xor = replace(span, coding="xor")
    by_order = replace(span, coding="floats" if weight.is_float else "integers")
    return min(by_xor, by_order, key=lambda candidate: _entropy(candidate, old, new))


def element_blocks(
    span: WeightSpan, old: Contents, new: Contents
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the old and the new elements of a span as unsigned integers, a block at a time."""
    kind = KINDS[span.width]
    for offset in range(0, span.length, BLOCK):
        size = min(BLOCK, span.length - offset)
        before = old.read(span.old + offset, size)
        after = new.read(span.new + offset, size)
        yield np.frombuffer(before, kind), np.frombuffer(after, kind)


def byte_planes(elements: NDArray[Any]) -> Bytes:
    """Return the bytes of the elements as [width, elements], the lowest byte first."""
    return np.ascontiguousarray(elements.view(np.uint8).reshape(-1, elements.itemsize).T)


def _entropy(span: WeightSpan, old: Contents, new: Contents) -> float:
    """Return the bits that an ideal coder without memory needs for the byte planes of a span."""
    counts = np.zeros((span.width, 256), np.int64)
    for a, b in element_blocks(span, old, new):
        for index, plane in enumerate(byte_planes(coded(span.coding, a, b))):
            counts[index] += np.bincount(plane, minlength=256)

    occurring = counts[counts > 0]
    shares = occurring / (span.length // span.width)
    return -float((occurring * np.log2(shares)).sum())


# -- spans of equal bytes -----------------------------------------------------------------------


def _grown(spans: Sequence[WeightSpan], old: Contents, new: Contents) -> list[WeightSpan]:
    """Extend equal spans by the equal bytes around them, and join those that then meet."""
    grown: list[WeightSpan] = []
    for index, span in enumerate(spans):
        begin = grown[-1].new + grown[-1].length if grown else 0
        end = spans[index + 1].new if index + 1 < len(spans) else new.size
        if span.coding == "same":
            span = _extended(span, old, new, begin, end)
        if grown and _continues(grown[-1], span):
            before = grown.pop()
            span = replace(before, length=before.length + span.length)
        grown.append(span)
    return grown


def _extended(span: WeightSpan, old: Contents, new: Contents, begin: int, end: int) -> WeightSpan:
    """Extend an equal span to both sides, within `begin` and `end` of the new file."""
    count = _equal_before(span, old, new, min(span.new - begin, span.old))
    span = replace(span, old=span.old - count, new=span.new - count, length=span.length + count)

    room = min(end - span.new, old.size - span.old) - span.length
    return replace(span, length=span.length + _equal_behind(span, old, new, room))


def _continues(span: WeightSpan, other: WeightSpan) -> bool:
    """Whether `other` follows an equal span directly in both files, and is equal too."""
    both_same = span.coding == other.coding == "same"
    return both_same and other.new == span.new + span.length and other.old == span.old + span.length


def _equal_before(span: WeightSpan, old: Contents, new: Contents, limit: int) -> int:
    """Count the equal bytes directly before a span, at most `limit`."""
    for offset in range(0, limit, BLOCK):
        size = min(BLOCK, limit - offset)
        before = old.read(span.old - offset - size, size)
        after = new.read(span.new - offset - size, size)
        count = _equal_count(before[::-1], after[::-1])
        if count < size:
            return offset + count
    return limit


def _equal_behind(span: WeightSpan, old: Contents, new: Contents, limit: int) -> int:
    """Count the equal bytes directly behind a span, at most `limit`."""
    for offset in range(0, limit, BLOCK):
        size = min(BLOCK, limit - offset)
        before = old.read(span.old + span.length + offset, size)
        after = new.read(span.new + span.length + offset, size)
        count = _equal_count(before, after)
        if count < size:
            return offset + count
    return limit


def _equal_count(before: bytes, after: bytes) -> int:
    """Count the equal bytes at the start of two blocks of one size."""
    differs = np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
    return int(differs.argmax()) if differs.any() else len(before)
