"""What a session returns: the answer to each call, and counters of what it has done."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of the whole model for one call, and how they were computed.

    Attributes:
        outputs: The outputs of the model by name.
        path: "server" if the server computed the rest, "device" if everything ran on the device.
        cut: Name of the boundary that was chosen for this call, or "device only".
        boundary: Index of the boundary whose frame was sent, None if no frame was sent.
        attempts: How many requests were sent for this call.
        seconds: From `start` to the end of the call.
        frame_bytes: Size of the frames that were sent.
        reason: Why the path is "device"; empty for the path "server".
    """

    outputs: dict[str, Any] = field(repr=False)
    path: str
    cut: str
    boundary: int | None
    attempts: int
    seconds: float
    frame_bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClientMetrics:
    """What a session has done since it was opened, and what it knows of its link.

    A session that has only one cut to use does not measure its link: the last three are None.

    Attributes:
        calls: Number of answers by (cut, path).
        cut: The cut that the next call would take.
        changes: How often the session changed its cut.
        link_up: Whether requests are sent at all (the circuit breaker is closed).
        rate_bit_s: Measured rate of the link, None if not measured.
        rtt_s: Measured round trip time, None if not measured.
        server_wait_s: How long a request waits at the server before it runs, None if not measured.
    """

    calls: Mapping[tuple[str, str], int]
    cut: str
    changes: int
    link_up: bool
    rate_bit_s: float | None
    rtt_s: float | None
    server_wait_s: float | None


class CallCounter:
    """Counts answers by cut and path. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = Counter[tuple[str, str]]()

    def add(self, answer: Answer) -> None:
        with self._lock:
            self._calls[answer.cut, answer.path] += 1

    def calls(self) -> dict[tuple[str, str], int]:
        """A copy of the counts so far, by (cut, path)."""
        with self._lock:
            return dict(self._calls)
