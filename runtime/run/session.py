"""Run a bundle: the device side starts, a frame travels, and the server side resumes.

    device = DeviceSession("build")
    server = ServerSession("build")
    frame = device.start({"image": image})
    outputs = server.resume(frame)

Outputs of the whole model that are complete before a frame is sent stay on the side that computed
them: they ride on the frame object as `frame.results`, and only the bytes travel.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.dtypes import BY_NAME, from_numpy
from irsplit.base.errors import BundleError, EngineError, FrameError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.segment import TensorInfo
from irsplit.runtime.bundle.working_memory import LARGE_BYTES, RunLimits
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import DIGEST_SIZE, FrameSchema
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions
from irsplit.runtime.run.segments import SegmentRunner, decode, encode

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name."""

_ANY_RUN = RunLimits(rows=1 << 32, decoded_bytes=framing.DEFAULT_MAX_BYTES, working_bytes=1 << 62)
"""Limits for frames that come from the application itself."""


class Frame(bytes):
    """The bytes that travel.

    Attributes:
        results: Outputs of the whole model that stay on this side, by name.
    """

    results: dict[str, Any]

    def __new__(cls, data: bytes, results: Mapping[str, Any]) -> "Frame":
        frame = super().__new__(cls, data)
        frame.results = dict(results)
        return frame


class Session:
    """The segments of some placements with their engines and, between calls, their state.

    A boundary between two segments that both run in this session is passed in memory, without
    quantization or codec. A session serves one thread at a time.

    Example:
        session = Session("build", ["server"])
        outcome = session.resume(frame)

    Args:
        bundle: The bundle's folder, or a packed side with the segments that run here.
        places: The placements whose segments this process runs: "device", "server", or both.
        options: How engines run.
        limits: Rows, decoded bytes and working memory of one `resume`, for frames from strangers.
            By default a frame may decode to 1 GiB, and nothing else is limited.
        verify_digests: Compare the files of these placements with their digests before an engine
            opens them. That reads each file once, at about a second a GB.

    Raises:
        BundleError: There is no bundle, or a damaged one.
        EngineError: An engine refuses a segment.
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

        # Copies do not count: the device of an autonomous bundle stops where its own segments do.
        self._here = [segment.placement in places for segment in self.manifest.segments]
        self._runner = SegmentRunner(self.manifest, places, options)
        for index, here in enumerate(self._here):
            if here:
                self._runner.open(index, index + 1)

    @property
    def boundaries(self) -> tuple[FrameSchema, ...]:
        """The boundaries of the bundle. Boundary `i` lies between segments `i` and `i + 1`."""
        return self.manifest.boundaries

    def reset(self) -> None:
        """Forget what stateful segments keep between calls."""
        self._runner.reset()

    def start(self, inputs: Arrays) -> Frame | dict[str, Any]:
        """Run from the model's inputs to the first boundary to another placement, or to the end.

        Args:
            inputs: The model's inputs by name.

        Returns:
            The frame to send, or the model's outputs by name when all segments run here.

        Raises:
            BundleError: The bundle starts at another placement.
            EngineError: An input is missing, unknown, or of the wrong type or shape; the text names
                it. Or an engine fails.
        """
        if not self._here[0]:
            first = self.manifest.segments[0]
            raise BundleError(
                f"bundle '{self.manifest.name}' starts on the {first.placement}; start it there"
            )
        return self._advance(0, check_inputs(self.manifest.inputs, inputs), {})

    def resume(self, frame: bytes) -> Frame | dict[str, Any]:
        """Run from the boundary of a frame to the next one to another placement, or to the end.

        Args:
            frame: The bytes of a frame. For a `Frame`, its results are among the outputs.

        Returns:
            The next frame to send, or the model's outputs by name.

        Raises:
            FrameError: The frame is damaged, belongs to another build, is resumed elsewhere, or is
                beyond the limits.
            EngineError: An engine fails.
        """
        boundary = self._boundary_of(frame)
        index = boundary.index + 1
        if not self._here[index]:
            raise FrameError(
                f"{boundary} is resumed on the {self.manifest.segments[index].placement}, not here"
            )

        # The first bytes of a frame tell what it takes to run, before anything is allocated.
        shapes = framing.frame_shapes(boundary, frame)
        by_name = {spec.name: shape for spec, shape in zip(boundary.tensors, shapes, strict=True)}
        try:
            needed = self.manifest.needed(index, by_name, self._limits)
        except ValueError as error:
            raise FrameError(f"frame for {boundary}: {error}") from error

        values = decode(boundary, frame, self._limits.decoded_bytes)
        results = getattr(frame, "results", {})
        return self._advance(index, values, results, needed > LARGE_BYTES)

    def _boundary_of(self, frame: bytes) -> FrameSchema:
        boundary = self.manifest.boundary_of(frame)
        if boundary is not None:
            return boundary
        head = framing.frame_digest(frame).hex()
        boundaries = ", ".join(map(str, self.boundaries)) or "none"
        raise FrameError(
            f"the frame belongs to boundary {head} of another bundle; bundle "
            f"'{self.manifest.name}' ({self.manifest.digest[: 2 * DIGEST_SIZE]}) has {boundaries}; "
            "use the same build on both sides"
        )

    def _advance(
        self, start: int, values: Arrays, results: Mapping[str, Any], large: bool = False
    ) -> Frame | dict[str, Any]:
        """Run the segments from `start` up to the first one before which a frame leaves."""
        count = len(self._here)
        stop = start + 1
        while stop < count and not self._pauses_before(stop):
            stop += 1
        run = self._runner.run(start, stop, values, large)

        results = {**results, **run.results}
        # The results stay here: only the bytes of the frame travel.
        if stop < count:
            return Frame(encode(self.boundaries[stop - 1], run.values), results)
        # In the order of the model's outputs.
        return {
            info.name: results[info.name] for info in self.manifest.outputs if info.name in results
        }

    def _pauses_before(self, index: int) -> bool:
        """Whether a frame leaves this session before segment `index`."""
        return not self._here[index]

    def run_segment(self, index: int, values: Arrays, large: bool = False) -> dict[str, Any]:
        """Run one segment alone.

        Args:
            index: The segment, which must run here.
            values: What the segment reads, by name.
            large: Let the engine give the memory of this run back.

        Returns:
            What the segment gives, by name.
        """
        run = self._runner.run(index, index + 1, values, large)
        return {name: run.values[name] for name in self.manifest.segments[index].outputs}


class DeviceSession(Session):
    """The device side of a bundle: `start(inputs)` gives the frame to send.

    Example:
        frame = DeviceSession("build").start({"image": image})
    """

    def __init__(
        self,
        bundle: Path | str,
        options: EngineOptions = DEFAULT_OPTIONS,
        *,
        verify_digests: bool = True,
    ) -> None:
        super().__init__(bundle, ("device",), options, verify_digests=verify_digests)

    def start(self, inputs: Arrays) -> Frame:
        """As `Session.start`, for a bundle that goes on at the server: the frame to send."""
        outcome = super().start(inputs)
        if not isinstance(outcome, Frame):
            raise BundleError(
                f"bundle '{self.manifest.name}' ends on the device, without a frame; "
                "use LocalSession"
            )
        return outcome


class ServerSession(Session):
    """The server side of a bundle: `resume(frame)` gives the outputs of the whole model.

    Example:
        outputs = ServerSession("build").resume(frame)
    """

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
    """All segments in this process, with a real frame at every boundary.

    It computes what both sides compute together.

    Example:
        outputs = LocalSession("build").run({"image": image})

    Attributes:
        frame_bytes: The sizes of the frames of the latest call.
    """

    def __init__(
        self,
        bundle: Path | str,
        options: EngineOptions = DEFAULT_OPTIONS,
        *,
        verify_digests: bool = True,
    ) -> None:
        super().__init__(bundle, ("device", "server"), options, verify_digests=verify_digests)
        self.frame_bytes: list[int] = []

    def _pauses_before(self, index: int) -> bool:
        return True

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """Run the whole model: all its outputs by name."""
        self.frame_bytes = []
        outcome = self.start(inputs)
        while isinstance(outcome, Frame):
            self.frame_bytes.append(len(outcome))
            outcome = self.resume(outcome)
        return outcome


def check_inputs(expected: Sequence[TensorInfo], inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Check the inputs of a call.

    Args:
        expected: The inputs of the model.
        inputs: Arrays by name, or what numpy makes arrays of.

    Returns:
        An array for every input of the model, by name.

    Raises:
        EngineError: An input is missing, unknown, or of the wrong type or shape; the text names it.
    """
    if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EngineError(
            f"inputs are a {type(inputs).__name__}; give arrays by name: {_example(expected)}"
        )

    names = {info.name for info in expected}
    for name in inputs:
        if name not in names:
            raise EngineError(
                f"the model has no input '{name}'; its inputs: {', '.join(sorted(names))}"
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
    """Whether an array has the type and the shape of an input, as far as they are known."""
    if not _has_type(info, array):
        return False
    if info.shape is None:
        return True
    if len(info.shape) != array.ndim:
        return False

    # An open dimension takes every size.
    return all(dim in (None, size) for dim, size in zip(info.shape, array.shape, strict=True))


def _has_type(info: TensorInfo, array: NDArray[Any]) -> bool:
    dtype = BY_NAME.get(info.dtype)
    if dtype is None or dtype.storage is None:
        return True
    # Types that numpy lacks are given as the integers that store them.
    return from_numpy(array) == dtype or array.dtype == dtype.storage


def _described(info: TensorInfo) -> str:
    """An input in words, such as "f32[?, 16]"."""
    if info.shape is None:
        return f"{info.dtype} of any shape"
    dims = ", ".join("?" if dim is None else str(dim) for dim in info.shape)
    return f"{info.dtype}[{dims}]"


def _example(expected: Sequence[TensorInfo]) -> str:
    """All inputs in the form of a dictionary."""
    items = (f"{info.name!r}: {_described(info)}" for info in expected)
    return f"{{{', '.join(items)}}}"
