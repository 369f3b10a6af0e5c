"""Bundles with damaged manifest, descriptor or model: refused, or run with the right result."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import irsplit
from hostile.asking import DIGITS, ask
from hostile.damage import damaged, damaged_json
from hostile.target import Target
from irsplit.compilation import sources
from irsplit.compilation.old_names import pack_bundle
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.serving.client.switching import CutSwitcher
from irsplit.runtime.serving.server.served import Limits, ServedBundle

_IMAGE = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)


_FOLDER = tempfile.TemporaryDirectory(prefix="irsplit-hostile-")


@cache
def bundle() -> Path:
    """The digits split where a plan says, so that the manifest has prices too."""
    folder = Path(_FOLDER.name) / "bundle"
    ask("compile", DIGITS, "-o", folder, "--device", "pixel-2", "--link", "lte")
    return folder


@cache
def _logits() -> Any:
    return irsplit.LocalSession(bundle()).run({"image": _IMAGE})["logits"]


def manifests(seed: int, count: int) -> Iterator[bytes]:
    text = (bundle() / "manifest.json").read_bytes()
    random = Random(seed)
    for _ in range(count):
        kind = random.random()
        if kind < 0.05:
            yield text[: random.randrange(len(text))] + b"[" * random.choice((2000, 200_000))
        elif kind < 0.3:
            yield damaged(text, random)
        else:
            yield json.dumps(damaged_json(json.loads(text), random)).encode()


def use_with_manifest(mutant: bytes, folder: Path) -> None:
    """Everything that reads a manifest; what still runs gives what the bundle gave."""
    copy = folder / "bundle"
    shutil.copytree(bundle(), copy)
    (copy / "manifest.json").write_bytes(mutant)
    manifest = Manifest.load(copy)
    ask("inspect", copy)
    ask("inspect", copy, "--json")
    sources.find(manifest, DIGITS)
    CutSwitcher(len(manifest.segments), [1], manifest.raw.get("choice"))
    irsplit.DeviceSession(copy)
    ServedBundle(manifest, "x", Limits(), EngineOptions())
    outputs = irsplit.LocalSession(copy).run({manifest.inputs[0].name: _IMAGE})
    assert all(np.array_equal(array, _logits()) for array in outputs.values())


def damaged_files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    random = Random(seed)
    names = sorted(Manifest.load(bundle()).files)
    for _ in range(count):
        name = random.choice(names)
        yield name, damaged((bundle() / name).read_bytes(), random)


def run_with_damaged_file(mutant: tuple[str, bytes], folder: Path) -> None:
    """A session is refused whatever byte of its files changed; neither side opens it."""
    copy, (name, data) = folder / "bundle", mutant
    shutil.copytree(bundle(), copy)
    (copy / name).write_bytes(data)
    side = irsplit.DeviceSession if name.startswith("device/") else irsplit.ServerSession
    side(copy)
    raise AssertionError(f"{name} was opened although it has changed")


def damaged_packs(seed: int, count: int) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = next(path for path in pack_bundle(bundle(), Path(folder)) if "device" in path.name)
        text = path.read_bytes()
    random = Random(seed)
    for _ in range(count):
        yield damaged(text, random)


def run_packed(mutant: bytes, folder: Path) -> None:
    """Where nothing but padding has changed, the side makes the frame that it made."""
    path = folder / "x.device.irsb"
    path.write_bytes(mutant)
    frame = irsplit.DeviceSession(path).start({"image": _IMAGE})
    assert np.array_equal(irsplit.ServerSession(bundle()).resume(frame)["logits"], _logits())


def engine_options(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    value = {"threads": 1, "providers": ["cuda,device_id=0"], "delegates": []}
    for _ in range(count):
        if random.random() < 0.3:
            yield damaged(json.dumps(value).encode(), random)
        else:
            yield json.dumps(damaged_json(value, random)).encode()


def read_engine_options(mutant: bytes, folder: Path) -> None:
    path = folder / "options.json"
    path.write_bytes(mutant)
    found = EngineOptions.load(path)
    assert isinstance(found.threads, int)


TARGETS = (
    Target("bundles: manifest", manifests, use_with_manifest),
    Target("bundles: changed file", damaged_files, run_with_damaged_file),
    Target("bundles: packed side", damaged_packs, run_packed),
    Target("bundles: engine options", engine_options, read_engine_options),
)
