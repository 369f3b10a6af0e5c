"""The device's side of a bundle with a server behind it: `session.infer(inputs)`, whatever the link does.

with irsplit.runtime.connect("grpc://server:8001", "build") as session:
    answer = session.infer({"image": image}, timeout_s=0.5)
    answer.outputs["logits"], answer.path      # "server", or "device" when the link let it down
    answer.cut                                 # with several cuts in the bundle, the one that was fastest just now
"""

import itertools
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irsplit.base.errors import BundleError, DeadlineError, RemoteError, SessionLostError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions
from irsplit.runtime.run.segments import SegmentRunner, decode, encode
from irsplit.runtime.run.session import Arrays, check_inputs
from irsplit.runtime.serving.client.answers import Answer, CallCounter, ClientMetrics
from irsplit.runtime.serving.client.cut_selection import DEVICE_ONLY
from irsplit.runtime.serving.client.pipeline import pipelined
from irsplit.runtime.serving.client.prober import LinkProber
from irsplit.runtime.serving.client.received import Expected, most_answer_bytes
from irsplit.runtime.serving.client.retry import (
    DEFAULT_PATIENCE,
    Exchange,
    ExchangeFailed,
    RetryingClient,
    RetryPolicy,
)
from irsplit.runtime.serving.client.switching import (
    DEFAULT_POLICY,
    CutSwitcher,
    SwitchingPolicy,
    stops,
)
from irsplit.runtime.serving.client.transport import Credentials, Transport, open_transport
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    Parameter,
    end_of_session,
    frame_tensor,
)

_RESERVE_SHARE = 0.25
"""Of the deadline, kept for finishing on the device as long as its time is not known."""
_ENDING_S = 0.5
"""For telling the server that a session is over."""
_LONGEST_S = 1e7
"""Of a call, about four months: more than that, sockets do not wait."""
_ALONE = "the device alone is the faster way just now"


@dataclass(frozen=True, slots=True)
class Started:
    """A call whose first segments have run on the device: what is still to be done."""

    stop: int
    """How many segments have run, the number of the next one."""
    values: Mapping[str, Any]
    results: Mapping[str, Any]
    began: float
    deadline: float
    sizes: Mapping[str, int]
    """Of the symbols of the model's inputs."""


class RemoteSession:
    """A bundle whose device segments run here and whose server segments run behind a transport.

    Calls of bundles without state may come from several threads; with state they are done one after the other, each
    step once. A stateful stream stays on the side where it began; when its state is lost, every call raises
    SessionLostError until `reset()`.
    """

    def __init__(
        self,
        bundle: Path | str | Manifest,
        transport: Transport,
        *,
        name: str = "",
        timeout_s: float = 5.0,
        patience: RetryPolicy = DEFAULT_PATIENCE,
        checked: bool = True,
        options: EngineOptions = DEFAULT_OPTIONS,
        cut: str = "",
        policy: SwitchingPolicy | None = None,
        verify_digests: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.manifest = bundle if isinstance(bundle, Manifest) else Manifest.load(bundle)
        if verify_digests:
            self.manifest.check_files(("device",))
        self.name = name or self.manifest.name
        self._timeout_s = timeout_s
        self._clock = clock
        self._exchanger = RetryingClient(transport, patience, checked, clock)
        self._expected = Expected(self.manifest)
        self._device = SegmentRunner(self.manifest, "device", options, clock)
        self._count = len(self.manifest.segments)
        places = [segment.placement for segment in self.manifest.segments]
        if places[0] != "device" or not self._device.has(0, 1):
            raise BundleError(
                f"bundle '{self.manifest.name}' starts on the {places[0]}; start it there"
            )
        self.autonomous = self._device.has(0)
        """Whether the device can do everything alone."""
        self._stateful = self._device.stateful(0, self._count)
        self._first_stop = self._stop(0)
        self._chooser = self._open_chooser(cut, policy)
        # What may be needed when time is short is opened now: a large model takes longer than a deadline.
        last = self._first_stop if self._chooser is None else self._chooser.stops[-1]
        self._device.open(0, self._count if self.autonomous else last)
        self._scout = None
        if self._chooser is not None:
            self._scout = LinkProber(
                self.manifest, self._chooser, self._exchanger, self._asked, clock
            )
        self._tally = CallCounter()
        self._turn = threading.Lock()
        self._rest_s: float | None = None
        self._ending: threading.Thread | None = None
        self._at_server = False
        """Whether the server may have a session of this stream."""
        self.reset()

    def _open_chooser(self, cut: str, policy: SwitchingPolicy | None) -> CutSwitcher | None:
        """What chooses among the cuts; None where there is one, it is given, or a state must not move."""
        among = stops(self.manifest, self._device)
        if cut:
            self._first_stop = self._stop_named(cut, among)
            return None
        several = sum(stop < self._count for stop in among) > 1
        planned_to_and_fro = self._first_stop not in among
        if (
            self._stateful
            or planned_to_and_fro
            or len(among) < 2
            or not (several or policy is not None)
        ):
            return None
        return CutSwitcher(
            self._count, among, self.manifest.raw.get("choice"), policy or DEFAULT_POLICY
        )

    def _stop_named(self, cut: str, among: Sequence[int]) -> int:
        names = {self._cut_name(stop): stop for stop in (self._first_stop, *among)}
        if cut not in names:
            known = ", ".join(f"'{name}'" for name in names)
            raise BundleError(
                f"bundle '{self.manifest.name}' cannot be run with cut '{cut}'; its cuts: {known}"
            )
        return names[cut]

    def _cut_name(self, stop: int) -> str:
        return DEVICE_ONLY if stop == self._count else self.manifest.boundaries[stop - 1].name

    def reset(self) -> None:
        """Start a new stream: forget the state of stateful segments, here and at the server."""
        if self._stateful:
            # New engines: not every engine can put every kind of state back.
            self._device = self._device.fresh()
        self._end_session()
        self._sequence = uuid.uuid4().hex
        self._steps = itertools.count()
        self._side = ""
        """Where a stateful stream has gone on from its first step: "server", "device", or "" before it."""
        self._lost = ""

    def metrics(self) -> ClientMetrics:
        """What this session has done, and what it knows of its link."""
        chooser = self._chooser
        return ClientMetrics(
            calls=self._tally.calls(),
            cut=self._cut_name(self._first_stop if chooser is None else chooser.current),
            changes=0 if chooser is None else chooser.changes,
            link_up=self.link_up,
            rate_bit_s=None if chooser is None else chooser.link.rate_bit_s,
            rtt_s=None if chooser is None else chooser.link.rtt_s,
            server_wait_s=None if chooser is None else chooser.wait_s,
        )

    @property
    def link_up(self) -> bool:
        """Whether requests are sent at all (the circuit breaker is closed)."""
        return self._exchanger.breaker.closed

    def infer(self, inputs: Arrays, timeout_s: float | None = None) -> Answer:
        """All outputs of the model within `timeout_s`.

        Raises DeadlineError, SessionLostError or RemoteError when neither server nor device can answer; EngineError
        for inputs that do not fit.
        """
        if not self._stateful:
            return self.finish(self.start(inputs, timeout_s))
        with self._turn:
            return self.finish(self.start(inputs, timeout_s))

    def stream(
        self, calls: Iterable[Arrays], depth: int = 4, timeout_s: float | None = None
    ) -> Iterator[Answer]:
        """Answers to successive calls in their order, the device computing ahead of link and server.

        At most `depth` calls are under way, so that neither frames nor answers pile up. A call that fails raises where
        its answer would have come.
        """
        network = 1 if self._stateful else depth
        return pipelined(
            calls, lambda inputs: self.start(inputs, timeout_s), self.finish, depth, network
        )

    def start(self, inputs: Arrays, timeout_s: float | None = None) -> Started:
        """The device's first part of a call; `finish` does the rest."""
        if self._lost:
            raise SessionLostError(
                f"the stream's state is lost ({self._lost}); call reset() and start it again"
            )
        began = self._clock()
        arrays = check_inputs(self.manifest.inputs, inputs)
        deadline = began + _seconds(self._timeout_s if timeout_s is None else timeout_s)
        if self._chooser is None or self._scout is None:
            stop = self._first_stop
            stretch = self._device.run(0, stop, arrays)
        else:
            stop = self._chooser.choose(began)
            stretch = self._device.run(0, self._scout.reach(stop), arrays)
            self._scout.called(stop, stretch)
        return Started(
            stop, stretch.values, stretch.results, began, deadline, self._expected.sizes(arrays)
        )

    def finish(self, started: Started) -> Answer:
        """Send the frame and merge what comes back with what is here; or go on here."""
        if self._lost:
            raise SessionLostError(
                f"the stream's state is lost ({self._lost}); call reset() and start it again"
            )
        index, values, results = started.stop, dict(started.values), dict(started.results)
        attempts, frame_bytes, sent = 0, 0, None
        reason = "" if self._side != "device" else "the stream began on the device"
        cut = self._cut_name(index)
        while index < self._count:
            boundary = self.manifest.boundaries[index - 1]
            frame = self._framed(index, values)
            try:
                if reason:
                    raise ExchangeFailed(None, reason, 0)
                exchange = self._send(frame, index, started.deadline, started.sizes)
                received = exchange.received
                values, index = received.values, received.index
                results = {**results, **received.results}
            except ExchangeFailed as failure:
                attempts += failure.attempts
                reason = str(failure)
                self._check_fallback(failure, index)
                values = self._here(boundary, frame, values)
                stop = self._count
            else:
                attempts, frame_bytes, sent = (
                    attempts + exchange.attempts,
                    frame_bytes + len(frame),
                    boundary.index,
                )
                stop = self._stop(index)
            if stop > index:
                resumed = self._clock()
                stretch = self._device.run(index, stop, values)
                values, index = stretch.values, stop
                results.update(stretch.results)
                self._note_rest(self._clock() - resumed, bool(reason))
        if self._stateful:
            self._side = "device" if reason or sent is None else "server"
        outputs = {
            info.name: results[info.name] for info in self.manifest.outputs if info.name in results
        }
        path = "device" if reason or sent is None else "server"
        reason = reason or (_ALONE if sent is None else "")
        seconds = self._clock() - started.began
        answer = Answer(outputs, path, cut, sent, attempts, seconds, frame_bytes, reason)
        self._tally.add(answer)
        return answer

    def close(self) -> None:
        """Close the connection, at the end of a `with` too; the server is told that a stream is over, if it can be."""
        self._end_session()
        if self._ending is not None:
            self._ending.join(_ENDING_S)
        self._exchanger.close()
        if self._scout is not None:
            self._scout.close()

    def _end_session(self) -> None:
        """Let the server forget the stream; beside what goes on here, for the link may be slow."""
        if not self._at_server:
            return
        self._at_server = False
        end = end_of_session(self.name, self._sequence, uuid.uuid4().hex)
        self._ending = threading.Thread(
            target=self._exchanger.tell, args=(end, _ENDING_S), name="irsplit-end", daemon=True
        )
        self._ending.start()

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self, index: int) -> int:
        """Behind the last segment from `index` on that is the device's."""
        segments = self.manifest.segments
        return next(
            (i for i in range(index, self._count) if segments[i].placement != "device"), self._count
        )

    def _framed(self, index: int, values: Mapping[str, Any]) -> bytes:
        if self._scout is None:
            return encode(self.manifest.boundaries[index - 1], values)
        return self._scout.framed(index, values)

    def _send(
        self, frame: bytes, index: int, deadline: float, sizes: Mapping[str, int]
    ) -> Exchange:
        if self.autonomous:
            deadline -= self._reserve(deadline)
        send = self._asked if self._scout is None else self._scout.send
        return send(frame, index, deadline, sizes)

    def _asked(
        self, frame: bytes, index: int, deadline: float, sizes: Mapping[str, int]
    ) -> Exchange:
        """The answer to a frame for segment `index`, if it fits. Raises ExchangeFailed."""
        return self._exchanger.send(
            self._request(frame, index),
            deadline,
            lambda response: self._expected.read(response, index, sizes),
        )

    def _request(self, frame: bytes, index: int) -> InferRequest:
        parameters: dict[str, Parameter] = {}
        if self._device.stateful(index, self._count):
            step, self._at_server = next(self._steps), True
            parameters = {
                "sequence_id": self._sequence,
                "sequence_step": step,
                "sequence_start": step == 0,
            }
        # No version: the frame names its build, and an engine that hosts the bundle may number versions its own way.
        return InferRequest(self.name, "", [frame_tensor(frame)], uuid.uuid4().hex, parameters)

    def _check_fallback(self, failure: ExchangeFailed, index: int) -> None:
        """Raise unless the device can go on alone from segment `index`."""
        first = self._side == ""
        mine = self._device.has(index) and (first or self._side == "device" or not self._stateful)
        if mine and failure.code is not Code.SESSION_LOST:
            return
        if self._stateful:
            self._lost = str(failure)
        if failure.code is Code.SESSION_LOST or (self._stateful and not first):
            raise SessionLostError(
                f"{self.name}: {failure}; call reset() and start the stream again"
            ) from failure
        kind = DeadlineError if failure.code is Code.DEADLINE else RemoteError
        raise kind(
            f"{self.name}: no answer after {failure.attempts} attempts ({failure}); "
            "a bundle compiled with --autonomous would finish on the device"
        ) from failure

    def _here(
        self, boundary: FrameSchema, frame: bytes, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What the server would have read: a quantized boundary gives the same answer on both paths."""
        quantized = any(spec.quantization is not None for spec in boundary.tensors)
        return decode(boundary, frame) if quantized else values

    def _reserve(self, deadline: float) -> float:
        """Seconds to keep for finishing on the device."""
        left = max(deadline - self._clock(), 0)
        return min(left * _RESERVE_SHARE if self._rest_s is None else 2 * self._rest_s, left / 2)

    def _note_rest(self, seconds: float, fell_back: bool) -> None:
        if fell_back:
            self._rest_s = seconds if self._rest_s is None else 0.8 * self._rest_s + 0.2 * seconds


def _seconds(timeout_s: float) -> float:
    """A timeout that clocks and sockets can take."""
    if math.isnan(timeout_s):
        raise RemoteError(f"timeout_s is {timeout_s}; give the seconds that a call may take")
    return min(timeout_s, _LONGEST_S)


def connect(
    url: str,
    bundle: Path | str,
    *,
    name: str = "",
    timeout_s: float = 5.0,
    token: str = "",
    trusted: Path | None = None,
    patience: RetryPolicy = DEFAULT_PATIENCE,
    checked: bool = True,
    options: EngineOptions = DEFAULT_OPTIONS,
    cut: str = "",
    policy: SwitchingPolicy | None = None,
    verify_digests: bool = True,
) -> RemoteSession:
    """A session of `bundle` with the server at `url`: grpc://, grpcs://, http:// or https://HOST:PORT.

    Nothing is sent before the first call: a device starts without its link. `name` is the bundle's name at the server
    when it is not its own (on Ray Serve with several applications, the application's), `trusted` a PEM file of
    certificates to trust. `checked` False is for servers that are not irsplit's and send no checksum: only TLS guards
    their answers then.

    Of a bundle with several cuts, the device having the segments between them, every call takes the cut that is the
    fastest for the link and the server as they are (see `SwitchingPolicy`); so does a bundle with one cut and --autonomous,
    between the cut and the device alone, when a `policy` is given. `cut` is the name of the one to take always.
    The device's files are compared with their digests first, unless `verify_digests` is False.
    Raises BundleError, EngineError, RemoteError.
    """
    manifest = Manifest.load(bundle)
    transport = open_transport(url, Credentials(token, trusted, name, most_answer_bytes(manifest)))
    return RemoteSession(
        manifest,
        transport,
        name=name,
        timeout_s=timeout_s,
        patience=patience,
        checked=checked,
        options=options,
        cut=cut,
        policy=policy,
        verify_digests=verify_digests,
    )
