"""Bundles with one damaged file, as folders and as packed sides: opened and run on both sides."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

import irsplit
from hostile.damage import damaged, damaged_json
from hostile.target import Target
from irsplit.base.atomic_files import MANIFEST
from irsplit.compilation.compiler import whole_model
from irsplit.compilation.old_names import pack_bundle
from irsplit.engines.inputs import load_calls

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
_IMAGE = np.random.default_rng(0).random((1, 1, 16, 16), np.float32)
INPUTS: dict[str, dict[str, NDArray[Any]]] = {
    "digits.onnx": {"image": _IMAGE},
    "digits.tflite": {"image": _IMAGE.reshape(1, 16, 16, 1)},
}
"""What the example bundles are run on, by the name of the model."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "digits.onnx": {"boundary": "int8", "codec": "static-rans"},
    "digits.tflite": {"autonomous": True},
}


@dataclass(frozen=True)
class Damage:
    """One file of a bundle and what stands in it now."""

    bundle: str
    file: str
    data: bytes

    def __repr__(self) -> str:
        return f"{self.file} of {self.bundle}, {len(self.data)} bytes: {self.data[:24].hex(' ')}"


@cache
def example(name: str) -> Path:
    """A bundle of an example model, compiled once a process."""
    folder = Path(tempfile.mkdtemp(prefix="example-")) / "bundle"
    options = dict(_OPTIONS[name])
    if "boundary" in options:
        options["calibration"] = load_calls([DIGITS / "pictures"], whole_model(DIGITS / name)[1])
    irsplit.compile_model(DIGITS / name, folder, ["bottleneck/relu"], **options)
    return folder


@cache
def frame(name: str) -> bytes:
    return bytes(irsplit.DeviceSession(example(name)).start(INPUTS[name]))


@cache
def outputs(name: str) -> dict[str, Any]:
    return irsplit.ServerSession(example(name)).resume(frame(name))


@cache
def packed(name: str) -> tuple[Path, ...]:
    return tuple(pack_bundle(example(name), example(name).parent / "packed"))


@cache
def files(name: str) -> dict[str, bytes]:
    """The contents of an example bundle by path."""
    root = example(name)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def mutants(seed: int, count: int) -> Iterator[Damage]:
    """Every other one has a manifest that is JSON still."""
    random = Random(seed)
    for _ in range(count):
        name = random.choice(sorted(INPUTS))
        if random.random() < 0.5:
            value = damaged_json(json.loads(files(name)[MANIFEST]), random)
            yield Damage(name, MANIFEST, json.dumps(value).encode("utf-8", "surrogatepass"))
        else:
            file = random.choice(sorted(files(name)))
            yield Damage(name, file, damaged(files(name)[file], random))


def packed_mutants(seed: int, count: int) -> Iterator[Damage]:
    """Mostly in the structure: weights are most bytes, and damage to them is all alike."""
    random = Random(seed)
    for _ in range(count):
        name = random.choice(sorted(INPUTS))
        path = random.choice(packed(name))
        data = path.read_bytes()
        start, end = random.choice(_regions(path))
        yield Damage(name, path.name, data[:start] + damaged(data[start:end], random) + data[end:])


@cache
def _regions(path: Path) -> list[tuple[int, int]]:
    """Of a packed side: each member with its header, the directory, and the end of it alone."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        starts = sorted(info.header_offset for info in archive.infolist())
        directory = archive.start_dir
    headers = [(start, start + 64) for start in starts]
    members = list(zip(starts, [*starts[1:], directory], strict=True))
    return [*headers, *members, (directory, size), (size - 22, size)]


def run_both(name: str, device: Path, server: Path, damaged_manifest: bool) -> None:
    """Start on one side, resume on the other. With a sound manifest, what runs runs as before."""
    errors: list[irsplit.IrsplitError] = []
    try:
        sent = bytes(irsplit.DeviceSession(device).start(INPUTS[name]))
        assert damaged_manifest or sent == frame(name), "the device runs, and sends another frame"
    except irsplit.IrsplitError as error:
        errors.append(error)
    try:
        found = irsplit.ServerSession(server).resume(frame(name))
        assert damaged_manifest or found.keys() == outputs(name).keys()
        for key in () if damaged_manifest else found:
            np.testing.assert_array_equal(
                found[key], outputs(name)[key], "the server runs, with another result"
            )
    except irsplit.IrsplitError as error:
        errors.append(error)
    for error in errors:
        assert "\n" not in str(error), error
    if errors:
        raise errors[0]


def open_folder(mutant: Damage, folder: Path) -> None:
    bundle = folder / "bundle"
    shutil.copytree(example(mutant.bundle), bundle)
    (bundle / mutant.file).write_bytes(mutant.data)
    run_both(mutant.bundle, bundle, bundle, mutant.file == MANIFEST)


def open_packed(mutant: Damage, folder: Path) -> None:
    """The damaged side beside the sound one."""
    sides = {path.name: path for path in packed(mutant.bundle)}
    path = folder / mutant.file
    path.write_bytes(mutant.data)
    sides[mutant.file] = path
    device, server = (
        next(side for name, side in sides.items() if place in name)
        for place in ("device", "server")
    )
    run_both(mutant.bundle, device, server, files(mutant.bundle)[MANIFEST] not in mutant.data)


TARGETS = (
    Target("bundles: one damaged file, both sessions", mutants, open_folder),
    Target("packs: one damaged side, both sessions", packed_mutants, open_packed),
)
