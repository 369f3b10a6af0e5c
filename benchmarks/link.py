"""A link that is slow, far away and breaks: a model on a virtual clock, and a TCP proxy that makes real bytes obey it.

The model sends packets through a token bucket and a queue, delays each (normal jitter), and loses, damages or reorders
some, all from a seed. A proxy stands between a client and a server on loopback; what TCP would hide, it hides as TCP
does: a lost packet comes later, behind a retransmission time-out, and holds up all that follow. Damaged bytes arrive
damaged: what a checksum of 16 bits lets through.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from random import Random

PACKET = 1460
"""Payload of a TCP segment on Ethernet, bytes."""

_RETRANSMISSION_S = 0.2


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a link is like. Rate 0: unlimited. Losses and the like are shares of the packets.

    `corruption` damages one byte of a packet. `outages` are pairs (begin, end) in seconds, in which nothing passes.
    """

    rate_bit_s: float = 0.0
    burst_bytes: int = 0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    corruption: float = 0.0
    reordering: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_trace(cls, path: Path) -> list[tuple[float, "Conditions"]]:
        """A trace file: a JSON object a line, `at_s` and fields of this class that hold from then on."""
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(float(line.pop("at_s")), cls(**line)) for line in lines]


PERFECT = Conditions()
USHAKOV_3G = Conditions(
    rate_bit_s=1_024_000,
    burst_bytes=1540,
    delay_s=0.1,
    jitter_s=0.02,
    loss=0.01,
    corruption=0.001,
    reordering=0.01,
)
"""The experiment's link of the founding paper; "some" reordering is taken as 1 %."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A packet that arrives: when, and with which byte flipped (None: none)."""

    at_s: float
    damaged: int | None = None


@dataclass
class Link:
    """One direction, on a virtual clock: callers say when they send, and learn when it arrives."""

    conditions: Conditions
    random: Random
    _free_s: float = 0.0
    """When the packets before have left."""
    _credit: float = 0.0
    _credit_s: float = 0.0

    def send(self, size: int, now_s: float) -> Delivery | None:
        """What becomes of a packet sent at `now_s`; None when it is lost."""
        leaves = self._leaves(size, now_s)
        if self.random.random() < self.conditions.loss or self._out(leaves):
            return None
        delay = max(self.random.gauss(self.conditions.delay_s, self.conditions.jitter_s), 0.0)
        if self.random.random() < self.conditions.reordering:
            delay += self.conditions.delay_s / 2
        damaged = self.random.randrange(size) if self.random.random() < self.conditions.corruption else None
        return Delivery(leaves + delay, damaged)

    def deliver(self, size: int, now_s: float) -> Delivery:
        """As `send` under TCP: sent again after a time-out that doubles until it arrives."""
        wait = max(_RETRANSMISSION_S, 2 * self.conditions.delay_s + 4 * self.conditions.jitter_s)
        while (delivery := self.send(size, now_s)) is None:
            now_s += wait
            wait = min(2 * wait, 60.0)
            now_s = max(now_s, self._end_of_outage(now_s))
        return delivery

    def _leaves(self, size: int, now_s: float) -> float:
        """When the packet has left: at once within the burst, else at the rate."""
        c = self.conditions
        if not c.rate_bit_s:
            return now_s
        rate = c.rate_bit_s / 8
        start = max(now_s, self._free_s)
        self._credit = min(c.burst_bytes, self._credit + (start - self._credit_s) * rate)
        wait = max(size - self._credit, 0.0) / rate
        self._credit = max(self._credit - size, 0.0)
        self._free_s = self._credit_s = start + wait
        return self._free_s

    def _out(self, at_s: float) -> bool:
        return any(begin <= at_s < end for begin, end in self.conditions.outages)

    def _end_of_outage(self, at_s: float) -> float:
        return max((end for begin, end in self.conditions.outages if begin <= at_s < end), default=at_s)


class Proxy:
    """Stands before 127.0.0.1:`target`; `conditions` may be changed while it runs, and connections cut or frozen."""

    def __init__(self, target: int, conditions: Conditions = PERFECT, seed: int = 0) -> None:
        self.conditions = conditions
        self.port = 0
        self._target = target
        self._random = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)

    def cut(self) -> None:
        """Break every connection, and refuse new ones until `mend`."""
        self._call(self._cut)

    def freeze(self) -> None:
        """Half-open: connections stay, nothing passes until `mend`."""
        self._call(self._flowing.clear)

    def mend(self) -> None:
        self._call(self._mend)

    @contextlib.contextmanager
    def running(self) -> Generator["Proxy"]:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._close(server), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _call(self, function: Callable[[], None]) -> None:
        async def on_loop() -> None:
            function()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()

    def _cut(self) -> None:
        self._refusing = True
        for writer in set(self._writers):
            writer.transport.abort()

    def _mend(self) -> None:
        self._refusing = False
        self._flowing.set()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        self._cut()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cut()
        await asyncio.sleep(0.01)  # aborted transports close their sockets in the loop's next rounds

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        self._keep(asyncio.current_task())
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._keep(asyncio.create_task(self._pass(source, sink)))

    def _keep(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Bytes of one direction, packet by packet, each written when the link would have delivered it."""
        queue = asyncio.Queue[tuple[float, bytes]](256)
        writing = asyncio.create_task(self._write(queue, sink))
        link = Link(self.conditions, self._random)
        latest = 0.0
        try:
            while data := await source.read(PACKET):
                link.conditions = self.conditions
                delivery = link.deliver(len(data), self._loop.time())
                latest = max(latest, delivery.at_s)  # TCP hands nothing out of order to its reader
                if delivery.damaged is not None:
                    flipped = data[delivery.damaged] ^ (1 << self._random.randrange(8))
                    data = data[: delivery.damaged] + bytes([flipped]) + data[delivery.damaged + 1 :]
                await queue.put((latest, data))
            await queue.put((latest, b""))
            await writing
        except OSError:
            pass
        finally:
            writing.cancel()
            self._writers.discard(sink)
            sink.transport.abort()

    async def _write(self, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                at_s, data = await queue.get()
                await asyncio.sleep(max(at_s - self._loop.time(), 0))
                await self._flowing.wait()
                if not data:
                    return
                sink.write(data)
                await sink.drain()
