"""What a session that chooses its cut does to know its link: measures requests, and now and then sends one for that."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.segments import SegmentRun, encode
from irsplit.runtime.serving.client.retry import Exchange, ExchangeFailed, RetryingClient
from irsplit.runtime.serving.client.switching import Answered, CutSwitcher
from irsplit.runtime.serving.protocol.messages import Code

_PATIENCE_S = 10.0
"""For what nobody waits for."""
_CLOSING_S = 2.0

Send = Callable[[bytes, int, float, Mapping[str, int]], Exchange]
"""Sends a frame to the segments from an index on, until a deadline, in a call with these sizes of symbols.

Raises ExchangeFailed.
"""


class LinkProber:
    """Sends for one session. Nothing is sent but while calls come, and beside the calls one thing at a time."""

    def __init__(
        self,
        manifest: Manifest,
        chooser: CutSwitcher,
        exchanger: RetryingClient,
        send: Send,
        clock: Callable[[], float],
    ) -> None:
        self._boundaries = manifest.boundaries
        self._count = len(manifest.segments)
        self._chooser = chooser
        self._exchanger = exchanger
        self._send = send
        self._clock = clock
        self._aside: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pinged = self._tried = -float("inf")

    def framed(self, stop: int, values: Mapping[str, Any]) -> bytes:
        """The frame at a stop, its size and time noted."""
        began = self._clock()
        frame = encode(self._boundaries[stop - 1], values)
        now = self._clock()
        self._chooser.encoded(stop, len(frame), now - began, now)
        return frame

    def send(self, frame: bytes, stop: int, deadline: float, sizes: Mapping[str, int]) -> Exchange:
        """The answer to a frame, measured. Raises ExchangeFailed."""
        sending, began = self._chooser.link.begin(), self._clock()
        try:
            exchange = self._send(frame, stop, deadline, sizes)
        except ExchangeFailed as failure:
            if failure.attempts and failure.code in (None, Code.DEADLINE):
                now = self._clock()
                self._chooser.link.failed(len(frame), now - began, now)
            raise
        answer = exchange.response
        size = sum(len(tensor.data) for tensor in answer.outputs)
        told = Answered(len(frame), size, exchange.seconds, answer.parameters)
        self._chooser.answered(sending, told, self._clock())
        return exchange

    def reach(self, stop: int) -> int:
        """How many segments to run for a call that sends at `stop`: all there are, once, when they are not known."""
        return stop if self._chooser.device_known else self._chooser.stops[-1]

    def called(self, stop: int, stretch: SegmentRun) -> None:
        """A call that sends at `stop` has run its segments: is anything else to be measured or sent?"""
        now, policy = self._clock(), self._chooser.policy
        measures = not self._chooser.device_known
        self._chooser.computed(stretch.seconds, now)
        if measures:
            for each in self._chooser.stops:
                if each < self._count:
                    self.framed(each, stretch.values)
        if not self._exchanger.breaker.closed:
            return  # a dead link is left to the circuit's probes
        if (
            now - self._tried >= policy.trial_s
            and (trial := self._chooser.trial(stop, now)) is not None
        ):
            self._tried = now
            self._beside(lambda: self._try(trial, stretch.values))
        elif (
            stop < self._count
            and self._chooser.link.rtt_age_s(now) >= policy.ping_s
            and now - self._pinged >= policy.ping_s
        ):
            self._pinged = now
            self._beside(self._ping)

    def close(self) -> None:
        """After the exchanger: what is under way ends with its connection, or soon."""
        if self._aside is not None:
            self._aside.join(_CLOSING_S)

    def _try(self, stop: int, values: Mapping[str, Any]) -> None:
        """Send a call that is answered in another way, only to measure it; against a round trip that is known."""
        if self._chooser.link.rtt_s is None:
            self._ping()
        try:
            self.send(self.framed(stop, values), stop, self._clock() + _PATIENCE_S, {})
        except ExchangeFailed:
            return  # noted: the link is no better

    def _ping(self) -> None:
        seconds = self._exchanger.ping()
        if seconds is not None:
            self._chooser.link.delivered(self._chooser.link.begin(), 0, seconds, self._clock())

    def _beside(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._aside is None or not self._aside.is_alive():
                self._aside = threading.Thread(target=work, name="irsplit-scout", daemon=True)
                self._aside.start()
