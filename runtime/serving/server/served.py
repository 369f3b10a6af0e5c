"""One bundle on a server: frames in, outputs out, and a state of its own for every session."""

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
from irsplit.runtime.serving.server.batching import (
    batching_obstacle,
    join_rows,
    shape_key,
    split_rows,
)
from irsplit.runtime.serving.server.request_parts import (
    frame_of,
    has_frame,
    input_shapes,
    step_of,
)
from irsplit.runtime.serving.server.sequences import Sequences

_MOST_NAMES = 8
"""Names of a request's tensors in the text of a refusal, at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What requests may take. Each limit is checked before anything of that size is allocated.

    Attributes:
        frame_bytes: Size of a frame.
        decoded_bytes: Size of the tensors in a frame.
        held_bytes: Size of all messages, and of all sessions, together.
        rows: Rows of a batch.
        working_bytes: Memory that all runs together take, as the manifest estimates it.
        sessions: Sessions of a bundle.
        session_idle_s: How long a session is kept that nobody uses.
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
        """The limits that the manifest checks before a run."""
        return RunLimits(self.rows, self.decoded_bytes, self.working_bytes)

    @property
    def message_bytes(self) -> int:
        """Size of a message around a frame, with its names, parameters, tags and JSON."""
        return self.frame_bytes + (1 << 16)


@dataclass(frozen=True, slots=True)
class _Task:
    """A request that has been checked and can run.

    Attributes:
        id: The client's name for the request.
        start: The first segment to run.
        values: What that segment reads, by name.
        outputs: Names of the tensors to send back.
        contents: The request's checksum.
        large: Whether the run takes so much memory that the engine must not keep it afterwards.
    """

    id: str
    start: int
    values: Mapping[str, Any] = field(repr=False)
    outputs: tuple[str, ...]
    contents: str
    large: bool


class ServedBundle:
    """A bundle that is ready to resume frames. `infer` may be called from several threads.

    Its `version` is the beginning of the bundle's digest: device and server have the same build
    exactly when they agree on it.

    Args:
        manifest: The bundle, whose files are compared with their digests.
        name: What clients call it.
        limits: What requests may take.
        options: How the inference engine runs.

    Raises:
        BundleError: The bundle is damaged or has no segment for a server.
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
        own = [index for index in range(count) if self.segments.has(index, index + 1)]
        if not own:
            raise BundleError(
                f"{manifest.store.root}: no segment runs on the server; run it with 'irsplit run'"
            )

        self._whole = all(manifest.file(index) is not None for index in range(count))
        self._stops = [self._find_stop(start) for start in range(count)]
        self._infos = {info.name: info for info in manifest.outputs}
        self.stateful = self.segments.stateful(0, count)
        # Open the engines now, so that the first request does not wait for them.
        for index in own:
            self.segments.open(index, index + 1)

        self.inputs = [TensorInfo(FRAME, "u8", (None,))]
        self.outputs = answer_tensors(manifest)
        self._batched: set[int] = set()
        self.sequences = Sequences[InferResponse](
            self.segments.fresh,
            limits.sessions,
            limits.session_idle_s,
            size_of=_size_of,
            most_bytes=limits.held_bytes,
        )

    # Which requests are for this bundle, and which of them may run together.

    def owns(self, request: InferRequest) -> bool:
        """Whether the frame of a request, or the session that it ends, belongs to this bundle."""
        if session_ended_by(request) in self.sequences:
            return True

        return any(self._owns(request, schema.index) for schema in self.manifest.boundaries)

    def _owns(self, request: InferRequest, boundary: int) -> bool:
        """Whether a request brings a frame of this boundary."""
        try:
            owner = self.manifest.boundary_of(frame_of(request))
        except (FrameError, ServiceError):
            return False
        return owner is not None and owner.index == boundary

    def allow_batches(self) -> dict[int, str]:
        """Try for every boundary whether its frames may run together, and allow it where they may.

        Returns:
            The reasons why not, by index of the other boundaries.
        """
        reasons: dict[int, str] = {}
        for schema in self.manifest.boundaries:
            if self._stops[schema.index + 1] == schema.index + 1:
                continue  # the segment behind it does not run here

            reason = self._batching_obstacle(schema)
            if reason:
                reasons[schema.index] = reason
            else:
                self._batched.add(schema.index)

        return reasons

    def _batching_obstacle(self, schema: FrameSchema) -> str:
        if self.stateful:
            return "it has state"

        start = schema.index + 1
        stop = self._stops[start]
        try:
            return batching_obstacle(
                schema, self._values_of(start, stop), self._answer_values(start, stop)
            )
        except EngineError as error:
            return f"the engine refuses rows that were made up: {error}"

    def _values_of(self, start: int, stop: int) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        return lambda values: self.segments.run(start, stop, values).values

    def boundary_of(self, request: InferRequest) -> int | None:
        """Index of the boundary whose frames this request may run with; None if it runs alone."""
        if not self._batched or not has_frame(request):
            return None

        return next((index for index in self._batched if self._owns(request, index)), None)

    # What a request takes.

    def needed_bytes(self, request: InferRequest) -> int:
        """Estimate the memory that a request takes to run, from sizes alone; 0 if nothing runs.

        Raises:
            ServiceError: TOO_LARGE for a request beyond the limits; another code for what is no
                request of this bundle.
        """
        if self.stateful and session_ended_by(request):
            return 0

        return self._start_and_bytes(request)[1]

    def _start_and_bytes(self, request: InferRequest) -> tuple[int, int]:
        """The first segment to run, and an estimate of the memory that is needed from there on."""
        if has_frame(request):
            frame, schema = self._frame_and_schema(request)
            try:
                frame_shapes = framing.frame_shapes(schema, frame)
            except FrameError as error:
                raise ServiceError(Code.INVALID, str(error)) from error

            start = schema.index + 1
            names = [spec.name for spec in schema.tensors]
            shapes = dict(zip(names, frame_shapes, strict=True))
        else:
            self._check_takes_inputs(request)
            start, shapes = 0, input_shapes(request, self.manifest.inputs)

        try:
            return start, self.manifest.needed(start, shapes, self.limits.of_run)
        except ValueError as error:
            raise ServiceError(Code.TOO_LARGE, f"'{self.name}': {error}") from error

    def _frame_and_schema(self, request: InferRequest) -> tuple[bytes | memoryview, FrameSchema]:
        """The frame of a request, of which only the header is looked at, and its schema."""
        frame = frame_of(request)
        if len(frame) > self.limits.frame_bytes:
            text = (
                f"frame of {len(frame)} bytes, the limit is {self.limits.frame_bytes}; "
                "raise the server's limit of a frame's bytes"
            )
            raise ServiceError(Code.TOO_LARGE, text)

        try:
            schema = self.manifest.boundary_of(frame)
        except FrameError as error:
            raise ServiceError(Code.INVALID, str(error)) from error
        if schema is not None:
            return frame, schema

        digest = framing.frame_digest(frame)
        text = (
            f"the frame belongs to boundary {digest.hex()} of another build; '{self.name}' here is "
            f"{self.version}: give both sides the same build"
        )
        raise ServiceError(Code.MISMATCH, text)

    def _check_takes_inputs(self, request: InferRequest) -> None:
        """Raise ServiceError if this server cannot run the whole model."""
        if self._whole:
            return

        names = ", ".join(f"'{tensor.name}'" for tensor in request.inputs[:_MOST_NAMES])
        text = (
            f"'{self.name}' takes one UINT8 tensor '{FRAME}', not {names or 'nothing'}; for the "
            "model's own inputs the server needs the device's side of the bundle too"
        )
        raise ServiceError(Code.INVALID, text)

    # Requests that run alone.

    def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request: resume its frame, run the whole model on its inputs, or end a session.

        Raises:
            ServiceError: The request is refused, or the engine fails.
        """
        if self.stateful and (session := session_ended_by(request)):
            self.sequences.end(session)
            return InferResponse(self.name, self.version, [], request.id, answers=request.contents)

        task = self._task(request)
        if not self.segments.stateful(task.start, self._stops[task.start]):
            return self._run(self.segments, task)  # the device keeps its own state

        session, step = step_of(request)
        if session in ("", "0"):
            text = (
                f"bundle '{self.name}' keeps state between calls; send sequence_id, and "
                "sequence_start with the first"
            )
            raise ServiceError(Code.INVALID, text)

        answer = self.sequences.run(session, step, lambda segments: self._run(segments, task))
        return replace(answer, id=request.id)

    def _task(self, request: InferRequest) -> _Task:
        """Check a request and read its values.

        Whatever can be refused is refused here, before any state moves. Raises ServiceError.
        """
        start, needed = self._start_and_bytes(request)
        if self._stops[start] == start:
            text = f"segment '{self.manifest.segments[start].name}' runs on the device, not here"
            raise ServiceError(Code.INVALID, text)

        available = self._available_outputs(start)
        for name in request.outputs:
            if name not in available:
                text = f"'{name}' is not made here; outputs: {', '.join(available)}"
                raise ServiceError(Code.INVALID, text)

        values = self._values(request, start)
        outputs = tuple(dict.fromkeys(request.outputs or available))
        return _Task(request.id, start, values, outputs, request.contents, needed > LARGE_BYTES)

    def _available_outputs(self, start: int) -> list[str]:
        """Names of the tensors that an answer may have when it begins with segment `start`."""
        stop = self._stops[start]
        names = self._results(start, stop)
        return names if stop == len(self.manifest.segments) else [*names, FRAME]

    def _results(self, start: int, stop: int) -> list[str]:
        """The model's outputs that segments `start` to `stop` - 1 compute."""
        names: list[str] = []
        for segment in self.manifest.segments[start:stop]:
            names.extend(segment.results)
        return names

    def _answer_values(self, start: int, stop: int) -> list[str]:
        """The values that answers are made of: the model's outputs, and what crosses next."""
        names = self._results(start, stop)
        if stop < len(self.manifest.segments):
            names += [spec.name for spec in self.manifest.boundaries[stop - 1].tensors]
        return list(dict.fromkeys(names))

    def _values(self, request: InferRequest, start: int) -> Mapping[str, Any]:
        """What the first segment reads. Its size is known to be within the limits."""
        try:
            if start == 0:
                arrays = {tensor.name: to_array(tensor) for tensor in request.inputs}
                return check_inputs(self.manifest.inputs, arrays)

            schema = self.manifest.boundaries[start - 1]
            return decode(schema, frame_of(request), self.limits.decoded_bytes)
        except (EngineError, FrameError) as error:
            raise ServiceError(Code.INVALID, str(error)) from error

    def _run(self, segments: SegmentRunner, task: _Task) -> InferResponse:
        return self._answer(task, self._compute(segments, task))

    def _compute(self, segments: SegmentRunner, task: _Task) -> SegmentRun:
        try:
            return segments.run(task.start, self._stops[task.start], task.values, task.large)
        except (BundleError, EngineError) as error:
            raise ServiceError(Code.INTERNAL, str(error)) from error

    def _answer(self, task: _Task, run: SegmentRun) -> InferResponse:
        return InferResponse(
            self.name,
            self.version,
            [self._output(task, name, run) for name in task.outputs],
            task.id,
            _timing(task.start, run),
            answers=task.contents,
        )

    def _output(self, task: _Task, name: str, run: SegmentRun) -> WireTensor:
        """One tensor of an answer: an output of the model, or else the next frame."""
        if name in run.results:
            return to_tensor(self._infos[name], run.results[name])

        schema = self.manifest.boundaries[self._stops[task.start] - 1]
        return frame_tensor(encode(schema, run.values))

    # Requests that run together.

    def infer_together(
        self, requests: Sequence[InferRequest]
    ) -> list[InferResponse | ServiceError]:
        """Answer requests with frames of one boundary in as few runs as their shapes allow.

        Returns:
            What `infer` returns or raises, for each request.
        """
        answers: dict[int, InferResponse | ServiceError] = {}
        # A refusal is the request's own; the others run, grouped by what can be concatenated.
        groups: dict[Hashable, list[tuple[int, _Task]]] = {}
        for index, request in enumerate(requests):
            try:
                task = self._task(request)
            except ServiceError as error:
                answers[index] = error
            else:
                groups.setdefault(shape_key(task.values), []).append((index, task))

        for group in groups.values():
            runs = self._run_together([task for _, task in group])
            for (index, task), run in zip(group, runs, strict=True):
                try:
                    run = run or self._compute(self.segments, task)
                    answers[index] = self._answer(task, run)
                except ServiceError as error:
                    answers[index] = error

        return [answers[index] for index in range(len(requests))]

    def _run_together(self, tasks: Sequence[_Task]) -> Sequence[SegmentRun | None]:
        """Each task's share of one run; None for each task if they must run alone."""
        if len(tasks) == 1:
            return [None]

        start = tasks[0].start
        stop = self._stops[start]
        requests = [task.values for task in tasks]
        rows = [len(next(iter(values.values()))) for values in requests]
        large = any(task.large for task in tasks)
        try:
            run = self.segments.run(start, stop, join_rows(requests), large)
            shares = split_rows(run.values, rows, self._answer_values(start, stop))
        except (EngineError, ValueError):
            # One of them may be at fault, or their rows: alone, each gets its own answer.
            return [None] * len(tasks)

        runs: list[SegmentRun] = []
        for values in shares:
            results = {name: values[name] for name in run.results}
            runs.append(SegmentRun(values, results, run.seconds))

        return runs

    def _find_stop(self, start: int) -> int:
        """The first segment behind `start` that does not run here, so that a run ends before it."""
        count = len(self.manifest.segments)
        if start == 0 and self._whole:
            return count

        for index in range(start, count):
            if not self.segments.has(index, index + 1):
                return index

        return count


def answer_tensors(manifest: Manifest) -> list[TensorInfo]:
    """The tensors that a server's answer may hold.

    These are the model's outputs that the server computes, and the next frame if the last segment
    runs on the device.
    """
    names: set[str] = set()
    for segment in manifest.segments:
        if segment.placement == "server" or "server" in segment.copies:
            names.update(segment.results)

    tensors = [info for info in manifest.outputs if info.name in names and info.dtype in DATATYPES]
    if manifest.segments[-1].placement != "server":
        tensors.append(TensorInfo(FRAME, "u8", (None,)))
    return tensors


def _size_of(response: InferResponse) -> int:
    return sum(len(tensor.data) for tensor in response.outputs)


def _timing(start: int, run: SegmentRun) -> dict[str, Parameter]:
    """What a client plans with: the first segment, and the nanoseconds of every one that ran."""
    segments = ",".join(f"{index}:{int(1e9 * seconds)}" for index, seconds in run.seconds.items())
    return {"first_segment": start, "segment_ns": segments}
