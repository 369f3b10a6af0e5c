"""Tensors of a boundary to a frame and back.

The C extension does the work; where it is not built, the numpy reference gives the same bytes, slower. The variable
IRSPLIT_CODEC=native|reference forces one of them.
"""

import functools
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import FrameError, UnsupportedError
from irsplit.runtime.frame.codecs import Hooks
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.frame.reference import frame as reference
from irsplit.runtime.frame.status import Status, StatusError

try:
    from irsplit.runtime.c import _native
except ImportError:  # no compiler when this was installed
    _native = None

Array = NDArray[np.generic]
Bytes = bytes | bytearray | memoryview

HEADER_SIZE = reference.HEADER.size
DEFAULT_MAX_BYTES = 1 << 30

# types that numpy gets from an extension package (ml_dtypes) and that travel as integers of the same width
_EXTENSION_NAMES = {
    "bf16": "bfloat16",
    "f8e4m3fn": "float8_e4m3fn",
    "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2": "float8_e5m2",
    "f8e5m2fnuz": "float8_e5m2fnuz",
    "f8e8m0": "float8_e8m0fnu",
}

_REASONS = {
    Status.TRUNCATED: "it ends too early; read as many bytes as frame_size() says before decoding",
    Status.MAGIC: "it does not begin with IRSF; give the bytes that encode() returned",
    Status.VERSION: "a later version of irsplit wrote it; update this side",
    Status.CHECKSUM: "its bytes changed on the way (CRC-32C differs); send it again",
    Status.SIZE: "its size contradicts its header; give exactly the bytes that encode() returned",
    Status.CORRUPT: "its checksum is right, but its contents are impossible; the sender is at fault",
    Status.CODEC: "it needs a codec that is not available; install the release that compiled the bundle",
}


class Codec(Protocol):
    """One opened boundary; raises StatusError. Both engines look like this."""

    def encode(self, arrays: Sequence[Array]) -> bytes: ...
    def shapes(self, frame: memoryview) -> list[tuple[int, ...]]: ...
    def decode(self, frame: memoryview, out: Sequence[Array]) -> None: ...


class NativeCodec:
    """The C core, through the extension."""

    def __init__(self, boundary: FrameSchema) -> None:
        if _native is None:
            raise UnsupportedError(
                "IRSPLIT_CODEC=native, but the C extension is not built; install a C compiler and reinstall irsplit"
            )
        hooks = Hooks(boundary)
        self._native = _native
        self._handle = _native.open(boundary.to_bytes(), hooks.compress, hooks.decompress)

    def encode(self, arrays: Sequence[Array]) -> bytes:
        return self._native.encode(self._handle, arrays)

    def sizes(self, arrays: Sequence[Array]) -> tuple[int, int, int]:
        """Bytes of the opened boundary, of the largest frame, of scratch; for arrays of these shapes."""
        return self._native.sizes(self._handle, arrays)

    def shapes(self, frame: memoryview) -> list[tuple[int, ...]]:
        return self._native.shapes(self._handle, frame)

    def decode(self, frame: memoryview, out: Sequence[Array]) -> None:
        self._native.decode(self._handle, frame, out)


def native_available() -> bool:
    """Whether the C extension is built."""
    return _native is not None


@functools.lru_cache(maxsize=64)
def open_codec(boundary: FrameSchema, engine: str | None = None) -> Codec:
    """The codec of a boundary, kept for further frames. `engine`: native, reference, or None to choose. Thread-safe."""
    engine = (
        engine or os.environ.get("IRSPLIT_CODEC") or ("reference" if _native is None else "native")
    )
    if engine == "native":
        return NativeCodec(boundary)
    if engine == "reference":
        return reference.ReferenceCodec(boundary)
    raise UnsupportedError(
        f"unknown codec engine {engine!r}; use IRSPLIT_CODEC=native or IRSPLIT_CODEC=reference"
    )


def _prepared(boundary: FrameSchema, spec: TensorSpec, array: Array) -> Array:
    """The array as the codecs want it: row-major, little-endian, storage type. Refused by name otherwise."""
    where = f"{boundary}, tensor {spec.name!r}"
    if array.dtype.name == _EXTENSION_NAMES.get(spec.dtype):
        array = array.view(spec.storage)
    if array.dtype.newbyteorder("<") != spec.storage:
        raise FrameError(
            f"{where}: array of {array.dtype.name} for elements of {spec.dtype}; give {spec.storage.name}"
        )
    matches = array.ndim == len(spec.shape) and all(
        dim in (None, size) for dim, size in zip(spec.shape, array.shape, strict=True)
    )
    if not matches:
        expected = tuple("?" if dim is None else dim for dim in spec.shape)
        raise FrameError(
            f"{where}: array of shape {array.shape} for {expected}; feed what the bundle was made for"
        )
    return np.require(array, spec.storage, "C")


def encode(boundary: FrameSchema, tensors: Sequence[Array]) -> bytes:
    """One frame with the boundary's tensors in order. Raises FrameError for arrays that do not match."""
    specs = boundary.tensors
    if len(tensors) != len(specs):
        names = ", ".join(repr(spec.name) for spec in specs)
        raise FrameError(
            f"{boundary}: {len(tensors)} arrays for {len(specs)} tensors; give {names} in this order"
        )
    arrays = [_prepared(boundary, spec, array) for spec, array in zip(specs, tensors, strict=True)]
    try:
        return open_codec(boundary).encode(arrays)
    except StatusError as error:
        raise FrameError(_encode_reason(boundary, error.status)) from error


def _encode_reason(boundary: FrameSchema, status: Status) -> str:
    if status == Status.VALUE:
        return f"{boundary}: a bool tensor holds a byte other than 0 and 1; convert it with astype(bool)"
    if status == Status.SIZE:
        return f"{boundary}: a tensor is too large for a frame; send fewer samples at a time"
    return f"{boundary}: cannot be encoded ({status.name.lower()})"


class FrameSizes(NamedTuple):
    """What the C core asks for on this machine, for a boundary with static shapes."""

    memory_bytes: int
    frame_bytes: int
    workspace_bytes: int


def frame_sizes(boundary: FrameSchema, shapes: Sequence[Sequence[int]]) -> FrameSizes:
    """Sizes a firmware has to provide for tensors of these `shapes`. Needs the C extension."""
    codec = NativeCodec(boundary)
    arrays: list[Array] = [
        np.empty(shape, spec.storage) for shape, spec in zip(shapes, boundary.tensors, strict=True)
    ]
    return FrameSizes(*codec.sizes(arrays))


def frame_size(header: Bytes) -> int:
    """Size of a whole frame from its first HEADER_SIZE bytes. Check it against a limit of yours before reading on."""
    try:
        return (
            reference.frame_size(memoryview(header))
            if _native is None
            else _native.frame_size(header)
        )
    except StatusError as error:
        raise FrameError(f"frame header: {_REASONS[error.status]}") from error


def frame_digest(frame: Bytes) -> bytes:
    """First 8 bytes of the digest of the boundary that the frame belongs to."""
    frame_size(frame)
    return reference.HEADER.unpack_from(frame)[4]


def frame_shapes(boundary: FrameSchema, frame: Bytes) -> list[tuple[int, ...]]:
    """Shapes of the boundary's tensors in a frame, from its first bytes alone: nothing is allocated or looked at.

    Raises FrameError for bytes that are no frame of this boundary; `decode` finds what else is wrong with them.
    """
    data = memoryview(frame).cast("B")
    if not boundary.digest.startswith(frame_digest(data)):
        raise FrameError(_decode_reason(boundary, data, Status.BOUNDARY))
    count = boundary.symbol_count
    if len(data) < HEADER_SIZE + 4 * count:
        raise FrameError(_decode_reason(boundary, data, Status.TRUNCATED))
    sizes = iter(struct.unpack_from(f"<{count}I", data, HEADER_SIZE))
    return [
        tuple(next(sizes) if dim is None else dim for dim in spec.shape)
        for spec in boundary.tensors
    ]


def decode(
    boundary: FrameSchema,
    frame: Bytes,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    out: Sequence[Array] | None = None,
) -> list[Array]:
    """The boundary's tensors, written into `out` when given (C-contiguous arrays of the right shapes and types).

    Nothing larger than `max_bytes` in total is allocated, whatever the frame says. Raises FrameError for a frame that
    is damaged or belongs to another boundary; `out` may then be partly written.
    """
    data = memoryview(frame).cast("B")
    try:
        codec = open_codec(boundary)
        # static shapes need no look at the frame; decoding checks all of it anyway
        shapes = codec.shapes(data) if boundary.symbol_count else _static_shapes(boundary)
        arrays = (
            _allocated(boundary, shapes, max_bytes)
            if out is None
            else _checked(boundary, shapes, out)
        )
        codec.decode(data, arrays)
    except StatusError as error:
        raise FrameError(_decode_reason(boundary, data, error.status)) from error
    except MemoryError as error:
        # A few bytes can stand for many equal ones; up to max_bytes they are believed.
        raise FrameError(
            f"frame for {boundary} decodes to more than there is memory for; lower max_bytes={max_bytes}"
        ) from error
    return arrays


def _static_shapes(boundary: FrameSchema) -> list[tuple[int, ...]]:
    return [tuple(dim or 0 for dim in spec.shape) for spec in boundary.tensors]


def _decode_reason(boundary: FrameSchema, frame: memoryview, status: Status) -> str:
    if status == Status.BOUNDARY:
        other = frame_digest(frame).hex()
        return (
            f"frame of another boundary ({other}) given to {boundary}; "
            "both sides need the same build of the same bundle, and frames of several cuts must not be mixed up"
        )
    return (
        f"frame of {len(frame)} bytes for {boundary}: {_REASONS.get(status, status.name.lower())}"
    )


def _allocated(boundary: FrameSchema, shapes: list[tuple[int, ...]], max_bytes: int) -> list[Array]:
    total = 0
    for spec, shape in zip(boundary.tensors, shapes, strict=True):
        size = spec.storage.itemsize
        for dim in shape:
            size *= dim
        total += size
    if total > max_bytes:
        raise FrameError(
            f"frame for {boundary} decodes to {total} bytes, above max_bytes={max_bytes}; raise the limit"
        )
    return [
        np.empty(shape, spec.storage) for spec, shape in zip(boundary.tensors, shapes, strict=True)
    ]


def _checked(
    boundary: FrameSchema, shapes: list[tuple[int, ...]], out: Sequence[Array]
) -> list[Array]:
    if len(out) != len(shapes):
        raise FrameError(
            f"{boundary}: {len(out)} output arrays for {len(shapes)} tensors; give one for each"
        )
    for spec, shape, array in zip(boundary.tensors, shapes, out, strict=True):
        flags = array.flags
        if (
            array.dtype != spec.storage
            or array.shape != shape
            or not (flags.c_contiguous and flags.writeable)
        ):
            raise FrameError(
                f"{boundary}, tensor {spec.name!r}: output array of {array.dtype.name}{array.shape}; give a writable, "
                f"C-contiguous {spec.storage.name} array of shape {shape}"
            )
    return list(out)
