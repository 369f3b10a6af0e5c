"""What a session gives back: answers, and what it has counted."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs of the whole model by name, and how they came about.

    `path` is "server", or "device" when everything ran here; `reason` then says why. `cut` is the name of the boundary
    that was chosen for this call, or "device only". `boundary` is the index of the boundary whose frame was sent, None
    without one.
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
    """What a session has done since it was opened, and what it knows of its link; None: not measured.

    `calls` counts answers by (cut, path). `cut` is the one that the next call would take, `changes` how often it
    changed. Without several cuts to choose from, nothing of the link is measured.
    """

    calls: Mapping[tuple[str, str], int]
    cut: str
    changes: int
    link_up: bool
    rate_bit_s: float | None
    rtt_s: float | None
    server_wait_s: float | None


class CallCounter:
    """Answers by cut and path. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = Counter[tuple[str, str]]()

    def add(self, answer: Answer) -> None:
        with self._lock:
            self._calls[answer.cut, answer.path] += 1

    def calls(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._calls)
