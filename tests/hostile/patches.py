"""Patches as an attacker would make them: checksums are right, and what they say is not.

A real patch is taken apart into its head, the line that says how files are made, the new manifest
and the coded bytes; one of them is changed, and it is put together again so that the change is what
a reader comes to see.
"""

import atexit
import copy
import hashlib
import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import zstandard

from hostile.damage import damaged, damaged_json
from hostile.target import Target
from irsplit.base.atomic_files import MANIFEST
from irsplit.compilation.delta import write_delta
from irsplit.compilation.old_names import pack_bundle
from irsplit.runtime.bundle.manifest import Manifest, manifest_text
from irsplit.runtime.bundle.patch import apply_delta
from irsplit.runtime.bundle.patch_format import CHECKED_FROM, HEAD, MAGIC, VERSION, expand_header
from test_delta import MODEL, build, contents, retrained


@dataclass(frozen=True)
class Parts:
    """A patch between two builds. `final` is the result's manifest, with every digest."""

    old: bytes
    words: Any
    manifest: Any
    final: Any
    coded: bytes

    def together(self) -> bytes:
        """The patch, all of whose checksums are right."""
        final = _text(self.final)
        header = compressed(_json(self.words) + b"\n" + _text(self.manifest))
        sha = hashlib.sha256(final).digest()
        head = HEAD.pack(MAGIC, VERSION, 0, self.old, sha, len(header))
        return with_checksum(head + header + self.coded)

    def with_words(self, change: Callable[[Any], object]) -> "Parts":
        """Files that are made in another way; `change` changes the object in place."""
        words = copy.deepcopy(self.words)
        change(words)
        return replace(self, words=words)

    def with_manifest(self, change: Callable[[Any], object]) -> "Parts":
        """Another new manifest, to which the result is true."""
        manifest, final = copy.deepcopy(self.manifest), copy.deepcopy(self.final)
        change(manifest)
        change(final)
        return replace(self, manifest=manifest, final=final)


@dataclass(frozen=True)
class Scene:
    """Two builds and the patch between them: of both sides, and of the device's."""

    old: Path
    new: Path
    packed: Path
    """The device's side of the old one."""
    patch: Parts
    device_patch: Parts


@cache
def scene() -> Scene:
    folder = Path(tempfile.mkdtemp(prefix="irsplit-hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    old, new = (
        build(MODEL, folder / "old"),
        build(retrained(folder / "digits.onnx", 1e-3, "head/"), folder / "new"),
    )
    device, _ = pack_bundle(old, folder / "packed")
    write_delta(old, new, folder / "both")
    write_delta(old, new, folder / "one", "device")
    both, one = (taken_apart((folder / name).read_bytes(), old, new) for name in ("both", "one"))
    return Scene(old, new, device, both, one)


def taken_apart(patch: bytes, old: Path, new: Path) -> Parts:
    """A patch that `write_delta` has made between these builds."""
    _, _, _, name, _, size = HEAD.unpack_from(patch)
    header = expand_header(patch[HEAD.size : HEAD.size + size], (old / MANIFEST).read_bytes())
    words, _, manifest = header.partition(b"\n")
    final = json.loads((new / MANIFEST).read_bytes())
    return Parts(name, json.loads(words), json.loads(manifest), final, patch[HEAD.size + size :])


def compressed(data: bytes, *, announced: int | None = None) -> bytes:
    """As patches have it, but fast, and without the old build; `announced` is its size."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    if announced is None:
        return frame
    # The descriptor of a frame: one segment, 8 bytes of size; the blocks follow the window.
    return bytes([0b11100000]) + struct.pack("<Q", announced) + frame[2:]


def with_checksum(patch: bytes) -> bytes:
    """A patch with the CRC that it should have."""
    crc = struct.pack("<I", zlib.crc32(patch[CHECKED_FROM:]))
    return patch[: CHECKED_FROM - 4] + crc + patch[CHECKED_FROM:]


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Patches for both sides of the old build in `scene`, each changed in one place or more."""
    random = Random(seed)
    for _ in range(count):
        yield random.choice(_KINDS)(scene().patch, random)


def device_mutants(seed: int, count: int) -> Iterator[bytes]:
    """The same for the device's side alone."""
    random = Random(seed)
    for _ in range(count):
        yield random.choice(_KINDS)(scene().device_patch, random)


def _damaged_bytes(parts: Parts, random: Random) -> bytes:
    return damaged(parts.together(), random)


def _damaged_with_checksum(parts: Parts, random: Random) -> bytes:
    patch = damaged(parts.together(), random)
    return with_checksum(patch) if len(patch) >= HEAD.size else patch


def _damaged_words(parts: Parts, random: Random) -> bytes:
    return replace(parts, words=damaged_json(parts.words, random)).together()


def _damaged_manifest(parts: Parts, random: Random) -> bytes:
    """The same damage in what is sent and in what is promised, so that digests agree."""
    state = random.getstate()
    manifest = damaged_json(parts.manifest, random)
    random.setstate(state)
    final = damaged_json(parts.final, random)
    return replace(parts, manifest=manifest, final=final).together()


def _damaged_spans(parts: Parts, random: Random) -> bytes:
    """Numbers of the spans, sizes and indices changed by little or much."""

    def change(words: Any) -> None:
        recipe = words["made"][random.choice(list(words["made"]))]
        numbers = random.choice(
            [value for value in (recipe, *recipe) if isinstance(value, list) and value]
        )
        position = random.randrange(len(numbers))
        numbers[position] = random.choice((-1, 0, 1, 3, 4096, 1 << 20, 1 << 33, 1 << 63))

    return parts.with_words(change).together()


def _attack(parts: Parts, random: Random) -> bytes:
    return ATTACKS[random.choice(list(ATTACKS))](parts).together()


_KINDS = (
    _damaged_bytes,
    _damaged_with_checksum,
    _damaged_words,
    _damaged_manifest,
    _damaged_spans,
    _attack,
)


def _made(name: str, recipe: Any) -> Callable[[Parts], Parts]:
    return lambda parts: parts.with_words(lambda words: words["made"].__setitem__(name, recipe))


def _described(key: str, value: Any) -> Callable[[Parts], Parts]:
    return lambda parts: parts.with_manifest(lambda manifest: manifest.__setitem__(key, value))


def _without(key: str) -> Callable[[Parts], Parts]:
    return lambda parts: parts.with_manifest(lambda manifest: manifest.pop(key))


def _file(name: str, recipe: Any = None) -> Callable[[Parts], Parts]:
    """One more file of the new build, copied or made by `recipe`."""

    def change(parts: Parts) -> Parts:
        more = parts.with_manifest(lambda manifest: manifest["files"].__setitem__(name, "0" * 64))
        return more if recipe is None else _made(name, recipe)(more)

    return change


def _segment_file(name: str) -> Callable[[Parts], Parts]:
    return lambda parts: parts.with_manifest(
        lambda manifest: manifest["segments"][0].__setitem__("file", name)
    )


def _descriptor(name: str) -> Callable[[Parts], Parts]:
    """The device's descriptor elsewhere; the server's stays, so that the boundary has one."""
    return lambda parts: parts.with_manifest(
        lambda manifest: manifest["boundaries"][0]["descriptor"].__setitem__("device", name)
    )


def _many_files(parts: Parts) -> Parts:
    names = {f"device/{number}": "0" * 64 for number in range(5000)}
    return parts.with_manifest(lambda manifest: manifest["files"].update(names))


_LARGE = ["coded", 1, [], 0, [number for _ in range(4000) for number in (0, 0, 4096, 1, 0)]]
"""The beginning of an old file again and again."""


def _block(block: bytes, size: int) -> Callable[[Parts], Parts]:
    """The device's model as one block that is said to have `size` bytes."""

    def change(parts: Parts) -> Parts:
        made = _made("device/model.onnx", ["coded", 0, [len(block)], size, []])(parts)
        assert "device/model.onnx" not in parts.words["made"], "its own blocks would be in the way"
        return replace(made, coded=block + parts.coded)

    return change


ATTACKS: dict[str, Callable[[Parts], Parts]] = {
    "format version 99": _described("format_version", 99),
    "format version of another kind": _described("format_version", [1]),
    "no format version": _without("format_version"),
    "no name": _without("name"),
    "a name that is none": _described("name", {"a": 1}),
    "no segments": _described("segments", []),
    "no boundaries": _described("boundaries", []),
    "no files": _described("files", {}),
    "no digest": _without("digest"),
    "a digest that is none": _described("digest", "../" * 20),
    "as an absolute path": _made("device/model.onnx", ["as", "/etc/passwd"]),
    "as a path above": _made("device/model.onnx", ["as", "../../../../etc/passwd"]),
    "as an endless device": _made("device/model.onnx", ["as", "/dev/zero"]),
    "as itself": _made("device/model.onnx", ["as", "device/model.onnx"]),
    "as the manifest": _made("device/model.onnx", ["as", MANIFEST]),
    "as a list": _made("device/model.onnx", ["as", ["a"]]),
    "as nothing": _made("device/model.onnx", ["as"]),
    "an absolute file": _file("/tmp/irsplit-hostile-file", ["boundary", 0]),
    "a file above": _file("device/../../outside", ["boundary", 0]),
    "a file with a NUL": _file("device/a\0b", ["boundary", 0]),
    "a file with an escape sequence": _file("device/\x1b[2J", ["boundary", 0]),
    "a file with a long name": _file(f"device/{'x' * 300}", ["boundary", 0]),
    "a file with a deep name": _file("device/" + "x/" * 3000 + "x", ["boundary", 0]),
    "a file with a name that is no text": _file("device/\ud800", ["boundary", 0]),
    "a file in the place of the manifest": _file(MANIFEST, ["boundary", 0]),
    "a file in the place of a folder": _file("device", ["boundary", 0]),
    "a file below a file": _file("device/model.onnx/x", ["boundary", 0]),
    "a copy of what is not there": _file("device/more"),
    "a copy of what is outside": _file("device/../../../../../etc/passwd"),
    "5 000 files": _many_files,
    "a segment outside": _segment_file("/etc/passwd"),
    "a segment that is not there": _segment_file("device/nothing.onnx"),
    "a descriptor outside": _descriptor("../../etc/passwd"),
    "a boundary that is not there": _made("device/boundary0.irsd", ["boundary", 7]),
    "a boundary from behind": _made("device/boundary0.irsd", ["boundary", -1]),
    "another kind of recipe": _made("device/model.onnx", ["run", "rm -rf /"]),
    "a recipe that is a word": _made("device/model.onnx", "as"),
    "a recipe that is a number": _made("device/model.onnx", 7),
    "a file larger than said": _made("server/model.onnx", _LARGE),
    "a file of 2^60 bytes": _made("device/model.onnx", ["coded", 0, [], 1 << 60, []]),
    "a file of endless bytes": _made("device/model.onnx", ["coded", 0, [], float("inf"), []]),
    "blocks behind the end": _made(
        "device/model.onnx", ["coded", 0, [1 << 22] * 4096, 1 << 34, []]
    ),
    "a block that announces 2^45 bytes": _block(compressed(bytes(100), announced=1 << 45), 100),
    "a block of more than it says": _block(compressed(bytes(1 << 26)), 100),
    "a block of less than it says": _block(compressed(bytes(10)), 1 << 22),
    "a block that is none": _block(b"PATCH" * 20, 100),
    "spans that overlap": _made(
        "device/model.onnx", ["coded", 1, [], 0, [0, 0, 64, 1, 0, -32, 0, 64, 1, 0]]
    ),
    "spans of numbers with 4 000 digits": _made(
        "device/model.onnx", ["coded", 1, [], 0, [10**4000] * 5]
    ),
    "half a span": _made("device/model.onnx", ["coded", 1, [], 0, [0, 0, 64]]),
    "a place that is a folder of the system": lambda p: p.with_words(
        lambda words: words.update(place="/etc/")
    ),
    "a place that is no text": lambda p: p.with_words(lambda words: words.update(place=7)),
    "planes without end": lambda p: p.with_words(
        lambda words: words.update(planes=[[4, 0, 8, 1]] * 9999)
    ),
    "planes of a kind that is none": lambda p: p.with_words(
        lambda words: words.update(planes=[[3, 9, 5, 1]])
    ),
    "a header that is a list": lambda p: replace(p, words=[1, 2, 3]),
    "a header that is nothing": lambda p: replace(p, words=None),
    "a manifest that is a word": lambda p: replace(p, manifest="manifest", final="manifest"),
    "a header of 90 000 levels": lambda p: replace(p, words=Raw(b"[" * 90_000)),
    "a header of 3 million values": lambda p: replace(
        p, words=Raw(b"[" + b"0," * 3_000_000 + b"0]")
    ),
    "a header of 40 MB": lambda p: replace(p, words=Raw(b" " * 40_000_000)),
}
"""What each does to the patch between the builds of `scene`; none of them may be applied."""


@dataclass(frozen=True)
class Raw:
    """Text in the place of JSON."""

    text: bytes


def _json(value: Any) -> bytes:
    return value.text if isinstance(value, Raw) else json.dumps(value).encode()


def _text(manifest: Any) -> bytes:
    return manifest_text(manifest).encode(errors="surrogatepass")


def apply_in_place(mutant: bytes, folder: Path) -> None:
    """Apply a patch over the old build; afterwards it is the old build or a whole new one."""
    bundle = folder / "bundle"
    shutil.copytree(scene().old, bundle)
    _apply(mutant, bundle, contents)


def apply_to_packed(mutant: bytes, folder: Path) -> None:
    """The same for the packed device's side."""
    bundle = folder / "side.irsb"
    shutil.copy(scene().packed, bundle)
    _apply(mutant, bundle, Path.read_bytes)


def _apply(mutant: bytes, bundle: Path, read: Callable[[Path], Any]) -> None:
    before = read(bundle)
    patch = bundle.parent / "patch"
    patch.write_bytes(mutant)
    try:
        apply_delta(bundle, patch, bundle)
    except Exception:
        assert read(bundle) == before, "the old build is gone"
        raise
    else:
        Manifest.load(bundle).check_files()
    finally:
        assert {path.name for path in bundle.parent.iterdir()} == {bundle.name, patch.name}, (
            "something is left behind"
        )


TARGETS = (
    Target("patches: apply", mutants, apply_in_place),
    Target("patches: apply to a packed side", device_mutants, apply_to_packed),
)
