"""A call under way: what its first segments have computed, and how far it has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Started:
    """A call whose first segments have run on the device.

    Attributes:
        stop: How many segments have run, which is the index of the next one.
        values: The values that the next segment needs, by name.
        results: The outputs that have been produced so far.
        began: When the call began, by the session's clock.
        deadline: When the call must be done.
        sizes: Sizes of the symbolic dims of the inputs.
    """

    stop: int
    values: Mapping[str, Any]
    results: Mapping[str, Any]
    began: float
    deadline: float
    sizes: Mapping[str, int]


@dataclass(slots=True)
class CallProgress:
    """How far a call has come: the next segment and what it needs, and what has been counted."""

    index: int
    values: Mapping[str, Any]
    results: dict[str, Any]
    attempts: int = 0
    frame_bytes: int = 0
    boundary: int | None = None
    """Index of the last boundary whose frame was answered."""
    reason: str = ""
    """Why the device finishes the call alone; empty as long as it does not."""

    @property
    def path(self) -> str:
        """Who answers the call: "server", or "device" if nothing came from the server."""
        return "device" if self.reason or self.boundary is None else "server"
