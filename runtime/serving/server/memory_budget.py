"""A memory budget for messages, shared by all connections of a server and both frontends.

Every message reserves the bytes that it takes. A message that does not fit waits, first come,
first served. While one waits, the message that has been in transfer for the longest is evicted
once that is `EVICT_AFTER_S`: a client that begins a request and never ends it, or never reads its
answer, cannot keep the others out.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Generator
from typing import Any

from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.metrics import Metrics

EVICT_AFTER_S = 2.0
"""How long a message may be in transfer before it can be evicted for one that waits."""


class MemoryBudget:
    """Memory budget for request and response bodies, shared by all connections.

    At most `limit` bytes of request bodies are held at once; a request that does not fit waits.
    Responses count but are never blocked, because they already exist. Belongs to one event loop.

    Args:
        limit: Bytes of all messages together.
        largest: Bytes that one message may take.
        metrics: Where the held bytes and the evictions are counted.
    """

    def __init__(self, limit: int, largest: int, metrics: Metrics) -> None:
        self._limit = limit
        self.largest = largest
        self._held = 0
        self._in_transfer: dict[Reservation, float] = {}
        """When each transfer began, the oldest first."""
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: Reservation | None = None
        """The evicted reservation. It may free enough, so the next eviction waits for its end."""
        self._evicted = metrics.evicted
        metrics.held.set_function(lambda: self._held)

    @contextlib.contextmanager
    def reservation(self) -> Generator["Reservation"]:
        """Yield an empty reservation for one message; all of it is released at the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.close()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes fit, and take them; first come, first served."""
        if not self._queue and self._held + size <= self._limit:
            self._held += size
            return

        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        # Nothing fits now, but this may plan the first eviction.
        self._serve_queue()
        try:
            await turn
        except asyncio.CancelledError:
            # The bytes may have been granted just before the wait was cancelled.
            if not turn.cancelled():
                self.release(size)
            raise

    def release(self, size: int) -> None:
        """Give back `size` bytes; a negative size takes them, whether they fit or not."""
        self._held -= size
        self._serve_queue()

    def begin_transfer(self, reservation: "Reservation") -> None:
        """Note that the message of a reservation begins to move; from now on it can be evicted."""
        self._in_transfer[reservation] = asyncio.get_running_loop().time()

    def end_transfer(self, reservation: "Reservation") -> None:
        """Note that the message is whole; it cannot be evicted any more."""
        if self._in_transfer.pop(reservation, None) is not None:
            self._serve_queue()

    def closed(self, reservation: "Reservation") -> None:
        """Note that a reservation has given everything back."""
        if reservation is self._leaving:
            self._leaving = None
            self._serve_queue()

    def _serve_queue(self) -> None:
        """Grant what fits to those who wait, and plan the next eviction if somebody still waits."""
        while self._queue:
            size, turn = self._queue[0]
            # One that was cancelled while it waited is only taken out of the queue.
            if not turn.done():
                if self._held + size > self._limit:
                    break
                self._held += size
                turn.set_result(None)

            self._queue.popleft()

        may_evict = self._timer is None and self._leaving is None
        if self._queue and self._in_transfer and may_evict:
            oldest, since = next(iter(self._in_transfer.items()))
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(since + EVICT_AFTER_S, self._evict, oldest)

    def _evict(self, reservation: "Reservation") -> None:
        """Evict a reservation, unless nobody waits by now or its transfer has ended."""
        self._timer = None
        if self._queue and self._in_transfer.pop(reservation, None) is not None:
            self._leaving = reservation
            self._evicted.inc()
            reservation.evict()

        self._serve_queue()


class Reservation:
    """The bytes of one message.

    Enter it with `async with` while the message is received or sent. The block raises ServiceError
    OVERLOADED when the message is evicted.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._budget.begin_transfer(self)

    async def __aexit__(self, *error: Any) -> None:
        self._budget.end_transfer(self)
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError:
            text = (
                "the server has no memory for more messages, and this one has been in transfer "
                f"for more than {EVICT_AFTER_S:g} s; come back later"
            )
            raise ServiceError(Code.OVERLOADED, text) from None

    async def acquire(self, size: int) -> None:
        """Wait until `size` more bytes fit, and take them; used while the message arrives."""
        await self._budget.acquire(size)
        self._size += size

    def resize(self, size: int) -> None:
        """Set the reservation to the `size` that the message is known to have; this never waits."""
        self._budget.release(self._size - size)
        self._size = size

    def evict(self) -> None:
        """Make the surrounding `async with` block raise at its next await."""
        self._timeout.reschedule(asyncio.get_running_loop().time())

    def close(self, _: object = None) -> None:
        """Give everything back. The argument lets gRPC call this when a call has ended."""
        self.resize(0)
        self._budget.closed(self)
