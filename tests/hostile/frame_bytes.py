"""Damaged frames and descriptors: the golden ones, and one for each boundary of the example."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from framing import decoded, engines
from hostile.bundle_files import INPUTS, example
from hostile.damage import damaged
from hostile.target import Target
from irsplit.base.errors import FrameError
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.frame.reference.crc32c import crc32c
from irsplit.runtime.frame.reference.frame import HEADER
from irsplit.runtime.frame.status import Status
from irsplit.runtime.run.session import DeviceSession, ServerSession

GOLDEN = Path(__file__).parent.parent / "golden"
MAX_BYTES = 1 << 22


@dataclass(frozen=True)
class Coded:
    """A frame with the boundary that it claims to belong to; `name` is where both came from."""

    name: str
    boundary: FrameSchema
    frame: bytes

    def __repr__(self) -> str:
        return f"{self.name}, {len(self.frame)} bytes: {self.frame[:40].hex(' ')}"


@cache
def golden_frames() -> tuple[Coded, ...]:
    found: list[Coded] = []
    for path in sorted(GOLDEN.glob("*/*.irsf")):
        boundary = FrameSchema.from_bytes(path.with_suffix(".irsd").read_bytes())
        found.append(Coded(path.stem, boundary, path.read_bytes()))
    return tuple(found)


@cache
def example_frame(name: str) -> Coded:
    bundle = example(name)
    frame = DeviceSession(bundle).start(INPUTS[name])
    (boundary,) = ServerSession(bundle).boundaries
    return Coded(name, boundary, bytes(frame))


@cache
def server(name: str) -> ServerSession:
    return ServerSession(example(name))


def with_checksums(frame: bytes) -> bytes:
    """The frame with its size, header check and CRC made right, as an attacker would."""
    if len(frame) < HEADER.size + 4:
        return frame
    body = frame[:16] + struct.pack("<Q", len(frame)) + frame[24:]
    crc = crc32c(body[:6] + b"\0\0" + body[8 : HEADER.size])
    body = body[:6] + struct.pack("<H", (crc ^ crc >> 16) & 0xFFFF) + body[8:-4]
    return body + struct.pack("<I", crc32c(body))


def damaged_frame(frame: bytes, random: Random) -> bytes:
    """Three of four have right checksums; most of those keep the header of the boundary."""
    if random.random() < 0.25:
        return damaged(frame, random)
    kept = HEADER.size if random.random() < 0.8 else 0
    return with_checksums(frame[:kept] + damaged(frame[kept:], random))


def mutants(seed: int, count: int) -> Iterator[Coded]:
    random = Random(seed)
    for _ in range(count):
        base = random.choice(golden_frames())
        yield Coded(base.name, base.boundary, damaged_frame(base.frame, random))


def example_mutants(seed: int, count: int) -> Iterator[Coded]:
    random = Random(seed)
    for _ in range(count):
        base = example_frame(random.choice(sorted(INPUTS)))
        yield Coded(base.name, base.boundary, damaged_frame(base.frame, random))


def descriptor_mutants(seed: int, count: int) -> Iterator[bytes]:
    """Descriptors; of most, digest and CRC are right."""
    random = Random(seed)
    for _ in range(count):
        boundary = random.choice(golden_frames()).boundary
        descriptor = boundary.to_bytes()
        at = descriptor.index(boundary.digest)
        body = damaged(descriptor[:-4], random)
        if random.random() < 0.75:
            blank = body[:at] + bytes(len(boundary.digest)) + body[at + len(boundary.digest) :]
            digest = hashlib.sha256(blank).digest()[: len(boundary.digest)]
            body = body[:at] + digest + body[at + len(digest) :]
        yield body + struct.pack("<I", crc32c(body))


def read_alike(mutant: Coded, _: Path) -> None:
    """Both engines and the public reader give the same tensors or refuse with the same status."""
    native, reference = engines(mutant.boundary)
    try:
        arrays = framing.decode(mutant.boundary, mutant.frame, max_bytes=MAX_BYTES)
    except FrameError as error:
        if "above max_bytes" not in str(error):
            statuses = {
                decoded(codec, mutant.boundary, mutant.frame) for codec in (native, reference)
            }
            assert len(statuses) == 1, statuses
            assert isinstance(statuses.pop(), Status)
        raise
    expected = [array.tobytes() for array in arrays]
    assert decoded(native, mutant.boundary, mutant.frame) == expected
    assert decoded(reference, mutant.boundary, mutant.frame) == expected


def read_descriptor(mutant: bytes, _: Path) -> None:
    """What is accepted is written again as it was read."""
    boundary = FrameSchema.from_bytes(mutant)
    assert boundary.to_bytes() == mutant
    engines(boundary)


def resume(mutant: Coded, _: Path) -> None:
    outputs = server(mutant.name).resume(mutant.frame)
    assert [array.dtype for array in outputs.values()] == [np.float32]


TARGETS = (
    Target("frames: native and reference alike", mutants, read_alike),
    Target("frames: descriptor", descriptor_mutants, read_descriptor),
    Target("frames: ServerSession.resume", example_mutants, resume),
)
