"""Inputs of a model: arrays, archives of arrays, pictures, sound and words of the command line."""

import io
import struct
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from hostile.damage import damaged
from hostile.target import Target
from irsplit.engines.inputs import load_calls, load_input
from irsplit.runtime.bundle.manifest import TensorInfo

_SHAPES = (
    *[(None, 1, 16, 16)] * 4,
    (1, 16, 16, 3),
    (16,),
    (None,),
    (),
    (1, None, None, 3),
    None,
    (0, 4),
)
_TYPES = (*["f32"] * 6, "u8", "i8", "i64", "bool", "str", "bf16", "f16", "c64", "odd")

_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': [('a', '<f4'), ('b', '|S3')], 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + ")}",
    "{'descr': '<U99999', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
    "(" * 3000,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1L,)}",
    "'\x1b[2J'",
    "",
)


def arrays(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Files of arrays by the end of their name, which may lie."""
    random = Random(seed)
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    odd = np.array([np.nan, np.inf, -np.inf, 3e38], np.float32)
    for _ in range(count):
        array = random.choice(
            (
                image,
                odd,
                image.astype(np.int64),
                np.zeros((0, 4)),
                np.array("text"),
                np.array(1 + 2j),
            )
        )
        data = _saved(
            {"image": array} if random.random() < 0.5 else array, packed=random.random() < 0.5
        )
        kind = random.randrange(4)
        if kind == 0:
            head = random.choice(_HEADERS).encode()
            data = (
                b"\x93NUMPY"
                + bytes([random.choice((1, 2, 3, 9)), 0])
                + struct.pack("<H", len(head))
                + head
            )
        elif kind == 1:
            file = io.BytesIO()
            with zipfile.ZipFile(
                file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_BZIP2))
            ) as archive:
                for name in random.sample(("image.npy", "note.txt", "../x.npy", "image.npy/"), 2):
                    archive.writestr(name, data if random.random() < 0.5 else b"text")
            data = file.getvalue()
        if kind != 0 and random.random() < 0.8:
            data = damaged(data, random)
        yield random.choice((".npy", ".npz")), data


def _saved(value: Any, *, packed: bool) -> bytes:
    file = io.BytesIO()
    if isinstance(value, dict):
        (np.savez_compressed if packed else np.savez)(file, **value)
    else:
        np.save(file, value)
    return file.getvalue()


def pictures(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    random = Random(seed)
    colours = Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    )
    for _ in range(count):
        format = random.choice(("PNG", "JPEG", "BMP", "GIF", "WEBP"))
        file = io.BytesIO()
        colours.convert(random.choice(("RGB", "L"))).save(file, format)
        suffix = {"JPEG": ".jpg"}.get(format, f".{format.lower()}")
        yield random.choice((suffix, suffix, ".png")), damaged(file.getvalue(), random)


def sounds(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    random = Random(seed)
    for _ in range(count):
        file = io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setnchannels(random.choice((1, 2)))
            sound.setsampwidth(random.choice((1, 2, 2, 4)))
            sound.setframerate(16000)
            sound.writeframes(random.randbytes(400))
        data = file.getvalue()
        head = 44
        yield (
            ".wav",
            damaged(data[:head], random) + data[head:]
            if random.random() < 0.7
            else damaged(data, random),
        )


def read_file(mutant: tuple[str, bytes], folder: Path) -> None:
    """As an input by name, and as a set of calls, of models whose inputs differ."""
    suffix, data = mutant
    path = folder / f"input{suffix}"
    path.write_bytes(data)
    random = Random(data)
    info = TensorInfo("image", random.choice(_TYPES), random.choice(_SHAPES))
    calls = load_calls([path], [info])
    assert all(isinstance(call["image"], np.ndarray) for call in calls)
    if suffix != ".npz":
        load_input(str(path), info)


_WORDS = (
    "[" * 100_000,
    "[" * 900 + "]" * 900,
    "1" * 300,
    "1" * 5000,
    "NaN",
    "1e999",
    "[1, [2]]",
    "{}",
    '"text"',
    "null",
    "-1",
    "256",
    "[1, 2, 3]",
    "1.5",
    "",
    ".",
    "/",
    "nothere.npy",
    "\x1b[2J",
    "\ud800",
    "x" * 5000,
)


def words(seed: int, count: int) -> Iterator[tuple[str, TensorInfo]]:
    random = Random(seed)
    shapes = (*_SHAPES, (1 << 40, 1 << 20))
    for _ in range(count):
        word = random.choice(_WORDS)
        if random.random() < 0.3:
            word = (
                damaged(word[:2000].encode(errors="replace"), random)
                .decode(errors="replace")
                .replace("\0", "")
            )
        yield word, TensorInfo("image", random.choice(_TYPES), random.choice(shapes))


def read_word(mutant: tuple[str, TensorInfo], folder: Path) -> None:
    word, info = mutant
    assert isinstance(load_input(word, info), np.ndarray)


TARGETS = (
    Target("inputs: arrays", arrays, read_file),
    Target("inputs: pictures", pictures, read_file),
    Target("inputs: sounds", sounds, read_file),
    Target("inputs: words", words, read_word),
)
