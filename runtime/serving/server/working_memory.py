"""A budget for the memory that runs take, by estimate, shared by all requests of a server."""

import asyncio
from collections import deque


class Lease:
    """The working memory of one request.

    It is released when the run ends, or at once when no run has begun.
    """

    def __init__(self, memory: "RunMemory", size: int) -> None:
        self._memory = memory
        self._size = size
        self._started = False

    def start(self) -> None:
        """Note that an engine runs the request.

        An engine cannot be stopped. From now on the memory stays taken until `release`, even when
        the caller gives up.
        """
        self._started = True

    def abandon(self, message_bytes: int) -> None:
        """Note that nobody waits for the answer any more.

        Args:
            message_bytes: Size of the request. A run that has begun keeps it alive, although its
                connection no longer counts it, so it is added to the lease.
        """
        if not self._started:
            self.release()
        elif self._size:
            self._memory.release(-message_bytes)
            self._size += message_bytes

    def release(self) -> None:
        """Give the memory back; a second call does nothing."""
        self._memory.release(self._size)
        self._size = 0


class RunMemory:
    """At most `limit` bytes at a time, first come, first served. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_acquire(self, size: int) -> Lease | None:
        """Return a lease of `size` bytes, or None if they do not fit now or somebody waits."""
        # A request that is larger than the limit runs alone.
        size = min(size, self._limit)
        if self._queue or self.taken + size > self._limit:
            return None

        self.taken += size
        return Lease(self, size)

    async def acquire(self, size: int) -> Lease:
        """Wait until `size` bytes fit, and return a lease of them."""
        lease = self.try_acquire(size)
        if lease is not None:
            return lease

        size = min(size, self._limit)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # Granted already: give the bytes back. Otherwise: those behind this request may fit.
            self.release(0 if turn.cancelled() else size)
            raise

        return Lease(self, size)

    def release(self, size: int) -> None:
        """Give back `size` bytes; a negative size takes them, whether they fit or not."""
        self.taken -= size
        while self._queue:
            next_size, turn = self._queue[0]
            # One that was cancelled while it waited is only taken out of the queue.
            if not turn.done():
                if self.taken + next_size > self._limit:
                    return

                self.taken += next_size
                turn.set_result(None)

            self._queue.popleft()
