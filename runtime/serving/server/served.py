"""One bundle on a server: frames in, outputs out, state kept apart for every session."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from irsplit.base.errors import BundleError, EngineError, FrameError
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.run.segments import SegmentRun, SegmentRunner, decode, encode
from irsplit.runtime.run.session import check_inputs
from irsplit.runtime.serving.protocol.checksum import message_checksum
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


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take, and `held_bytes` all of them. Checked before anything of that size is allocated."""

    frame_bytes: int = 64 << 20
    decoded_bytes: int = 256 << 20
    held_bytes: int = 1 << 30
    sessions: int = 256
    session_idle_s: float = 300.0

    @property
    def message_bytes(self) -> int:
        """Of a message around a frame: names, parameters, tags, JSON."""
        return self.frame_bytes + (1 << 16)


@dataclass(frozen=True, slots=True)
class _Task:
    """A request that can be run: the first segment, what it reads, and the names of the outputs to send."""

    id: str
    start: int
    values: Mapping[str, Any] = field(repr=False)
    wanted: tuple[str, ...]


class ServedBundle:
    """A bundle that is ready to resume. `infer` may be called from several threads.

    `version` is the beginning of the bundle's digest: both sides have the same build exactly when they agree on it.
    """

    def __init__(
        self, manifest: Manifest, name: str, limits: Limits, options: EngineOptions
    ) -> None:
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
            self.segments.fresh, limits.sessions, limits.session_idle_s
        )

    def owns(self, request: InferRequest) -> bool:
        """Whether the frame of a request, or the session that it ends, belongs to this bundle."""
        return session_ended_by(request) in self.sequences or any(
            self._owns(request, boundary.index) for boundary in self.manifest.boundaries
        )

    def _owns(self, request: InferRequest, boundary: int) -> bool:
        try:
            head = framing.frame_digest(_frame_of(request))
        except (FrameError, ServiceError):
            return False
        return self.manifest.boundaries[boundary].digest.startswith(head)

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

    def infer(self, request: InferRequest) -> InferResponse:
        """Resume the request's frame, or run the whole model on its inputs, or end a session. Raises ServiceError."""
        if self.stateful and (ended := session_ended_by(request)):
            self.sequences.end(ended)
            return InferResponse(self.name, self.version, [], request.id)
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
        start, values = self._values(request)
        if self._stop(start) == start:
            text = f"segment '{self.manifest.segments[start].name}' runs on the device, not here"
            raise ServiceError(Code.INVALID, text)
        made = self._made(start)
        unknown = next((name for name in request.outputs if name not in made), None)
        if unknown is not None:
            raise ServiceError(
                Code.INVALID, f"'{unknown}' is not made here; outputs: {', '.join(made)}"
            )
        return _Task(request.id, start, values, tuple(dict.fromkeys(request.outputs or made)))

    def _made(self, start: int) -> list[str]:
        """Names of the tensors that an answer may have, when it begins with segment `start`."""
        stop, segments = self._stop(start), self.manifest.segments
        results = [name for segment in segments[start:stop] for name in segment.results]
        return results if stop == len(segments) else [*results, FRAME]

    def _values(self, request: InferRequest) -> tuple[int, Mapping[str, Any]]:
        """The first segment to run, and what it reads."""
        if [tensor.name for tensor in request.inputs] != [FRAME]:
            return self._model_inputs(request)
        frame = _frame_of(request)
        if len(frame) > self.limits.frame_bytes:
            text = f"frame of {len(frame)} bytes, the limit is {self.limits.frame_bytes}; raise it with --max-frame-bytes"
            raise ServiceError(Code.TOO_LARGE, text)
        try:
            head = framing.frame_digest(frame)
            for boundary in self.manifest.boundaries:
                if boundary.digest.startswith(head):
                    return boundary.index + 1, decode(boundary, frame, self.limits.decoded_bytes)
        except FrameError as error:
            raise ServiceError(Code.INVALID, str(error)) from error
        text = (
            f"the frame belongs to boundary {head.hex()} of another build; '{self.name}' here is "
            f"{self.version}: give both sides the same build"
        )
        raise ServiceError(Code.MISMATCH, text)

    def _model_inputs(self, request: InferRequest) -> tuple[int, Mapping[str, Any]]:
        if not self._whole:
            names = ", ".join(f"'{tensor.name}'" for tensor in request.inputs) or "nothing"
            text = (
                f"'{self.name}' takes one UINT8 tensor '{FRAME}', not {names}; for the model's own inputs "
                "the server needs the device's side of the bundle too"
            )
            raise ServiceError(Code.INVALID, text)
        arrays = {tensor.name: to_array(tensor) for tensor in request.inputs}
        if len(arrays) < len(request.inputs):
            raise ServiceError(Code.INVALID, "an input is given twice")
        try:
            return 0, check_inputs(self.manifest.inputs, arrays)
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
            stretches = self._run_together(group[0][1].start, [task.values for _, task in group])
            for (index, task), stretch in zip(group, stretches, strict=True):
                try:
                    answers[index] = self._answer(
                        task, stretch or self._compute(self.segments, task)
                    )
                except ServiceError as error:
                    answers[index] = error
        return [answers[index] for index in range(len(requests))]

    def _run_together(
        self, start: int, parts: Sequence[Mapping[str, Any]]
    ) -> Sequence[SegmentRun | None]:
        """The stretch of each part, all from one run; None for each when they must run alone."""
        if len(parts) == 1:
            return [None]
        rows = [len(next(iter(part.values()))) for part in parts]
        try:
            stretch = self.segments.run(start, self._stop(start), joined(parts))
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
            return segments.run(task.start, self._stop(task.start), task.values)
        except (BundleError, EngineError) as error:
            raise ServiceError(Code.INTERNAL, str(error)) from error

    def _answer(self, task: _Task, stretch: SegmentRun) -> InferResponse:
        outputs = [self._output(task, name, stretch) for name in task.wanted]
        return InferResponse(
            self.name, self.version, outputs, task.id, _timing(task.start, stretch)
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
        if segment.place == "server" or "server" in segment.copies
    ]
    made = {name for segment in here for name in segment.results}
    found = [info for info in manifest.outputs if info.name in made and info.dtype in DATATYPES]
    goes_on = manifest.segments[-1].place != "server"
    return [*found, TensorInfo(FRAME, "u8", (None,))] if goes_on else found


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
    contents = message_checksum([], {}, request.inputs)
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
