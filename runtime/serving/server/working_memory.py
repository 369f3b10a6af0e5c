"""Memory that runs work in: one budget for all requests of a server, by estimate, first come, first served."""

import asyncio
from collections import deque


class Lease:
    """Room of one request. It is given back when the run ends, or at once when none has begun."""

    def __init__(self, room: "Room", size: int) -> None:
        self._room = room
        self._size = size
        self._begun = False

    def begin(self) -> None:
        """An engine has it now, and cannot be stopped: whoever waits for the answer may go, the memory stays taken."""
        self._begun = True

    def leave(self, message_bytes: int) -> None:
        """Nobody waits any more. A run that has begun keeps its request too, which its connection has given up."""
        if self._begun and self._size:
            self._room.give(-message_bytes)
            self._size += message_bytes
        elif not self._begun:
            self.end()

    def end(self) -> None:
        self._room.give(self._size)
        self._size = 0


class Room:
    """At most `limit` bytes at a time. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, size: int) -> Lease | None:
        """A lease when there is room and nobody waits for it."""
        size = min(size, self._limit)
        if self._line or self.taken + size > self._limit:
            return None
        self.taken += size
        return Lease(self, size)

    async def take(self, size: int) -> Lease:
        """Wait for room."""
        lease = self.take_now(size)
        if lease is not None:
            return lease
        size = min(size, self._limit)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give(size)
            else:
                self.give(0)  # who waits behind it may have room
            raise
        return Lease(self, size)

    def give(self, size: int) -> None:
        """Give so many bytes back; a negative size takes them, room or not."""
        self.taken -= size
        while self._line:
            wanted, turn = self._line[0]
            if not turn.done():
                if self.taken + wanted > self._limit:
                    return
                self.taken += wanted
                turn.set_result(None)
            self._line.popleft()
