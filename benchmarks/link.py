"""A slow link that is far away and breaks: a model on a virtual clock, and a real TCP proxy.

What the link is like says a link profile, the same that the planner prices. The model sends packets
through a token bucket and a queue, delays each (normal jitter), and loses, damages or reorders
some, all from a seed. A proxy stands between a client and a server on loopback; what TCP would
hide, it hides as TCP does: a lost packet comes later, behind a retransmission time-out, and holds
up all that follow. Damaged bytes arrive damaged: what a checksum of 16 bits lets through.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from irsplit.profiles import Link, link

PACKET = 1460
"""Payload of a TCP segment on Ethernet, bytes."""

_RETRANSMISSION_S = 0.2


PERFECT = Link("perfect", up_bit_s=10**12, down_bit_s=10**12)
USHAKOV_3G = link("ushakov-1mbit")
"""The experiment's link of the founding paper."""

Outages = Sequence[tuple[float, float]]
"""Pairs (begin, end) in seconds, in which nothing passes."""


def read_trace(path: Path) -> list[tuple[float, Link]]:
    """A trace file: a JSON object a line, `at_s` and the `link` from then on, as in `--link`."""
    lines = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    return [(float(line["at_s"]), link(line["link"])) for line in lines]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A packet that arrives: when, and with which byte flipped (None: none)."""

    at_s: float
    damaged: int | None = None


@dataclass
class Channel:
    """One direction of a link, on a virtual clock: callers say when they send; it says arrivals."""

    link: Link
    random: Random
    up: bool = True
    outages: Outages = ()
    _free_s: float = 0.0
    """When the packets before have left."""
    _credit: float = 0.0
    _credit_s: float = 0.0

    def send(self, size: int, now_s: float) -> Delivery | None:
        """What becomes of a packet sent at `now_s`; None when it is lost."""
        leaves = self._leaves(size, now_s)
        if self._happens(self.link.loss_ppm) or self._out(leaves):
            return None
        delay = max(self.random.gauss(self._delay_s, self.link.jitter_ns / 1e9), 0.0)
        if self._happens(self.link.reordering_ppm):
            delay += self._delay_s / 2
        damaged = self.random.randrange(size) if self._happens(self.link.corruption_ppm) else None
        return Delivery(leaves + delay, damaged)

    def deliver(self, size: int, now_s: float) -> Delivery:
        """As `send` under TCP: sent again after a time-out that doubles until it arrives."""
        wait = max(_RETRANSMISSION_S, (self.link.rtt_ns + 4 * self.link.jitter_ns) / 1e9)
        while (delivery := self.send(size, now_s)) is None:
            now_s += wait
            wait = min(2 * wait, 60.0)
            now_s = max(now_s, self._end_of_outage(now_s))
        return delivery

    @property
    def busy_until_s(self) -> float:
        """When all that was sent so far has left."""
        return self._free_s

    @property
    def _delay_s(self) -> float:
        return self.link.rtt_ns / 2e9

    def _happens(self, share_ppm: int) -> bool:
        return self.random.random() * 1e6 < share_ppm

    def _leaves(self, size: int, now_s: float) -> float:
        """When the packet has left: at once within the burst, else at the rate."""
        rate = (self.link.up_bit_s if self.up else self.link.down_bit_s) / 8
        start = max(now_s, self._free_s)
        self._credit = min(self.link.burst_bytes, self._credit + (start - self._credit_s) * rate)
        wait = max(size - self._credit, 0.0) / rate
        self._credit = max(self._credit - size, 0.0)
        self._free_s = self._credit_s = start + wait
        return self._free_s

    def _out(self, at_s: float) -> bool:
        return any(begin <= at_s < end for begin, end in self.outages)

    def _end_of_outage(self, at_s: float) -> float:
        return max((end for begin, end in self.outages if begin <= at_s < end), default=at_s)


class Proxy:
    """Stands before 127.0.0.1:`target`; the link may change, and connections be cut or frozen."""

    def __init__(
        self,
        target: int,
        link: Link = PERFECT,
        seed: int = 0,
        outages: Outages = (),
        drip_s: float = 0.0,
    ) -> None:
        """With `drip_s`, what comes back comes byte by byte, with such a pause before each."""
        self.link = link
        self._drip_s = drip_s
        self.outages = outages
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
        await asyncio.sleep(
            0.01
        )  # aborted transports close their sockets in the loop's next rounds

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
        for source, sink, up in ((reader, far_writer, True), (far_reader, writer, False)):
            self._keep(asyncio.create_task(self._pass(source, sink, up)))

    def _keep(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, up: bool
    ) -> None:
        """Bytes of one direction, packet by packet, each written when the link would deliver it."""
        queue = asyncio.Queue[tuple[float, bytes]](256)
        writing = asyncio.create_task(self._write(queue, sink, 0.0 if up else self._drip_s))
        channel = Channel(self.link, self._random, up, self.outages)
        latest = 0.0
        try:
            while data := await source.read(PACKET):
                channel.link = self.link
                delivery = channel.deliver(len(data), self._loop.time())
                latest = max(latest, delivery.at_s)  # TCP hands nothing out of order to its reader
                if delivery.damaged is not None:
                    flipped = data[delivery.damaged] ^ (1 << self._random.randrange(8))
                    data = (
                        data[: delivery.damaged] + bytes([flipped]) + data[delivery.damaged + 1 :]
                    )
                await queue.put((latest, data))
            await queue.put((latest, b""))
            await writing
        except OSError:
            pass
        finally:
            writing.cancel()
            self._writers.discard(sink)
            sink.transport.abort()

    async def _write(
        self, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, drip_s: float
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                at_s, data = await queue.get()
                await asyncio.sleep(max(at_s - self._loop.time(), 0))
                await self._flowing.wait()
                if not data:
                    return
                for piece in [bytes([byte]) for byte in data] if drip_s else [data]:
                    await asyncio.sleep(drip_s)
                    sink.write(piece)
                    await sink.drain()
