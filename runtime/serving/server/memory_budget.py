"""Bytes of messages on their way in and out: one budget for all connections of a server, over both doors.

A message that finds no room waits. Meanwhile the one that has been on its way for the longest has to go, once that is
`PATIENCE_S`: clients that begin and never end, or never read, do not keep others out.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Generator
from typing import Any

from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.metrics import Metrics

PATIENCE_S = 2.0
"""For so long a message may be on its way, whoever waits for its room."""


class MemoryBudget:
    """`limit` bytes at most, but for answers, which are there before anybody asks; `largest` a message.

    Belongs to one event loop.
    """

    def __init__(self, limit: int, largest: int, metrics: Metrics) -> None:
        self._limit = limit
        self.largest = largest
        self._held = 0
        self._moving: dict[Reservation, float] = {}
        """Since when, the oldest first."""
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: Reservation | None = None
        """Told to go. Its room may be enough, so no other one is told before it has gone."""
        self._pushed_out = metrics.pushed_out
        metrics.held.set_function(lambda: self._held)

    @contextlib.contextmanager
    def share(self) -> Generator["Reservation"]:
        share = Reservation(self)
        try:
            yield share
        finally:
            share.close()

    async def take(self, size: int) -> None:
        """Wait for room and take it, first come, first served."""
        if not self._line and self._held + size <= self._limit:
            self._held += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        self._make_room()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give(size)
            raise

    def give(self, size: int) -> None:
        """Give back so many bytes; a negative size takes them, room or not."""
        self._held -= size
        self._make_room()

    def begin(self, share: "Reservation") -> None:
        self._moving[share] = asyncio.get_running_loop().time()

    def end(self, share: "Reservation") -> None:
        if self._moving.pop(share, None) is not None:
            self._make_room()

    def left(self, share: "Reservation") -> None:
        if share is self._leaving:
            self._leaving = None
            self._make_room()

    def _make_room(self) -> None:
        """For those who wait: now, or when the oldest message has been on its way for long enough."""
        while self._line:
            size, turn = self._line[0]
            if not turn.done():
                if self._held + size > self._limit:
                    break
                self._held += size
                turn.set_result(None)
            self._line.popleft()
        if self._line and self._moving and self._timer is None and self._leaving is None:
            oldest, since = next(iter(self._moving.items()))
            self._timer = asyncio.get_running_loop().call_at(
                since + PATIENCE_S, self._push_out, oldest
            )

    def _push_out(self, share: "Reservation") -> None:
        self._timer = None
        if self._line and self._moving.pop(share, None) is not None:
            self._leaving = share
            self._pushed_out.inc()
            share.push_out()
        self._make_room()


class Reservation:
    """What one message takes. An `async with` of it lasts while the message comes in or goes out.

    That raises ServiceError OVERLOADED when it takes long and others need the room.
    """

    def __init__(self, bodies: MemoryBudget) -> None:
        self._bodies = bodies
        self._size = 0
        self._patience = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._patience.__aenter__()
        self._bodies.begin(self)

    async def __aexit__(self, *error: Any) -> None:
        self._bodies.end(self)
        try:
            await self._patience.__aexit__(*error)
        except TimeoutError:
            text = f"too many bytes are on their way here, and these for more than {PATIENCE_S:g} s; come back later"
            raise ServiceError(Code.OVERLOADED, text) from None

    async def take(self, size: int) -> None:
        """Wait for room for so many bytes more, while it is moving."""
        await self._bodies.take(size)
        self._size += size

    def hold(self, size: int) -> None:
        """It is there, and so large."""
        self._bodies.give(self._size - size)
        self._size = size

    def push_out(self) -> None:
        self._patience.reschedule(asyncio.get_running_loop().time())

    def close(self, _: object = None) -> None:
        """Give all back. What calls it when a call has ended says which."""
        self.hold(0)
        self._bodies.left(self)
