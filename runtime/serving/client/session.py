"""A session of a bundle with a server behind it: `session.infer(inputs)`, whatever the link does.

with irsplit.runtime.connect("grpc://server:8001", "build") as session:
    answer = session.infer({"image": image}, timeout_s=0.5)
    answer.outputs["logits"]
    answer.path    # "server", or "device" if the link failed
    answer.cut     # the cut that was fastest, if the bundle has several
"""

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from irsplit.base.errors import BundleError, RemoteError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame.descriptor import FrameSchema
from irsplit.runtime.run.engines import DEFAULT_OPTIONS, EngineOptions
from irsplit.runtime.run.segments import SegmentRunner, decode, encode
from irsplit.runtime.run.session import Arrays, check_inputs
from irsplit.runtime.serving.client.answers import Answer, CallCounter, ClientMetrics
from irsplit.runtime.serving.client.calls import CallProgress, Started
from irsplit.runtime.serving.client.cut_selection import DEVICE_ONLY
from irsplit.runtime.serving.client.pipeline import pipelined
from irsplit.runtime.serving.client.prober import LinkProber
from irsplit.runtime.serving.client.received import Expected, most_answer_bytes
from irsplit.runtime.serving.client.retry import (
    DEFAULT_RETRY_POLICY,
    Exchange,
    ExchangeFailed,
    RetryingClient,
    RetryPolicy,
)
from irsplit.runtime.serving.client.stream import ENDING_S, Stream
from irsplit.runtime.serving.client.switching import (
    DEFAULT_POLICY,
    CutSwitcher,
    SwitchingPolicy,
    stops,
)
from irsplit.runtime.serving.client.transport import Credentials, Transport, open_transport
from irsplit.runtime.serving.protocol.messages import InferRequest, Parameters, frame_tensor

_RESERVE_SHARE = 0.25
"""Share of the deadline that is kept for finishing on the device until its time was measured."""
_LONGEST_S = 1e7
"""The longest timeout of a call, about four months: sockets do not wait longer."""
_ALONE = "the device alone is faster at the moment"


class RemoteSession:
    """A bundle whose device segments run here and whose server segments run behind a transport.

    Calls of a bundle without state may come from several threads. With state, they run one after
    the other, each step once. A stateful stream stays on the side where it began; once its state
    is lost, every call raises SessionLostError until `reset()`.

    Args:
        bundle: The bundle's folder, or its manifest.
        transport: Sends requests; the session closes it.
        name: The bundle's name at the server, if that is another one than its own.
        timeout_s: Seconds for a call that names no timeout.
        retry_policy: How long and how often to try.
        checked: Whether answers must carry a checksum.
        options: Options of the engines on the device.
        cut: Name of the cut to use always; empty to choose.
        policy: When to change the cut.
        verify_digests: Whether to compare the device's files with their digests first.
        clock: Returns the time in seconds.

    Raises:
        BundleError: The device does not have the first segment, or the bundle has no such cut.
        EngineError: A segment cannot be opened.

    Attributes:
        autonomous: Whether the device can run the whole model.
    """

    def __init__(
        self,
        bundle: Path | str | Manifest,
        transport: Transport,
        *,
        name: str = "",
        timeout_s: float = 5.0,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
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
        self._client = RetryingClient(transport, retry_policy, checked, clock)
        self._expected = Expected(self.manifest)
        self._device = SegmentRunner(self.manifest, "device", options, clock)
        self._count = len(self.manifest.segments)

        placement = self.manifest.segments[0].placement
        if placement != "device" or not self._device.has(0, 1):
            raise BundleError(
                f"bundle '{self.manifest.name}' starts on the {placement}; start it there"
            )
        self.autonomous = self._device.has(0)
        self._stateful = self._device.stateful(0, self._count)
        self._first_stop = self._stop(0)
        self._switcher = self._open_switcher(cut, policy)

        # What may be needed when time is short is opened now: to open a large model takes longer
        # than a deadline.
        last = self._first_stop if self._switcher is None else self._switcher.stops[-1]
        self._device.open(0, self._count if self.autonomous else last)

        self._prober: LinkProber | None = None
        if self._switcher is not None:
            self._prober = LinkProber(self.manifest, self._switcher, self._client, self._ask, clock)
        self._counter = CallCounter()
        self._turn = threading.Lock()
        self._rest_s: float | None = None
        """How long the device takes to finish a call alone, None if it never has."""
        self._ending: threading.Thread | None = None
        self._stream = Stream(self.name, self._stateful)

    def _open_switcher(self, cut: str, policy: SwitchingPolicy | None) -> CutSwitcher | None:
        """The switcher; None if the cut is given, is the only one, or must not move with state."""
        possible = stops(self.manifest, self._device)
        if cut:
            self._first_stop = self._stop_named(cut, possible)
            return None

        # A plan that goes back and forth has its first stop not among those that can be chosen.
        goes_back_and_forth = self._first_stop not in possible
        if self._stateful or goes_back_and_forth or len(possible) < 2:
            return None

        several_cuts = sum(stop < self._count for stop in possible) > 1
        if not several_cuts and policy is None:
            return None
        choice = self.manifest.raw.get("choice")
        return CutSwitcher(self._count, possible, choice, policy or DEFAULT_POLICY)

    def _stop_named(self, cut: str, possible: Sequence[int]) -> int:
        """The stop of a cut's name. Raises BundleError if the bundle cannot be run with it."""
        by_name = {self._cut_name(stop): stop for stop in (self._first_stop, *possible)}
        if cut not in by_name:
            names = ", ".join(f"'{name}'" for name in by_name)
            raise BundleError(
                f"bundle '{self.manifest.name}' cannot be run with cut '{cut}'; its cuts: {names}"
            )
        return by_name[cut]

    def _cut_name(self, stop: int) -> str:
        return DEVICE_ONLY if stop == self._count else self.manifest.boundaries[stop - 1].name

    def reset(self) -> None:
        """Start a new stream: forget the state of stateful segments on device and server."""
        if self._stateful:
            # New engines, because not every engine can put every kind of state back.
            self._device = self._device.fresh()
        self._ending = self._stream.end(self._client) or self._ending
        self._stream = Stream(self.name, self._stateful)

    def metrics(self) -> ClientMetrics:
        """Return what this session has done, and what it knows of its link."""
        switcher = self._switcher
        if switcher is None:
            return ClientMetrics(
                calls=self._counter.calls(),
                cut=self._cut_name(self._first_stop),
                changes=0,
                link_up=self.link_up,
                rate_bit_s=None,
                rtt_s=None,
                server_wait_s=None,
            )
        return ClientMetrics(
            calls=self._counter.calls(),
            cut=self._cut_name(switcher.current),
            changes=switcher.changes,
            link_up=self.link_up,
            rate_bit_s=switcher.link.rate_bit_s,
            rtt_s=switcher.link.rtt_s,
            server_wait_s=switcher.wait_s,
        )

    @property
    def link_up(self) -> bool:
        """Whether requests are sent at all (the circuit breaker is closed)."""
        return self._client.breaker.closed

    def infer(self, inputs: Arrays, timeout_s: float | None = None) -> Answer:
        """Run the model once.

        Args:
            inputs: The inputs by name, with the shapes and types that the manifest declares.
            timeout_s: Seconds for the call; None for the session's timeout.

        Returns:
            All outputs of the model, and how they were computed.

        Raises:
            DeadlineError: Neither the server nor the device could answer in time.
            RemoteError: The server gave no answer, and the device cannot finish alone.
            SessionLostError: The state of the stream is lost.
            EngineError: The inputs do not fit the model.

        Example:
            answer = session.infer({"image": image}, timeout_s=0.5)
            answer.outputs["logits"]
        """
        if not self._stateful:
            return self.finish(self.start(inputs, timeout_s))
        with self._turn:
            return self.finish(self.start(inputs, timeout_s))

    def stream(
        self, calls: Iterable[Arrays], depth: int = 4, timeout_s: float | None = None
    ) -> Iterator[Answer]:
        """Run the model on a stream of inputs; the device computes ahead of link and server.

        A call that fails raises where its answer would have come.

        Args:
            calls: The inputs of each call.
            depth: How many calls may be under way, so that neither frames nor answers pile up.
            timeout_s: Seconds for each call; None for the session's timeout.

        Returns:
            The answers, in the order of the calls.
        """
        requests = 1 if self._stateful else depth
        return pipelined(
            calls, lambda inputs: self.start(inputs, timeout_s), self.finish, depth, requests
        )

    def start(self, inputs: Arrays, timeout_s: float | None = None) -> Started:
        """Run the first segments of a call on the device; `finish` does the rest.

        Args:
            inputs: The inputs by name.
            timeout_s: Seconds for the whole call; None for the session's timeout.

        Raises:
            SessionLostError: The state of the stream is lost.
            EngineError: The inputs do not fit the model.
        """
        self._stream.check()
        began = self._clock()
        arrays = check_inputs(self.manifest.inputs, inputs)
        deadline = began + _seconds(self._timeout_s if timeout_s is None else timeout_s)

        # Without a choice, nothing is measured.
        if self._switcher is None or self._prober is None:
            stop = self._first_stop
            run = self._device.run(0, stop, arrays)
        else:
            stop = self._switcher.choose(began)
            run = self._device.run(0, self._prober.reach(stop), arrays)
            self._prober.called(stop, run)
        sizes = self._expected.sizes(arrays)
        return Started(stop, run.values, run.results, began, deadline, sizes)

    def finish(self, started: Started) -> Answer:
        """Finish a call that `start` began: on the server, or on the device if that fails.

        Args:
            started: What `start` returned.

        Raises:
            DeadlineError, RemoteError, SessionLostError: As for `infer`.
        """
        self._stream.check()
        progress = CallProgress(started.stop, started.values, dict(started.results))
        if self._stream.side == "device":
            progress.reason = "the stream began on the device"

        # Server and device take turns until the last segment has run.
        while progress.index < self._count:
            stop = self._run_on_server(progress, started)
            if stop > progress.index:
                self._run_on_device(progress, stop)

        self._stream.answered(progress.path)
        # The outputs in the order of the model.
        outputs: dict[str, Any] = {}
        for info in self.manifest.outputs:
            if info.name in progress.results:
                outputs[info.name] = progress.results[info.name]

        alone = _ALONE if progress.boundary is None else ""
        answer = Answer(
            outputs=outputs,
            path=progress.path,
            cut=self._cut_name(started.stop),
            boundary=progress.boundary,
            attempts=progress.attempts,
            seconds=self._clock() - started.began,
            frame_bytes=progress.frame_bytes,
            reason=progress.reason or alone,
        )
        self._counter.add(answer)
        return answer

    def close(self) -> None:
        """Close the connection; tell the server that the stream is over, if it can be reached."""
        # The link may be slow: the server is told, but not waited for.
        self._ending = self._stream.end(self._client) or self._ending
        if self._ending is not None:
            self._ending.join(ENDING_S)
        self._client.close()
        if self._prober is not None:
            self._prober.close()

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self, index: int) -> int:
        """The first segment from `index` on that is not planned for the device."""
        segments = self.manifest.segments
        while index < self._count and segments[index].placement == "device":
            index += 1
        return index

    def _run_on_server(self, progress: CallProgress, started: Started) -> int:
        """Let the server run the next segments, or find that the device has to.

        Returns:
            The stop up to which the device runs next.
        """
        index = progress.index
        boundary = self.manifest.boundaries[index - 1]
        frame = self._framed(index, progress.values)
        try:
            if progress.reason:
                raise ExchangeFailed(None, progress.reason, 0)
            exchange = self._send(frame, index, started.deadline, started.sizes)
        except ExchangeFailed as failure:
            progress.attempts += failure.attempts
            progress.reason = str(failure)
            self._stream.check_fallback(failure, self._device.has(index))
            progress.values = _as_received(boundary, frame, progress.values)
            return self._count

        progress.values = exchange.received.values
        progress.index = exchange.received.index
        progress.results.update(exchange.received.results)
        progress.attempts += exchange.attempts
        progress.frame_bytes += len(frame)
        progress.boundary = boundary.index
        return self._stop(progress.index)

    def _run_on_device(self, progress: CallProgress, stop: int) -> None:
        """Run the segments up to `stop`, and note how long it takes if the server failed."""
        resumed = self._clock()
        run = self._device.run(progress.index, stop, progress.values)
        progress.values = run.values
        progress.index = stop
        progress.results.update(run.results)
        if progress.reason:
            self._note_rest(self._clock() - resumed)

    def _framed(self, index: int, values: Mapping[str, Any]) -> bytes:
        if self._prober is None:
            return encode(self.manifest.boundaries[index - 1], values)
        return self._prober.framed(index, values)

    def _send(
        self, frame: bytes, index: int, deadline: float, sizes: Mapping[str, int]
    ) -> Exchange:
        """Send a frame, early enough for the device to finish if there is no answer."""
        if self.autonomous:
            deadline -= self._reserve_s(deadline)
        send = self._ask if self._prober is None else self._prober.send
        return send(frame, index, deadline, sizes)

    def _ask(self, frame: bytes, index: int, deadline: float, sizes: Mapping[str, int]) -> Exchange:
        """Return the answer to a frame for segment `index`, if it fits. Raises ExchangeFailed."""
        return self._client.send(
            self._request(frame, index),
            deadline,
            lambda response: self._expected.read(response, index, sizes),
        )

    def _request(self, frame: bytes, index: int) -> InferRequest:
        parameters: Parameters = {}
        if self._device.stateful(index, self._count):
            parameters = self._stream.next_step()

        # Without a version: the frame names its build, and another server that hosts the bundle
        # may have version numbers of its own.
        return InferRequest(self.name, "", [frame_tensor(frame)], uuid.uuid4().hex, parameters)

    def _reserve_s(self, deadline: float) -> float:
        """Seconds to keep for finishing on the device: twice what it took before, at most half."""
        left = max(deadline - self._clock(), 0)
        reserve = left * _RESERVE_SHARE if self._rest_s is None else 2 * self._rest_s
        return min(reserve, left / 2)

    def _note_rest(self, seconds: float) -> None:
        self._rest_s = seconds if self._rest_s is None else 0.8 * self._rest_s + 0.2 * seconds


def _as_received(
    boundary: FrameSchema, frame: bytes, values: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The values as the server would have received them.

    A quantized boundary loses precision; this way, the answer is the same on both paths.
    """
    quantized = any(spec.quantization is not None for spec in boundary.tensors)
    return decode(boundary, frame) if quantized else values


def _seconds(timeout_s: float) -> float:
    """The timeout, limited to what clocks and sockets can take. Raises RemoteError for NaN."""
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
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    checked: bool = True,
    options: EngineOptions = DEFAULT_OPTIONS,
    cut: str = "",
    policy: SwitchingPolicy | None = None,
    verify_digests: bool = True,
) -> RemoteSession:
    """Open a session of a bundle with a server.

    Nothing is sent before the first call, so that a device starts without its link. If the
    bundle has several cuts and the device has the segments between them, every call takes the cut
    that is fastest for the current link and server (see `SwitchingPolicy`). With a `policy`, a
    bundle with one cut that was compiled with --autonomous chooses between that cut and the
    device alone.

    Args:
        url: Address of the server: grpc://, grpcs://, http:// or https://HOST:PORT.
        bundle: The bundle's folder, or a packed side.
        name: The bundle's name at the server, if that is another one than its own; with several
            applications on Ray Serve, the name of the application.
        timeout_s: Seconds for a call that names no timeout.
        token: The bearer token, empty for none.
        trusted: PEM file of certificates to trust; None for those of the system.
        retry_policy: How long and how often to try.
        checked: Whether answers must carry a checksum. False is for servers that are not
            irsplit's and send none: only TLS guards their answers then.
        options: Options of the engines on the device.
        cut: Name of the cut to use always; empty to choose.
        policy: When to change the cut.
        verify_digests: Whether to compare the device's files with their digests first.

    Returns:
        The session; close it, or use it in a `with` statement.

    Raises:
        BundleError: The bundle does not start on the device, or has no such cut.
        EngineError: A segment cannot be opened.
        RemoteError: The address, the token or the certificates cannot be used.

    Example:
        with irsplit.runtime.connect("grpc://server:8001", "build") as session:
            answer = session.infer({"image": image}, timeout_s=0.5)
    """
    manifest = Manifest.load(bundle)
    credentials = Credentials(token, trusted, name, most_answer_bytes(manifest))
    return RemoteSession(
        manifest,
        open_transport(url, credentials),
        name=name,
        timeout_s=timeout_s,
        retry_policy=retry_policy,
        checked=checked,
        options=options,
        cut=cut,
        policy=policy,
        verify_digests=verify_digests,
    )
