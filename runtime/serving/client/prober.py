"""Measure the link for a session that chooses its cut: time its requests, and send probes."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.segments import SegmentRun, encode
from irsplit.runtime.serving.client.retry import Exchange, ExchangeFailed, RetryingClient
from irsplit.runtime.serving.client.switching import Answered, CutSwitcher
from irsplit.runtime.serving.protocol.messages import Code

_TRIAL_TIMEOUT_S = 10.0
"""For a request whose answer nobody waits for."""
_CLOSING_S = 2.0

Send = Callable[[bytes, int, float, Mapping[str, int]], Exchange]
"""Sends a frame. Takes the frame, the segment that it is for, the deadline, and the sizes of the
call's symbolic dims. Raises ExchangeFailed."""


class LinkProber:
    """Measures the requests of one session, and sends probes and trials beside them.

    Probes are sent only while calls come in, and only one at a time.

    Args:
        manifest: The manifest of the bundle.
        switcher: Takes the measurements.
        client: Sends probes.
        send: Sends frames.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        switcher: CutSwitcher,
        client: RetryingClient,
        send: Send,
        clock: Callable[[], float],
    ) -> None:
        self._boundaries = manifest.boundaries
        self._count = len(manifest.segments)
        self._switcher = switcher
        self._client = client
        self._send = send
        self._clock = clock
        self._background: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pinged = self._tried = -float("inf")

    def framed(self, stop: int, values: Mapping[str, Any]) -> bytes:
        """Encode the frame at a stop, and measure its size and time.

        Args:
            stop: How many segments have run on the device.
            values: The values that cross, by name.
        """
        began = self._clock()
        frame = encode(self._boundaries[stop - 1], values)
        now = self._clock()
        self._switcher.encoded(stop, len(frame), now - began, now)
        return frame

    def send(self, frame: bytes, stop: int, deadline: float, sizes: Mapping[str, int]) -> Exchange:
        """Send a frame and measure how long its answer takes.

        Args:
            frame: The frame.
            stop: The segment that it is for.
            deadline: When to give up, by the clock.
            sizes: Sizes of the symbolic dims in the call.

        Raises:
            ExchangeFailed: There is no answer.
        """
        sending = self._switcher.link.begin()
        began = self._clock()
        try:
            exchange = self._send(frame, stop, deadline, sizes)
        except ExchangeFailed as failure:
            # Only a link that is too slow or dead says something about its rate.
            if failure.attempts and failure.code in (None, Code.DEADLINE):
                now = self._clock()
                self._switcher.link.failed(len(frame), now - began, now)
            raise

        answer = exchange.response
        down_bytes = sum(len(tensor.data) for tensor in answer.outputs)
        answered = Answered(len(frame), down_bytes, exchange.seconds, answer.parameters)
        self._switcher.answered(sending, answered, self._clock())
        return exchange

    def reach(self, stop: int) -> int:
        """Return how many segments the device runs for a call that sends at `stop`.

        It runs all that it can as long as some of them are neither measured nor priced.
        """
        return stop if self._switcher.device_known else self._switcher.stops[-1]

    def called(self, stop: int, run: SegmentRun) -> None:
        """Take the measurements of a call, and send a probe or a trial if one is due.

        Args:
            stop: The stop at which the call sends.
            run: What the device has computed for it.
        """
        now = self._clock()
        # `reach` let the device run all its segments: encode the frames of all stops as well.
        frames_unknown = not self._switcher.device_known
        self._switcher.computed(run.seconds, now)
        if frames_unknown:
            for sending_stop in self._switcher.stops:
                if sending_stop < self._count:
                    self.framed(sending_stop, run.values)

        # While the link is down, the circuit breaker sends the only probes.
        if not self._client.breaker.closed:
            return

        trial: int | None = None
        if now - self._tried >= self._switcher.policy.trial_s:
            trial = self._switcher.trial(stop, now)
        if trial is not None:
            self._tried = now
            self._in_background(lambda: self._try(trial, run.values))
        elif stop < self._count and self._ping_is_due(now):
            self._pinged = now
            self._in_background(self._ping)

    def close(self) -> None:
        """Wait for the probe under way, which ends soon once the client is closed."""
        if self._background is not None:
            self._background.join(_CLOSING_S)

    def _ping_is_due(self, now: float) -> bool:
        ping_s = self._switcher.policy.ping_s
        return self._switcher.link.rtt_age_s(now) >= ping_s and now - self._pinged >= ping_s

    def _try(self, stop: int, values: Mapping[str, Any]) -> None:
        """Send a call at another stop only to measure it; the call itself is answered elsewhere."""
        if self._switcher.link.rtt_s is None:
            self._ping()  # the rate is measured against the round trip

        deadline = self._clock() + _TRIAL_TIMEOUT_S
        try:
            self.send(self.framed(stop, values), stop, deadline, {})
        except ExchangeFailed:
            return  # `send` has taken the failure as a measurement

    def _ping(self) -> None:
        seconds = self._client.ping()
        if seconds is not None:
            link = self._switcher.link
            link.delivered(link.begin(), 0, seconds, self._clock())

    def _in_background(self, work: Callable[[], None]) -> None:
        """Start the work on a thread, unless other work is still under way."""
        with self._lock:
            if self._background is None or not self._background.is_alive():
                self._background = threading.Thread(target=work, name="irsplit-prober", daemon=True)
                self._background.start()
