"""One bundle on a server: frames in, outputs out, state kept apart for every session."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from irsplit.base.errors import BundleError, EngineError, FrameError
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.bundle.working_memory import LARGE_BYTES, RunLimits
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.run.segments import SegmentRun, SegmentRunner, decode, encode
from irsplit.runtime.run.session import check_inputs
from irsplit.runtime.serving.protocol.checksum import contents_digest
from irsplit.runtime.serving.protocol.messages import (
    DATATYPES,
    FRAME,
    Code,
    InferRequest,
    InferResponse,
    Parameter,
    ServiceError,
    WireTensor,
    frame_tensor,
    session_ended_by,
    to_array,
    to_tensor,
)
from irsplit.runtime.serving.server.batching import alike, joined, mixed_rows, parted
from irsplit.runtime.serving.server.sequences import Sequences, Step

_MOST_NAMES = 8
"""Of what a request brings, in the text of a refusal."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take, and `held_bytes` and `working_bytes` all of them at a time.

    Checked before anything of that size is allocated. `rows` are those of a batch, `working_bytes` what engines take
    to run, as the manifest estimates it.
    """

    frame_bytes: int = 64 << 20
    decoded_bytes: int = 256 << 20
    held_bytes: int = 1 << 30
    rows: int = 64
    working_bytes: int = 2 << 30
    sessions: int = 256
    session_idle_s: float = 300.0

    @property
    def of_run(self) -> RunLimits:
        return RunLimits(self.rows, self.decoded_bytes, self.working_bytes)

    @property
    def message_bytes(self) -> int:
        """Of a message around a frame: names, parameters, tags, JSON."""
        return self.frame_bytes + (1 << 16)


@dataclass(frozen=True, slots=True)
class _Task:
    """A request that can be run: the first segment, what it reads, the names of the outputs to send, its contents."""

    id: str
    start: int
    values: Mapping[str, Any] = field(repr=False)
    wanted: tuple[str, ...]
    contents: str
    large: bool
    """Whether it takes so much memory that the engine must not keep it."""


class ServedBundle:
    """A bundle that is ready to resume, its files compared with their digests.

    `infer` may be called from several threads.

    `version` is the beginning of the bundle's digest: both sides have the same build exactly when they agree on it.
    """

    def __init__(
        self, manifest: Manifest, name: str, limits: Limits, options: EngineOptions
    ) -> None:
        manifest.check_files()
        self.manifest = manifest
        self.name = name
        self.version = manifest.digest[:16]
        self.limits = limits
        self.segments = SegmentRunner(manifest, "server", options)
        self.one_thread = options.threads == 1
        """Whether the thread that calls an engine does all its work."""
        count = len(manifest.segments)
        mine = [index for index in range(count) if self.segments.has(index, index + 1)]
        if not mine:
            raise BundleError(
                f"{manifest.store.root}: no segment runs on the server; run it with 'irsplit run'"
            )
        self._whole = all(manifest.file(index) is not None for index in range(count))
        self._stops = [self._find_stop(start) for start in range(count)]
        self._infos = {info.name: info for info in manifest.outputs}
        self.stateful = self.segments.stateful(0, count)
        for index in mine:
            self.segments.open(index, index + 1)
        self.inputs = [TensorInfo(FRAME, "u8", (None,))]
        self.outputs = answer_tensors(manifest)
        self._joinable: set[int] = set()
        self.sequences = Sequences[InferResponse](
            self.segments.fresh,
            limits.sessions,
            limits.session_idle_s,
            size_of=_size_of,
            most_bytes=limits.held_bytes,
        )

    def owns(self, request: InferRequest) -> bool:
        """Whether the frame of a request, or the session that it ends, belongs to this bundle."""
        return session_ended_by(request) in self.sequences or any(
            self._owns(request, boundary.index) for boundary in self.manifest.boundaries
        )

    def _owns(self, request: InferRequest, boundary: int) -> bool:
        try:
            owner = self.manifest.boundary_of(_frame_of(request))
        except (FrameError, ServiceError):
            return False
        return owner is not None and owner.index == boundary

    def allow_batches(self) -> dict[int, str]:
        """Find out which boundaries' frames may run together; why not, for the others."""
        reasons: dict[int, str] = {}
        for boundary in self.manifest.boundaries:
            start = boundary.index + 1
            stop = self._stop(start)
            if stop == start:
                continue
            names = self._needed(start, stop)
            try:
                reason = (
                    "it has state"
                    if self.stateful
                    else mixed_rows(boundary, self._values_of(start, stop), names)
                )
            except EngineError as error:
                reason = f"the engine refuses rows that were made up: {error}"
            if reason:
                reasons[boundary.index] = reason
            else:
                self._joinable.add(boundary.index)
        return reasons

    def _values_of(self, start: int, stop: int) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        return lambda values: self.segments.run(start, stop, values).values

    def boundary_of(self, request: InferRequest) -> int | None:
        """Of a request whose frame may run together with others of this boundary: its index."""
        if [tensor.name for tensor in request.inputs] != [FRAME] or not self._joinable:
            return None
        return next((index for index in self._joinable if self._owns(request, index)), None)

    def needed_bytes(self, request: InferRequest) -> int:
        """Memory that running a request takes, by estimate; 0 where nothing runs. It looks at sizes alone.

        Raises ServiceError TOO_LARGE for a request beyond the limits, and for what is no request of this bundle.
        """
        if self.stateful and session_ended_by(request):
            return 0
        return self._measured(request)[1]

    def _measured(self, request: InferRequest) -> tuple[int, int]:
        """The first segment to run, and the memory that is needed from there on."""
        if [tensor.name for tensor in request.inputs] != [FRAME]:
            start, shapes = 0, self._input_shapes(request)
        else:
            frame, boundary = self._framed(request)
            try:
                found = framing.frame_shapes(boundary, frame)
            except FrameError as error:
                raise ServiceError(Code.INVALID, str(error)) from error
            start = boundary.index + 1
            shapes = {spec.name: shape for spec, shape in zip(boundary.tensors, found, strict=True)}
        try:
            return start, self.manifest.needed(start, shapes, self.limits.of_run)
        except ValueError as error:
            raise ServiceError(Code.TOO_LARGE, f"'{self.name}': {error}") from error

    def infer(self, request: InferRequest) -> InferResponse:
        """Resume the request's frame, or run the whole model on its inputs, or end a session. Raises ServiceError."""
        if self.stateful and (ended := session_ended_by(request)):
            self.sequences.end(ended)
            return InferResponse(self.name, self.version, [], request.id, answers=request.contents)
        task = self._task(request)
        if not self.segments.stateful(task.start, self._stop(task.start)):
            return self._run(self.segments, task)  # what the device keeps is its own
        session, step = _step_of(request)
        if session in ("", "0"):
            text = f"bundle '{self.name}' keeps state between calls; send sequence_id, and sequence_start with the first"
            raise ServiceError(Code.INVALID, text)
        answer = self.sequences.run(session, step, lambda segments: self._run(segments, task))
        return replace(answer, id=request.id)

    def _task(self, request: InferRequest) -> _Task:
        """Whatever can be refused is refused here, before a state moves. Raises ServiceError."""
        start, needed = self._measured(request)
        if self._stop(start) == start:
            text = f"segment '{self.manifest.segments[start].name}' runs on the device, not here"
            raise ServiceError(Code.INVALID, text)
        made = self._made(start)
        unknown = next((name for name in request.outputs if name not in made), None)
        if unknown is not None:
            raise ServiceError(
                Code.INVALID, f"'{unknown}' is not made here; outputs: {', '.join(made)}"
            )
        return _Task(
            request.id,
            start,
            self._values(request, start),
            tuple(dict.fromkeys(request.outputs or made)),
            request.contents,
            needed > LARGE_BYTES,
        )

    def _made(self, start: int) -> list[str]:
        """Names of the tensors that an answer may have, when it begins with segment `start`."""
        stop, segments = self._stop(start), self.manifest.segments
        results = [name for segment in segments[start:stop] for name in segment.results]
        return results if stop == len(segments) else [*results, FRAME]

    def _values(self, request: InferRequest, start: int) -> Mapping[str, Any]:
        """What the first segment reads. Its size is known to be within the limits."""
        if start == 0:
            return self._model_inputs(request)
        try:
            return decode(
                self.manifest.boundaries[start - 1], _frame_of(request), self.limits.decoded_bytes
            )
        except FrameError as error:
            raise ServiceError(Code.INVALID, str(error)) from error

    def _framed(self, request: InferRequest) -> tuple[bytes | memoryview, FrameSchema]:
        """The frame of a request, of which nothing but the head is looked at, and the boundary it belongs to."""
        frame = _frame_of(request)
        if len(frame) > self.limits.frame_bytes:
            text = f"frame of {len(frame)} bytes, the limit is {self.limits.frame_bytes}; raise it with --max-frame-bytes"
            raise ServiceError(Code.TOO_LARGE, text)
        try:
            boundary = self.manifest.boundary_of(frame)
        except FrameError as error:
            raise ServiceError(Code.INVALID, str(error)) from error
        if boundary is not None:
            return frame, boundary
        text = (
            f"the frame belongs to boundary {framing.frame_digest(frame).hex()} of another build; '{self.name}' here is "
            f"{self.version}: give both sides the same build"
        )
        raise ServiceError(Code.MISMATCH, text)

    def _input_shapes(self, request: InferRequest) -> dict[str, tuple[int, ...]]:
        """Shapes of the model's inputs in a request that brings them. Raises ServiceError for others."""
        if not self._whole:
            names = (
                ", ".join(f"'{tensor.name}'" for tensor in request.inputs[:_MOST_NAMES])
                or "nothing"
            )
            text = (
                f"'{self.name}' takes one UINT8 tensor '{FRAME}', not {names}; for the model's own inputs "
                "the server needs the device's side of the bundle too"
            )
            raise ServiceError(Code.INVALID, text)
        shapes = {tensor.name: tensor.shape for tensor in request.inputs}
        if len(shapes) < len(request.inputs):
            raise ServiceError(Code.INVALID, "an input is given twice")
        for info in self.manifest.inputs:
            if info.name not in shapes:
                raise ServiceError(Code.INVALID, f"input '{info.name}' is missing")
            if info.shape is not None and len(shapes[info.name]) != len(info.shape):
                text = f"input '{info.name}' has {len(shapes[info.name])} dimensions; give {len(info.shape)}"
                raise ServiceError(Code.INVALID, text)
        return shapes

    def _model_inputs(self, request: InferRequest) -> Mapping[str, Any]:
        arrays = {tensor.name: to_array(tensor) for tensor in request.inputs}
        try:
            return check_inputs(self.manifest.inputs, arrays)
        except EngineError as error:
            raise ServiceError(Code.INVALID, str(error)) from error

    def infer_together(
        self, requests: Sequence[InferRequest]
    ) -> list[InferResponse | ServiceError]:
        """As `infer` for frames of one boundary, in as few runs as shapes allow; an error is one request's own."""
        answers: dict[int, InferResponse | ServiceError] = {}
        groups: dict[Hashable, list[tuple[int, _Task]]] = {}
        for index, request in enumerate(requests):
            try:
                task = self._task(request)
            except ServiceError as error:
                answers[index] = error
            else:
                groups.setdefault(alike(task.values), []).append((index, task))
        for group in groups.values():
            stretches = self._run_together([task for _, task in group])
            for (index, task), stretch in zip(group, stretches, strict=True):
                try:
                    answers[index] = self._answer(
                        task, stretch or self._compute(self.segments, task)
                    )
                except ServiceError as error:
                    answers[index] = error
        return [answers[index] for index in range(len(requests))]

    def _run_together(self, tasks: Sequence[_Task]) -> Sequence[SegmentRun | None]:
        """The stretch of each task, all from one run; None for each when they must run alone."""
        if len(tasks) == 1:
            return [None]
        start, parts = tasks[0].start, [task.values for task in tasks]
        rows = [len(next(iter(part.values()))) for part in parts]
        large = any(task.large for task in tasks)
        try:
            stretch = self.segments.run(start, self._stop(start), joined(parts), large)
            values = parted(stretch.values, rows, self._needed(start, self._stop(start)))
        except (EngineError, ValueError):
            return [None] * len(
                parts
            )  # one of them may be at fault, or their rows: alone, each gets its own answer
        return [
            SegmentRun(part, {n: part[n] for n in stretch.results}, stretch.seconds)
            for part in values
        ]

    def _needed(self, start: int, stop: int) -> list[str]:
        """Values that answers are made of: results, and what crosses next."""
        segments = self.manifest.segments
        names = [name for segment in segments[start:stop] for name in segment.results]
        if stop < len(segments):
            names += [spec.name for spec in self.manifest.boundaries[stop - 1].tensors]
        return list(dict.fromkeys(names))

    def _run(self, segments: SegmentRunner, task: _Task) -> InferResponse:
        return self._answer(task, self._compute(segments, task))

    def _compute(self, segments: SegmentRunner, task: _Task) -> SegmentRun:
        try:
            return segments.run(task.start, self._stop(task.start), task.values, task.large)
        except (BundleError, EngineError) as error:
            raise ServiceError(Code.INTERNAL, str(error)) from error

    def _answer(self, task: _Task, stretch: SegmentRun) -> InferResponse:
        outputs = [self._output(task, name, stretch) for name in task.wanted]
        return InferResponse(
            self.name,
            self.version,
            outputs,
            task.id,
            _timing(task.start, stretch),
            answers=task.contents,
        )

    def _output(self, task: _Task, name: str, stretch: SegmentRun) -> WireTensor:
        if name in stretch.results:
            return to_tensor(self._infos[name], stretch.results[name])
        return frame_tensor(
            encode(self.manifest.boundaries[self._stop(task.start) - 1], stretch.values)
        )

    def _stop(self, start: int) -> int:
        """Behind the last segment that runs here without a pause."""
        return self._stops[start]

    def _find_stop(self, start: int) -> int:
        count = len(self.manifest.segments)
        if start == 0 and self._whole:
            return count
        return next(
            (index for index in range(start, count) if not self.segments.has(index, index + 1)),
            count,
        )


def answer_tensors(manifest: Manifest) -> list[TensorInfo]:
    """What a server's answer may hold: the model's outputs that are made there, or the next frame."""
    here = [
        segment
        for segment in manifest.segments
        if segment.placement == "server" or "server" in segment.copies
    ]
    made = {name for segment in here for name in segment.results}
    found = [info for info in manifest.outputs if info.name in made and info.dtype in DATATYPES]
    goes_on = manifest.segments[-1].placement != "server"
    return [*found, TensorInfo(FRAME, "u8", (None,))] if goes_on else found


def _size_of(response: InferResponse) -> int:
    return sum(len(tensor.data) for tensor in response.outputs)


def _timing(start: int, stretch: SegmentRun) -> dict[str, Parameter]:
    """What a client plans with: where this side began, and the nanoseconds of every segment it ran."""
    segments = ",".join(
        f"{index}:{int(seconds * 1e9)}" for index, seconds in stretch.seconds.items()
    )
    return {"first_segment": start, "segment_ns": segments}


def _step_of(request: InferRequest) -> tuple[str, Step]:
    """Session and step that a request names. Raises ServiceError for parameters of another type."""
    kinds = {
        "sequence_id": (str, int),
        "sequence_step": (int,),
        "sequence_start": (bool,),
        "sequence_end": (bool,),
    }
    given = {name: value for name in kinds if (value := request.parameters.get(name)) is not None}
    wrong = next((name for name, value in given.items() if type(value) not in kinds[name]), None)
    if wrong is not None:
        kind = " or ".join(kind.__name__ for kind in kinds[wrong])
        raise ServiceError(
            Code.INVALID, f"parameter '{wrong}' is {type(given[wrong]).__name__}; send {kind}"
        )
    number = given.get("sequence_step")
    contents = request.contents or contents_digest(request.inputs)
    start, end = bool(given.get("sequence_start", False)), bool(given.get("sequence_end", False))
    return str(given.get("sequence_id", "")), Step(
        None if number is None else int(number), start, end, contents
    )


def _frame_of(request: InferRequest) -> bytes | memoryview:
    tensor: WireTensor | None = next(
        (tensor for tensor in request.inputs if tensor.name == FRAME), None
    )
    if tensor is None:
        raise ServiceError(Code.INVALID, f"no tensor '{FRAME}' in the request")
    if tensor.datatype != "UINT8" or tensor.shape != (len(tensor.data),):
        text = f"'{FRAME}' is {tensor.datatype}{list(tensor.shape)} of {len(tensor.data)} bytes; send UINT8[n] of n bytes"
        raise ServiceError(Code.INVALID, text)
    return tensor.data
