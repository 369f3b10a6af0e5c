"""Damaged and hostile frames: both engines refuse them with one status, allocating little."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from framing import Array, boundaries_with_arrays, decoded, engines, outcome
from irsplit.base.errors import BundleError, FrameError, UnsupportedError
from irsplit.runtime.c import _native
from irsplit.runtime.frame import frame
from irsplit.runtime.frame.descriptor import (
    FrameSchema,
    QuantizationSpec,
    TensorSpec,
    _unpack,
    zstandard_parameters,
)
from irsplit.runtime.frame.reference.crc32c import crc32c
from irsplit.runtime.frame.reference.frame import HEADER
from irsplit.runtime.frame.status import Status, StatusError

QUANTIZED = TensorSpec(
    "q", "f32", (None, 4), QuantizationSpec((0.1,), (3,), outliers=True), "zstandard", b"\3", 8
)
BOUNDARY = FrameSchema(
    3,
    "relu",
    (
        TensorSpec(
            "a", "i8", (None, 5), codec="zstandard", parameters=zstandard_parameters(1), chunk=16
        ),
        TensorSpec("b", "bool", (3,)),
        TensorSpec("c", "i64", (2,)),
        QUANTIZED,
    ),
)
ARRAYS: list[Array] = [
    np.zeros((8, 5), np.int8),
    np.array([True, False, True]),
    np.array([-1, 1 << 60]),
    np.array([[0, 1e9, np.nan, -1], [1, 2, 3, 4]], np.float32),
]


def with_crc(body: bytes) -> bytes:
    """The frame with header check and CRC made right again, as an attacker would."""
    crc = crc32c(body[:6] + b"\0\0" + body[8 : HEADER.size])
    body = body[:6] + struct.pack("<H", (crc ^ crc >> 16) & 0xFFFF) + body[8:-4]
    return body + struct.pack("<I", crc32c(body))


def test_truncation_at_every_length() -> None:
    coded = frame.encode(BOUNDARY, ARRAYS)
    for size in range(len(coded)):
        results = [decoded(engine, BOUNDARY, coded[:size]) for engine in engines(BOUNDARY)]
        assert results == [Status.TRUNCATED] * 2, size


def test_bytes_after_the_frame() -> None:
    coded = frame.encode(BOUNDARY, ARRAYS) + b"\0"
    assert [decoded(engine, BOUNDARY, coded) for engine in engines(BOUNDARY)] == [Status.SIZE] * 2


def test_every_bit_flip_is_detected() -> None:
    coded = frame.encode(BOUNDARY, ARRAYS)
    for bit in range(len(coded) * 8):
        damaged = bytearray(coded)
        damaged[bit // 8] ^= 1 << bit % 8
        native, reference = (
            decoded(engine, BOUNDARY, bytes(damaged)) for engine in engines(BOUNDARY)
        )
        assert isinstance(native, Status)
        assert native == reference


@given(boundaries_with_arrays(), st.data())
def test_attackers_bytes_are_refused_alike(
    case: tuple[FrameSchema, list[Array]], data: st.DataObject
) -> None:
    """Random changes with right checksums: no crash, and the same result in both engines."""
    boundary, arrays = case
    coded = bytearray(frame.encode(boundary, arrays))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(HEADER.size, len(coded) - 1))
        coded[position] = data.draw(st.integers(0, 255))
    hostile = with_crc(bytes(coded))
    native, reference = engines(boundary)
    try:
        shapes = frame._allocated(boundary, reference.shapes(memoryview(hostile)), 1 << 22)
    except (FrameError, StatusError):
        shapes = None
    if shapes is not None:
        assert decoded(native, boundary, hostile) == decoded(reference, boundary, hostile)


@pytest.mark.parametrize(
    "size", [0, 27, 28, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1]
)
def test_sizes_in_the_header(size: int) -> None:
    coded = bytearray(frame.encode(BOUNDARY, ARRAYS))
    coded[16:24] = struct.pack("<Q", size)
    hostile = with_crc(bytes(coded))
    expected = Status.TRUNCATED if size > len(coded) else Status.SIZE
    assert [decoded(engine, BOUNDARY, hostile) for engine in engines(BOUNDARY)] == [expected] * 2


@pytest.mark.parametrize(
    "dims",
    [(2**32 - 2,) * 4, (2**32 - 2, 2**31, 1, 1), (2**31, 2**31, 0, 1), (0xFFFFFFFF, 1, 1, 1)],
)
def test_sizes_in_dims(dims: tuple[int, ...]) -> None:
    """Products beyond 2^64, beyond the address space, zero times huge, and the reserved dim."""
    boundary = FrameSchema(0, "b", (TensorSpec("x", "f32", (None,) * 4),))
    coded = bytearray(frame.encode(boundary, [np.zeros((1, 1, 1, 1), np.float32)]))
    coded[HEADER.size : HEADER.size + 16] = struct.pack("<4I", *dims)
    hostile = with_crc(bytes(coded))
    native, reference = (
        outcome(lambda e=engine: e.shapes(memoryview(hostile))) for engine in engines(boundary)
    )
    assert native == reference
    with pytest.raises(FrameError):
        frame.decode(boundary, hostile, max_bytes=1 << 40)


def test_max_bytes_is_checked_before_allocation() -> None:
    boundary = FrameSchema(
        0, "b", (TensorSpec("x", "i8", (None,), codec="zstandard", chunk=1 << 29),)
    )
    coded = bytearray(frame.encode(boundary, [np.zeros(9, np.int8)]))
    coded[HEADER.size : HEADER.size + 4] = struct.pack("<I", 2**32 - 2)
    with pytest.raises(FrameError, match="above max_bytes=1073741824; raise the limit"):
        frame.decode(boundary, with_crc(bytes(coded)))


def test_more_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """103 bytes that a damaged dim makes stand for 800 MB: below max_bytes, above memory."""

    def exhausted(*_: object) -> None:
        raise MemoryError

    boundary = FrameSchema(0, "b", (TensorSpec("x", "i8", (None,)),))
    coded = frame.encode(boundary, [np.zeros(9, np.int8)])
    monkeypatch.setattr(np, "empty", exhausted)
    with pytest.raises(
        FrameError, match="decodes to more than there is memory for; lower max_bytes=100"
    ):
        frame.decode(boundary, coded, max_bytes=100)


def test_zstandard_payload_that_claims_another_size() -> None:
    boundary = FrameSchema(0, "b", (TensorSpec("x", "i8", (4000,), codec="zstandard"),))
    coded = frame.encode(boundary, [np.zeros(4000, np.int8)])
    for claimed in (0, 3999, 4001, 1 << 40):
        liar = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(bytes(70000)))
        liar[5:9] = struct.pack("<I", claimed & 0xFFFFFFFF)
        body = coded[: HEADER.size] + struct.pack("<I", len(liar)) + bytes(liar) + bytes(4)
        body = body[:16] + struct.pack("<Q", len(body)) + body[24:]
        for engine in engines(boundary):
            assert decoded(engine, boundary, with_crc(body)) == Status.CORRUPT


def test_another_boundary_is_named() -> None:
    other = FrameSchema(3, "relu", BOUNDARY.tensors, bundle_digest=b"\1" * 32)
    with pytest.raises(FrameError) as info:
        frame.decode(BOUNDARY, frame.encode(other, ARRAYS))
    assert other.digest[:8].hex() in str(info.value)
    assert BOUNDARY.digest[:8].hex() in str(info.value)
    assert "boundary 3 'relu'" in str(info.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 5), np.int16), "tensor 'a': array of int16 for elements of i8; give int8"),
        (np.zeros((8, 6), np.int8), r"tensor 'a': array of shape \(8, 6\) for \('\?', 5\)"),
        (np.zeros(5, np.int8), r"tensor 'a': array of shape \(5,\)"),
    ],
)
def test_arrays_that_do_not_match(array: Array, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        frame.encode(BOUNDARY, [array, *ARRAYS[1:]])


def test_bool_bytes_other_than_0_and_1() -> None:
    bad = np.array([0, 2, 1], np.uint8).view(np.bool_)
    for engine in engines(BOUNDARY):
        assert outcome(lambda e=engine: e.encode([ARRAYS[0], bad, *ARRAYS[2:]])) == Status.VALUE


def damaged_descriptors() -> Iterator[bytes]:
    """Every byte of a descriptor set to 0, 255 and its neighbours, checksum right."""
    descriptor = BOUNDARY.to_bytes()
    for position in range(len(descriptor) - 4):
        for value in {
            0,
            1,
            0x7F,
            0x80,
            0xFF,
            descriptor[position] ^ 1,
            (descriptor[position] + 1) & 0xFF,
        }:
            if value != descriptor[position]:
                body = descriptor[:position] + bytes([value]) + descriptor[position + 1 : -4]
                yield body + struct.pack("<I", crc32c(body))


def opened(descriptor: bytes) -> object:
    return outcome(lambda: _native.open(descriptor, lambda *_: b"", lambda *_: b""))


def test_descriptor_truncated_at_every_length() -> None:
    descriptor = BOUNDARY.to_bytes()
    for size in range(len(descriptor)):
        assert opened(descriptor[:size]) == Status.TRUNCATED
        with pytest.raises(BundleError):
            FrameSchema.from_bytes(descriptor[:size])


def test_damaged_descriptors_are_refused() -> None:
    """Python recomputes the digest and so refuses any change. C does not, but must open nothing
    that Python's checks of the fields refuse: what it opens has fields in range."""
    for descriptor in damaged_descriptors():
        with pytest.raises(BundleError):
            FrameSchema.from_bytes(descriptor)
        result = opened(descriptor)
        if not isinstance(result, Status):
            assert fields_in_range(descriptor), descriptor.hex()


def fields_in_range(descriptor: bytes) -> bool:
    try:
        _unpack(descriptor)
    except UnicodeDecodeError:
        return True  # names are opaque bytes to the C core
    except (ValueError, UnsupportedError, struct.error) as error:
        return "unknown codec" in str(error)  # the C core leaves foreign codecs to its hooks
    return True
