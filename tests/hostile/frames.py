"""Frames that nobody sane sends: damaged, cut, with odd sizes and right checksums."""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from hostile.target import Target
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema, QuantizationSpec, TensorSpec
from irsplit.runtime.frame.reference.crc32c import crc32c

_HEADER = struct.Struct("<4sBBH8sQ")
LIMIT = 1 << 24
"""Decoded bytes that `read` allows."""


@cache
def boundaries() -> tuple[FrameSchema, ...]:
    """One of each way in which a tensor may cross."""
    quantized = QuantizationSpec((0.5,), (3,), outliers=True)
    tensors = [
        (TensorSpec("raw", "f32", (None, 8)),),
        (
            TensorSpec("packed", "f32", (None, 8), codec="zstandard"),
            TensorSpec("mask", "bool", (None, None)),
        ),
        (TensorSpec("coarse", "f32", (2, None, 4), quantized, "zstandard"),),
        (TensorSpec("fixed", "i64", (3, 5)), TensorSpec("scalar", "f32", ())),
    ]
    return tuple(
        FrameSchema(index, f"b{index}", specs, bytes([index] * 32))
        for index, specs in enumerate(tensors)
    )


def sound(boundary: FrameSchema, random: Random) -> bytes:
    """A frame as `encode` makes it."""
    source = np.random.default_rng(random.randrange(1 << 32))
    arrays = []
    for spec in boundary.tensors:
        shape = [random.randrange(1, 9) if dim is None else dim for dim in spec.shape]
        high = 2 if spec.dtype == "bool" else 100
        arrays.append(source.integers(0, high, shape).astype(spec.storage))
    return framing.encode(boundary, arrays)


def signed(body: bytes) -> bytes:
    """The frame with right checks of header and contents, whatever it says."""
    magic, version, flags, _, digest, _ = _HEADER.unpack_from(body)
    size = len(body) + 4
    header = _HEADER.pack(magic, version, flags, 0, digest, size)
    check = crc32c(header)
    header = _HEADER.pack(magic, version, flags, (check ^ check >> 16) & 0xFFFF, digest, size)
    whole = header + body[_HEADER.size :]
    return whole + crc32c(whole).to_bytes(4, "little")


def resized(boundary: FrameSchema, frame: bytes, *sizes: int) -> bytes:
    """The frame with other sizes of its open dimensions, in their order, and right checks."""
    count = boundary.symbol_count
    return signed(
        frame[: _HEADER.size]
        + struct.pack(f"<{count}I", *sizes)
        + frame[_HEADER.size + 4 * count : -4]
    )


def mutants(seed: int, count: int) -> Iterator[tuple[FrameSchema, bytes]]:
    """Frames, each with the boundary that it claims to belong to."""
    random = Random(seed)
    sizes = (0, 1, 7, 1 << 16, 1_000_000, (1 << 31) - 1, (1 << 32) - 2, (1 << 32) - 1)
    for _ in range(count):
        boundary = random.choice(boundaries())
        frame = sound(boundary, random)
        kind = random.randrange(6)
        if kind == 0:
            frame = frame[: random.randrange(len(frame) + 1)]
        elif kind == 1:
            frame = _flipped(frame, random)
        elif kind == 2:
            frame = signed(_flipped(frame[:-4], random))
        elif kind == 3:
            frame = resized(
                boundary, frame, *(random.choice(sizes) for _ in range(boundary.symbol_count))
            )
        elif kind == 4:
            start = random.randrange(_HEADER.size, len(frame))
            frame = signed(frame[:start] + random.randbytes(random.randrange(64)))
        else:
            frame = random.randbytes(random.randrange(128))
        yield boundary, frame


def read(mutant: tuple[FrameSchema, bytes], _: Path) -> None:
    """What a server does with a frame. Raises FrameError for one that is none, and nothing else."""
    boundary, frame = mutant
    framing.frame_shapes(boundary, frame)
    framing.decode(boundary, frame, max_bytes=LIMIT)


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


TARGETS = (Target("frames: sizes from the head", mutants, read),)
