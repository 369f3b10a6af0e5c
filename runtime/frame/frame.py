"""Encode the tensors of a boundary into a frame, and decode them again.

The C extension does the work. Where it is not built, the numpy reference gives the same bytes,
slower. The environment variable IRSPLIT_CODEC=native|reference forces one of them.
"""

import functools
import math
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

# It is missing when there was no compiler at the installation.
try:
    from irsplit.runtime.c import _native
except ImportError:
    _native = None

Array = NDArray[np.generic]
Bytes = bytes | bytearray | memoryview

HEADER_SIZE = reference.HEADER.size
"""Bytes from which `frame_size` tells the size of a frame."""
DEFAULT_MAX_BYTES = 1 << 30
"""Bytes that a frame may decode to unless the caller says otherwise."""

_EXTENSION_NAMES = {
    "bf16": "bfloat16",
    "f8e4m3fn": "float8_e4m3fn",
    "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2": "float8_e5m2",
    "f8e5m2fnuz": "float8_e5m2fnuz",
    "f8e8m0": "float8_e8m0fnu",
}
"""Types that numpy gets from the package ml_dtypes. They travel as integers of the same width."""

_REASONS = {
    Status.TRUNCATED: "it ends too early; read as many bytes as frame_size() says before decoding",
    Status.MAGIC: "it does not begin with IRSF; give the bytes that encode() returned",
    Status.VERSION: "a later version of irsplit wrote it; update this side",
    Status.CHECKSUM: "its bytes changed on the way (CRC-32C differs); send it again",
    Status.SIZE: "its size contradicts its header; give exactly the bytes that encode() returned",
    Status.CORRUPT: "its checksum is right, but its contents are impossible; "
    "the sender is at fault",
    Status.CODEC: "it needs a codec that is not available; "
    "install the release that compiled the bundle",
}


class Codec(Protocol):
    """A boundary that is opened for coding. Every method raises StatusError."""

    def encode(self, arrays: Sequence[Array]) -> bytes:
        """The frame of arrays that fit the boundary."""
        ...

    def shapes(self, frame: memoryview) -> list[tuple[int, ...]]:
        """The shapes of a frame's tensors."""
        ...

    def decode(self, frame: memoryview, out: Sequence[Array]) -> None:
        """Write a frame's tensors into arrays of their shapes."""
        ...


class NativeCodec:
    """The codec of the C core."""

    def __init__(self, boundary: FrameSchema) -> None:
        if _native is None:
            raise UnsupportedError(
                "IRSPLIT_CODEC=native, but the C extension is not built; "
                "install a C compiler and reinstall irsplit"
            )
        hooks = Hooks(boundary)
        self._native = _native
        self._handle = _native.open(boundary.to_bytes(), hooks.compress, hooks.decompress)

    def encode(self, arrays: Sequence[Array]) -> bytes:
        return self._native.encode(self._handle, arrays)

    def sizes(self, arrays: Sequence[Array]) -> tuple[int, int, int]:
        """Bytes of the opened boundary, of the largest frame, and of scratch memory.

        They are those for arrays of these shapes.
        """
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
    """Open a boundary for coding, and keep it open for further frames. Thread-safe.

    Args:
        boundary: What crosses.
        engine: "native" for the C core, "reference" for numpy; None leaves the choice to the
            environment variable IRSPLIT_CODEC, and then to what is built.

    Raises:
        UnsupportedError: The engine is unknown or not built.
    """
    if engine is None:
        default = "reference" if _native is None else "native"
        engine = os.environ.get("IRSPLIT_CODEC") or default

    if engine == "native":
        return NativeCodec(boundary)
    if engine == "reference":
        return reference.ReferenceCodec(boundary)
    raise UnsupportedError(
        f"unknown codec engine {engine!r}; use IRSPLIT_CODEC=native or IRSPLIT_CODEC=reference"
    )


def _prepared(boundary: FrameSchema, spec: TensorSpec, array: Array) -> Array:
    """The array as codecs need it: row-major, little-endian, of the storage type.

    Raises FrameError that names the tensor when the array does not fit it.
    """
    where = f"{boundary}, tensor {spec.name!r}"
    if array.dtype.name == _EXTENSION_NAMES.get(spec.dtype):
        array = array.view(spec.storage)
    if array.dtype.newbyteorder("<") != spec.storage:
        raise FrameError(
            f"{where}: array of {array.dtype.name} for elements of {spec.dtype}; "
            f"give {spec.storage.name}"
        )
    if not _has_shape(spec, array):
        expected = tuple("?" if dim is None else dim for dim in spec.shape)
        raise FrameError(
            f"{where}: array of shape {array.shape} for {expected}; "
            "feed what the bundle was made for"
        )
    return np.require(array, spec.storage, "C")


def _has_shape(spec: TensorSpec, array: Array) -> bool:
    if array.ndim != len(spec.shape):
        return False
    return all(dim in (None, size) for dim, size in zip(spec.shape, array.shape, strict=True))


def encode(boundary: FrameSchema, tensors: Sequence[Array]) -> bytes:
    """Encode the tensors of a boundary into one frame. Equal tensors give equal bytes.

    Example:
        data = encode(schema, [features])

    Args:
        boundary: What crosses.
        tensors: One array for each tensor of the boundary, in its order.

    Raises:
        FrameError: The arrays do not fit the boundary.
    """
    specs = boundary.tensors
    if len(tensors) != len(specs):
        names = ", ".join(repr(spec.name) for spec in specs)
        raise FrameError(
            f"{boundary}: {len(tensors)} arrays for {len(specs)} tensors; "
            f"give {names} in this order"
        )
    arrays = [_prepared(boundary, spec, array) for spec, array in zip(specs, tensors, strict=True)]

    try:
        return open_codec(boundary).encode(arrays)
    except StatusError as error:
        raise FrameError(_encode_reason(boundary, error.status)) from error


def _encode_reason(boundary: FrameSchema, status: Status) -> str:
    if status == Status.VALUE:
        return (
            f"{boundary}: a bool tensor holds a byte other than 0 and 1; "
            "convert it with astype(bool)"
        )
    if status == Status.SIZE:
        return f"{boundary}: a tensor is too large for a frame; send fewer samples at a time"
    return f"{boundary}: cannot be encoded ({status.name.lower()})"


class FrameSizes(NamedTuple):
    """The memory that the C core needs on this machine for one boundary.

    Attributes:
        memory_bytes: For the opened boundary.
        frame_bytes: For the largest frame.
        workspace_bytes: For scratch memory.
    """

    memory_bytes: int
    frame_bytes: int
    workspace_bytes: int


def frame_sizes(boundary: FrameSchema, shapes: Sequence[Sequence[int]]) -> FrameSizes:
    """Sizes of the memory that a firmware has to provide. Needs the C extension.

    Args:
        boundary: What crosses.
        shapes: One shape for each tensor of the boundary.
    """
    codec = NativeCodec(boundary)
    arrays: list[Array] = []
    for shape, spec in zip(shapes, boundary.tensors, strict=True):
        arrays.append(np.empty(shape, spec.storage))
    return FrameSizes(*codec.sizes(arrays))


def frame_size(header: Bytes) -> int:
    """Size of a whole frame in bytes. Check it against a limit of yours before reading on.

    Args:
        header: The first HEADER_SIZE bytes of the frame, or more.

    Raises:
        FrameError: The bytes do not begin like a frame.
    """
    try:
        if _native is None:
            return reference.frame_size(memoryview(header))
        return _native.frame_size(header)
    except StatusError as error:
        raise FrameError(f"frame header: {_REASONS[error.status]}") from error


def frame_digest(frame: Bytes) -> bytes:
    """First 8 bytes of the digest of the boundary that a frame belongs to.

    Raises:
        FrameError: The bytes do not begin like a frame.
    """
    frame_size(frame)
    return reference.HEADER.unpack_from(frame)[4]


def frame_shapes(boundary: FrameSchema, frame: Bytes) -> list[tuple[int, ...]]:
    """Shapes of the tensors in a frame, from its first bytes alone. Nothing is allocated.

    Raises:
        FrameError: The bytes are no frame of this boundary. `decode` finds what else is wrong.
    """
    data = memoryview(frame).cast("B")
    if not boundary.digest.startswith(frame_digest(data)):
        raise FrameError(_decode_reason(boundary, data, Status.BOUNDARY))
    count = boundary.symbol_count
    if len(data) < HEADER_SIZE + 4 * count:
        raise FrameError(_decode_reason(boundary, data, Status.TRUNCATED))

    # Behind the header lie the sizes of all open dimensions, in the order of the tensors.
    sizes = iter(struct.unpack_from(f"<{count}I", data, HEADER_SIZE))
    shapes: list[tuple[int, ...]] = []
    for spec in boundary.tensors:
        shapes.append(tuple(next(sizes) if dim is None else dim for dim in spec.shape))
    return shapes


def decode(
    boundary: FrameSchema,
    frame: Bytes,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    out: Sequence[Array] | None = None,
) -> list[Array]:
    """Decode the tensors of a frame.

    Example:
        (features,) = decode(schema, data)

    Args:
        boundary: What crosses.
        frame: The bytes of one frame.
        max_bytes: Allocate no more than this in total, whatever the frame says.
        out: Arrays to write into: C-contiguous, of the right shapes and types. By default new ones
            are made.

    Returns:
        One array for each tensor of the boundary, in its order.

    Raises:
        FrameError: The frame is damaged, belongs to another boundary, or is beyond `max_bytes`;
            `out` may then be partly written.
    """
    data = memoryview(frame).cast("B")
    try:
        codec = open_codec(boundary)
        # Static shapes are known without the frame, and decoding checks all of it anyway.
        shapes = codec.shapes(data) if boundary.symbol_count else _static_shapes(boundary)
        arrays = (
            _checked(boundary, shapes, out)
            if out is not None
            else _allocated(boundary, shapes, max_bytes)
        )
        codec.decode(data, arrays)
    except StatusError as error:
        raise FrameError(_decode_reason(boundary, data, error.status)) from error
    except MemoryError as error:
        # A few bytes can stand for many equal elements. Up to max_bytes they are believed.
        raise FrameError(
            f"frame for {boundary} decodes to more than there is memory for; "
            f"lower max_bytes={max_bytes}"
        ) from error
    return arrays


def _static_shapes(boundary: FrameSchema) -> list[tuple[int, ...]]:
    """The shapes of a boundary without open dimensions."""
    shapes: list[tuple[int, ...]] = []
    for spec in boundary.tensors:
        shapes.append(tuple(dim or 0 for dim in spec.shape))
    return shapes


def _decode_reason(boundary: FrameSchema, frame: memoryview, status: Status) -> str:
    if status == Status.BOUNDARY:
        return (
            f"frame of another boundary ({frame_digest(frame).hex()}) given to {boundary}; "
            "both sides need the same build of the same bundle, and frames of several cuts must "
            "not be mixed up"
        )
    reason = _REASONS.get(status, status.name.lower())
    return f"frame of {len(frame)} bytes for {boundary}: {reason}"


def _allocated(boundary: FrameSchema, shapes: list[tuple[int, ...]], max_bytes: int) -> list[Array]:
    """New arrays for a frame's tensors. Raises FrameError above `max_bytes`."""
    pairs = list(zip(boundary.tensors, shapes, strict=True))
    total = sum(math.prod(shape) * spec.storage.itemsize for spec, shape in pairs)
    if total > max_bytes:
        raise FrameError(
            f"frame for {boundary} decodes to {total} bytes, above max_bytes={max_bytes}; "
            "raise the limit"
        )
    return [np.empty(shape, spec.storage) for spec, shape in pairs]


def _checked(
    boundary: FrameSchema, shapes: list[tuple[int, ...]], out: Sequence[Array]
) -> list[Array]:
    """The caller's arrays. Raises FrameError unless they are what a frame is decoded into."""
    if len(out) != len(shapes):
        raise FrameError(
            f"{boundary}: {len(out)} output arrays for {len(shapes)} tensors; give one for each"
        )
    for spec, shape, array in zip(boundary.tensors, shapes, out, strict=True):
        writable = array.flags.c_contiguous and array.flags.writeable
        if array.dtype != spec.storage or array.shape != shape or not writable:
            raise FrameError(
                f"{boundary}, tensor {spec.name!r}: output array of "
                f"{array.dtype.name}{array.shape}; give a writable, C-contiguous "
                f"{spec.storage.name} array of shape {shape}"
            )
    return list(out)
