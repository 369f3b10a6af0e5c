"""Run a bundle: the device's side starts, a frame travels, the server's side resumes.

    device = DeviceSession("build");  frame = device.start({"image": image})
    server = ServerSession("build");  outputs = server.resume(frame)

Outputs of the whole model that are ready before a frame is sent ride on it as `frame.results`: they stay on this side,
only the bytes travel.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.dtypes import BY_NAME, from_numpy
from irsplit.base.errors import BundleError, EngineError, FrameError
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo, run_engine
from irsplit.runtime.bundle.working_memory import LARGE_BYTES, RunLimits
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import DIGEST_SIZE, FrameSchema
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, Engine, EngineOptions
from irsplit.runtime.run.state import named_outputs

Arrays = Mapping[str, NDArray[Any]]

_ANY_RUN = RunLimits(rows=1 << 32, decoded_bytes=framing.DEFAULT_MAX_BYTES, working_bytes=1 << 62)
"""Of frames that come from the application itself."""


class Frame(bytes):
    """The bytes that travel, and beside them the results of the whole model that stay on this side."""

    results: dict[str, Any]

    def __new__(cls, data: bytes, results: Mapping[str, Any]) -> "Frame":
        frame = super().__new__(cls, data)
        frame.results = dict(results)
        return frame


class Session:
    """The segments of one place, with their engines and, between calls, their state.

    `places` says which segments this process runs. Boundaries between two of them are passed in memory, without
    quantization or codec. `bundle` is a folder, or a packed side for the segments it holds. Not for several threads at
    once.

    The files of these places are read once and compared with their digests before an engine opens them, which takes
    the time of SHA-256, about a second a GB; `verify_digests=False` trusts them instead. Raises BundleError for what
    is no bundle or a damaged one, EngineError when an engine refuses a segment.

    `limits` are for frames of strangers: rows, decoded bytes and working memory of a `resume`, as `irsplit serve` has
    them. Without, a frame may decode to 1 GiB, and rows and working memory are as many as it says.
    """

    def __init__(
        self,
        bundle: Path | str,
        places: Sequence[str],
        options: EngineOptions = DEFAULT_OPTIONS,
        limits: RunLimits | None = None,
        *,
        verify_digests: bool = True,
    ) -> None:
        self.manifest = Manifest.load(bundle)
        if verify_digests:
            self.manifest.check_files(places)
        self._limits = limits or _ANY_RUN
        self._here = [segment.placement in places for segment in self.manifest.segments]
        self._engines: dict[int, Engine] = {}
        for index, here in enumerate(self._here):
            if here:
                self._engines[index] = self.manifest.engine(index, options)
        self._by_digest = {boundary.digest: boundary for boundary in self.manifest.boundaries}

    @property
    def boundaries(self) -> tuple[FrameSchema, ...]:
        """Boundary i lies between segments i and i + 1."""
        return self.manifest.boundaries

    def reset(self) -> None:
        """Forget what stateful segments keep between calls."""
        for engine in self._engines.values():
            engine.reset()

    def start(self, inputs: Arrays) -> Frame | dict[str, Any]:
        """Run from the model's inputs up to the first boundary to another place, or to the end.

        Returns the frame to send, or the outputs by name when the whole model runs here. Raises EngineError, naming
        the input, for one that is missing, unknown or of the wrong type or shape.
        """
        if not self._here[0]:
            first = self.manifest.segments[0]
            raise BundleError(
                f"bundle '{self.manifest.name}' starts on the {first.placement}; start it there"
            )
        return self._advance(0, check_inputs(self.manifest.inputs, inputs), {})

    def resume(self, frame: bytes) -> Frame | dict[str, Any]:
        """Go on behind the boundary of `frame`, to the next boundary to another place or to the end.

        Returns outputs by name, those already in `frame.results` included. Raises FrameError for a frame that is
        damaged, belongs to another bundle or is beyond the limits, which its first bytes tell.
        """
        boundary = self._boundary_of(frame)
        index = boundary.index + 1
        if not self._here[index]:
            raise FrameError(
                f"{boundary} is resumed on the {self.manifest.segments[index].placement}, not here"
            )
        shapes = framing.frame_shapes(boundary, frame)
        named = {spec.name: shape for spec, shape in zip(boundary.tensors, shapes, strict=True)}
        try:
            needed = self.manifest.needed(index, named, self._limits)
        except ValueError as error:
            raise FrameError(f"frame for {boundary}: {error}") from error
        arrays = framing.decode(boundary, frame, max_bytes=self._limits.decoded_bytes)
        values = {spec.name: array for spec, array in zip(boundary.tensors, arrays, strict=True)}
        return self._advance(index, values, getattr(frame, "results", {}), needed > LARGE_BYTES)

    def _boundary_of(self, frame: bytes) -> FrameSchema:
        head = framing.frame_digest(frame)
        for digest, boundary in self._by_digest.items():
            if digest.startswith(head):
                return boundary
        known = ", ".join(str(boundary) for boundary in self._by_digest.values()) or "none"
        raise FrameError(
            f"the frame belongs to boundary {head.hex()} of another bundle; bundle '{self.manifest.name}' "
            f"({self.manifest.digest[: 2 * DIGEST_SIZE]}) has {known}; use the same build on both sides"
        )

    def _advance(
        self, index: int, values: Arrays, results: Mapping[str, Any], large: bool = False
    ) -> Frame | dict[str, Any]:
        """Run segments from `index` on while they are here."""
        values, results = dict(values), dict(results)
        while True:
            values.update(self.run_segment(index, values, large))
            results.update((name, values[name]) for name in self.manifest.segments[index].results)
            index += 1
            if index == len(self._here) or self._pauses_before(index):
                break
        if index == len(self._here):
            return {
                info.name: results[info.name]
                for info in self.manifest.outputs
                if info.name in results
            }
        boundary = self.boundaries[index - 1]
        return Frame(
            framing.encode(boundary, [values[spec.name] for spec in boundary.tensors]), results
        )

    def _pauses_before(self, index: int) -> bool:
        """Whether a frame leaves this session before segment `index`."""
        return not self._here[index]

    def run_segment(self, index: int, values: Arrays, large: bool = False) -> dict[str, Any]:
        """Run one segment alone on the values it reads; what it gives, by original tensor name.

        After a `large` run the engine keeps none of the memory that it took.
        """
        segment = self.manifest.segments[index]
        outputs = run_engine(self._engines[index], segment, values, large)
        return named_outputs(segment, outputs)


class DeviceSession(Session):
    """The segments on the device: `start(inputs)` gives the frame to send."""

    def __init__(
        self,
        bundle: Path | str,
        options: EngineOptions = DEFAULT_OPTIONS,
        *,
        verify_digests: bool = True,
    ) -> None:
        super().__init__(bundle, ("device",), options, verify_digests=verify_digests)

    def start(self, inputs: Arrays) -> Frame:
        """As `Session.start`: the frame for the server."""
        outcome = super().start(inputs)
        if not isinstance(outcome, Frame):
            raise BundleError(
                f"bundle '{self.manifest.name}' ends on the device, without a frame; use LocalSession"
            )
        return outcome


class ServerSession(Session):
    """The segments on the server: `resume(frame)` gives the outputs of the whole model."""

    def __init__(
        self,
        bundle: Path | str,
        options: EngineOptions = DEFAULT_OPTIONS,
        limits: RunLimits | None = None,
        *,
        verify_digests: bool = True,
    ) -> None:
        super().__init__(bundle, ("server",), options, limits, verify_digests=verify_digests)

    def resume(self, frame: bytes) -> dict[str, Any]:
        """As `Session.resume`, for a bundle that ends on the server: the outputs by name."""
        outcome = super().resume(frame)
        if isinstance(outcome, Frame):
            raise BundleError(
                f"bundle '{self.manifest.name}' goes on at the device; "
                "use Session(bundle, ['server']), whose resume returns the next frame"
            )
        return outcome


class LocalSession(Session):
    """All segments in this process, every boundary through a real frame: what both sides together compute."""

    def __init__(
        self,
        bundle: Path | str,
        options: EngineOptions = DEFAULT_OPTIONS,
        *,
        verify_digests: bool = True,
    ) -> None:
        super().__init__(bundle, ("device", "server"), options, verify_digests=verify_digests)
        self.frame_bytes: list[int] = []
        """Size of every frame of the latest call."""

    def _pauses_before(self, index: int) -> bool:
        return True

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """All outputs of the model by name."""
        self.frame_bytes = []
        outcome = self.start(inputs)
        while isinstance(outcome, Frame):
            self.frame_bytes.append(len(outcome))
            outcome = self.resume(outcome)
        return outcome


def check_inputs(expected: Sequence[TensorInfo], inputs: Arrays) -> dict[str, NDArray[Any]]:
    """The inputs as arrays of the right types. Raises EngineError that names what is missing, unknown or wrong."""
    if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EngineError(
            f"inputs are a {type(inputs).__name__}; give arrays by name: {_example(expected)}"
        )
    known = {info.name for info in expected}
    for name in inputs:
        if name not in known:
            raise EngineError(
                f"the model has no input '{name}'; its inputs: {', '.join(sorted(known))}"
            )
    arrays: dict[str, NDArray[Any]] = {}
    for info in expected:
        if info.name not in inputs:
            raise EngineError(f"input '{info.name}' is missing; give {_described(info)}")
        array = np.asarray(inputs[info.name])
        if not _fits(info, array):
            raise EngineError(
                f"input '{info.name}' is {array.dtype}{list(array.shape)}; give {_described(info)}"
            )
        arrays[info.name] = array
    return arrays


def _fits(info: TensorInfo, array: NDArray[Any]) -> bool:
    dtype = from_numpy(array)
    if info.dtype in BY_NAME and BY_NAME[info.dtype].storage is not None:
        same_type = dtype == BY_NAME[info.dtype] or array.dtype == BY_NAME[info.dtype].storage
        if not same_type:
            return False
    if info.shape is None:
        return True
    return len(info.shape) == array.ndim and all(
        wanted in (None, size) for wanted, size in zip(info.shape, array.shape, strict=True)
    )


def _described(info: TensorInfo) -> str:
    if info.shape is None:
        return f"{info.dtype} of any shape"
    return f"{info.dtype}[{', '.join('?' if dim is None else str(dim) for dim in info.shape)}]"


def _example(expected: Sequence[TensorInfo]) -> str:
    return f"{{{', '.join(f'{info.name!r}: {_described(info)}' for info in expected)}}}"
