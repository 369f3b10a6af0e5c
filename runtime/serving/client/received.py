"""Check a server's answer against the bundle's manifest, and read what it carries.

An answer that does not fit counts as no answer: the caller tries again, goes on without the
server, or reports why it cannot.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from irsplit.base.errors import FrameError
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.run.segments import decode
from irsplit.runtime.run.session import Arrays
from irsplit.runtime.serving.client.transport import MOST_ANSWER_BYTES, TransportError
from irsplit.runtime.serving.protocol.messages import (
    DATATYPES,
    FRAME,
    InferResponse,
    ServiceError,
    WireTensor,
    to_array,
)

_ELEMENT_BYTES = 32
"""The most bytes of one element, in whatever form it is sent: a double takes 25 as JSON."""
_AROUND_BYTES = 1 << 16
"""The most bytes of an answer beside its elements: names, shapes, parameters, frame headers."""


@dataclass(frozen=True, slots=True)
class Received:
    """What an answer carries.

    Attributes:
        results: Outputs of the model.
        values: The values with which segment `index` continues.
        index: The segment that runs next; the number of segments if nothing is left to do.
    """

    results: Mapping[str, Any] = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    index: int


class Expected:
    """What answers to frames may carry, by the segment that the frame is for.

    Args:
        manifest: The manifest of the bundle.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._infos = {info.name: info for info in manifest.outputs}
        self._served = [
            segment.placement == "server" or "server" in segment.copies
            for segment in manifest.segments
        ]

    def sizes(self, inputs: Arrays) -> dict[str, int]:
        """Return the size of each symbolic dim in a call.

        Args:
            inputs: The inputs of the call by name.

        Returns:
            Sizes by symbol, without the symbols for which the inputs have different sizes.
        """
        seen: dict[str, set[int]] = {}
        for info in self._manifest.inputs:
            for axis, symbol in info.symbols.items():
                seen.setdefault(symbol, set()).add(inputs[info.name].shape[axis])
        return {symbol: sizes.pop() for symbol, sizes in seen.items() if len(sizes) == 1}

    def read(self, response: InferResponse, start: int, sizes: Mapping[str, int]) -> Received:
        """Read the answer to a frame.

        Args:
            response: The answer.
            start: The segment that the frame was for.
            sizes: Sizes of the symbolic dims in the call, from `sizes`.

        Raises:
            TransportError: The answer does not fit the bundle.
        """
        try:
            return self._read(response, start, sizes)
        except (_MisfitError, ServiceError, FrameError) as error:
            raise TransportError(None, f"the answer does not fit the bundle: {error}") from error

    def _read(self, response: InferResponse, start: int, sizes: Mapping[str, int]) -> Received:
        segments = self._manifest.segments

        # The server runs up to the first segment that it does not have.
        stop = start
        while stop < len(segments) and self._served[stop]:
            stop += 1
        names: list[str] = []
        for segment in segments[start:stop]:
            names += segment.results

        # If the device has segments behind that, the answer has their inputs as a frame.
        device_continues = stop < len(segments)
        tensors = _by_name(response.outputs, [*names, FRAME] if device_continues else names)
        results = {name: _result(self._infos[name], tensors[name], sizes) for name in names}
        values: Mapping[str, Any] = {}
        if device_continues:
            values = decode(self._manifest.boundaries[stop - 1], _frame(tensors[FRAME]))
        return Received(results, values, stop)


class _MisfitError(Exception):
    """An answer that the manifest does not allow."""


def _by_name(tensors: Iterable[WireTensor], names: list[str]) -> dict[str, WireTensor]:
    """The tensors by name. Raises _MisfitError unless they are exactly those of these names."""
    by_name: dict[str, WireTensor] = {}
    for tensor in tensors:
        if tensor.name not in names:
            raise _MisfitError(f"it has '{tensor.name}', which was not asked for")
        if tensor.name in by_name:
            raise _MisfitError(f"it has '{tensor.name}' twice")
        by_name[tensor.name] = tensor

    for name in names:
        if name not in by_name:
            raise _MisfitError(f"it has no '{name}'")
    return by_name


def _result(info: TensorInfo, tensor: WireTensor, sizes: Mapping[str, int]) -> NDArray[Any]:
    """An output as an array. Raises _MisfitError for another type or shape than declared."""
    datatype = DATATYPES.get(info.dtype)
    shape = _shape(info, sizes)
    if tensor.datatype == datatype and _fits(tensor.shape, shape):
        return to_array(tensor)

    declared = f"{datatype} of any shape"
    if shape is not None:
        declared = f"{datatype}{[-1 if dim is None else dim for dim in shape]}"
    raise _MisfitError(
        f"'{info.name}' is {tensor.datatype}{list(tensor.shape)}, by the manifest {declared}; "
        "if the model declares the wrong type or shape, correct that and compile it again"
    )


def _shape(info: TensorInfo, sizes: Mapping[str, int]) -> list[int | None] | None:
    """An output's shape, with None for dims that are not known; None without a rank."""
    if info.shape is None:
        return None

    shape: list[int | None] = []
    for axis, dim in enumerate(info.shape):
        shape.append(sizes.get(info.symbols.get(axis, "")) if dim is None else dim)
    return shape


def _fits(shape: Sequence[int], declared: Sequence[int | None] | None) -> bool:
    """Whether a shape has the declared rank, and the declared size in every dim that is known."""
    if declared is None:
        return True
    if len(shape) != len(declared):
        return False
    return all(dim in (None, size) for dim, size in zip(declared, shape, strict=True))


def _frame(tensor: WireTensor) -> bytes | memoryview:
    """The bytes of a tensor that carries a frame. Raises _MisfitError for any other tensor."""
    if tensor.datatype != "UINT8" or tensor.shape != (len(tensor.data),):
        text = f"'{FRAME}' is {tensor.datatype}{list(tensor.shape)} of {len(tensor.data)} bytes"
        raise _MisfitError(f"{text}, not UINT8[n] of n bytes")
    return tensor.data


def most_answer_bytes(manifest: Manifest) -> int:
    """Return the size of the largest answer that a bundle can have.

    Args:
        manifest: The manifest of the bundle.

    Returns:
        Bytes, `MOST_ANSWER_BYTES` if a shape is not known.
    """
    shapes = [None if info.dtype == "str" else info.shape for info in manifest.outputs]
    for boundary in manifest.boundaries:
        shapes += [spec.shape for spec in boundary.tensors]

    # Names and headers come once for the message and once for each tensor.
    total = _AROUND_BYTES * (1 + len(shapes))
    for shape in shapes:
        if shape is None or None in shape:
            return MOST_ANSWER_BYTES
        total += _ELEMENT_BYTES * math.prod(dim or 0 for dim in shape)
    return min(total, MOST_ANSWER_BYTES)
