"""What a server's answer must be by the bundle's manifest, and what it brings when it is that.

An answer that does not fit is treated as none: whoever asked tries again, goes on without the server, or says why not.
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
"""Of an element, in whatever form it is sent: as JSON, a double takes 25."""
_AROUND_BYTES = 1 << 16
"""Of an answer, beside its elements: names, shapes, parameters, headers of a frame."""


@dataclass(frozen=True, slots=True)
class Received:
    """What an answer brings: outputs of the model, and the values with which segment `index` goes on.

    `index` is the number of segments when nothing is left to do.
    """

    results: Mapping[str, Any] = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    index: int


class Expected:
    """What answers to frames may hold, by the segment that the frame is for."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._infos = {info.name: info for info in manifest.outputs}
        self._served = [
            each.placement == "server" or "server" in each.copies for each in manifest.segments
        ]

    def sizes(self, inputs: Arrays) -> dict[str, int]:
        """What the model's symbols stand for in a call; without those that its inputs do not agree on."""
        found: dict[str, set[int]] = {}
        for info in self._manifest.inputs:
            for axis, symbol in info.symbols.items():
                found.setdefault(symbol, set()).add(inputs[info.name].shape[axis])
        return {symbol: sizes.pop() for symbol, sizes in found.items() if len(sizes) == 1}

    def read(self, response: InferResponse, start: int, sizes: Mapping[str, int]) -> Received:
        """The contents of an answer to a frame for segment `start`, of a call with these `sizes` of symbols.

        Raises TransportError when they do not fit.
        """
        try:
            return self._read(response, start, sizes)
        except (_MisfitError, ServiceError, FrameError) as error:
            raise TransportError(None, f"the answer does not fit the bundle: {error}") from error

    def _read(self, response: InferResponse, start: int, sizes: Mapping[str, int]) -> Received:
        segments = self._manifest.segments
        stop = next(
            (index for index in range(start, len(segments)) if not self._served[index]),
            len(segments),
        )
        names = [name for segment in segments[start:stop] for name in segment.results]
        goes_on = stop < len(segments)
        tensors = _by_name(response.outputs, [*names, FRAME] if goes_on else names)
        results = {name: _result(self._infos[name], tensors[name], sizes) for name in names}
        values = (
            decode(self._manifest.boundaries[stop - 1], _frame(tensors[FRAME])) if goes_on else {}
        )
        return Received(results, values, stop)


class _MisfitError(Exception):
    """An answer that the manifest does not allow."""


def _by_name(tensors: Iterable[WireTensor], names: list[str]) -> dict[str, WireTensor]:
    """Tensors that are exactly those of these names."""
    found: dict[str, WireTensor] = {}
    for tensor in tensors:
        if tensor.name not in names:
            raise _MisfitError(f"it has '{tensor.name}', which nobody asked for")
        if tensor.name in found:
            raise _MisfitError(f"it has '{tensor.name}' twice")
        found[tensor.name] = tensor
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise _MisfitError(f"it has no '{missing}'")
    return found


def _result(info: TensorInfo, tensor: WireTensor, sizes: Mapping[str, int]) -> NDArray[Any]:
    datatype, shape = DATATYPES.get(info.dtype), _shape(info, sizes)
    if tensor.datatype != datatype or not _fits(tensor.shape, shape):
        declared = (
            " of any shape" if shape is None else [-1 if dim is None else dim for dim in shape]
        )
        text = f"'{info.name}' is {tensor.datatype}{list(tensor.shape)}, by the manifest {datatype}{declared}"
        raise _MisfitError(
            f"{text}; where the model is not what it declares, mend that and compile it again"
        )
    return to_array(tensor)


def _shape(info: TensorInfo, sizes: Mapping[str, int]) -> list[int | None] | None:
    """An output's shape as far as it is known for a call; None without a rank."""
    if info.shape is None:
        return None
    return [
        sizes.get(info.symbols.get(axis, "")) if dim is None else dim
        for axis, dim in enumerate(info.shape)
    ]


def _fits(shape: Sequence[int], known: Sequence[int | None] | None) -> bool:
    if known is None:
        return True
    return len(shape) == len(known) and all(
        dim in (None, size) for dim, size in zip(known, shape, strict=True)
    )


def _frame(tensor: WireTensor) -> bytes | memoryview:
    if tensor.datatype != "UINT8" or tensor.shape != (len(tensor.data),):
        text = f"'{FRAME}' is {tensor.datatype}{list(tensor.shape)} of {len(tensor.data)} bytes"
        raise _MisfitError(f"{text}, not UINT8[n] of n bytes")
    return tensor.data


def most_answer_bytes(manifest: Manifest) -> int:
    """What an answer can have at most; where a shape is open, what is read of any answer."""
    shapes = [None if info.dtype == "str" else info.shape for info in manifest.outputs]
    shapes += [spec.shape for boundary in manifest.boundaries for spec in boundary.tensors]
    total = _AROUND_BYTES * (1 + len(shapes))
    for shape in shapes:
        if shape is None or None in shape:
            return MOST_ANSWER_BYTES
        total += _ELEMENT_BYTES * math.prod(dim or 0 for dim in shape)
    return min(total, MOST_ANSWER_BYTES)
