"""Measures what a frame and its answer cost beside engines, codecs and the link.

`irsplit profile` measures the segments of a model alone, again and again. In use they take turns:
the runtime is around them, the encoder finds caches cold that the engine has used, and a thread
of the server has to wake up. What a real client and a server in a process of its own take beyond
the sum of the segments is a cost of its own, paid once a round trip.
"""

import contextlib
import importlib.util
import socket
import statistics
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irsplit.base.errors import ServeError
from irsplit.base.lazy import LazyModule
from irsplit.engines.execute import Inputs
from irsplit.engines.isolate import isolated
from irsplit.profiles import Message
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.run.segments import open_segment_of
from irsplit.runtime.run.session import DeviceSession
from irsplit.runtime.serving.client.session import connect

if TYPE_CHECKING:
    from irsplit.runtime.serving.server import server as serving
else:
    # A device has no server's packages, and measures its own side without them.
    serving = LazyModule("irsplit.runtime.serving.server.server")

_LOOPBACK = "127.0.0.1"
_NAME = "measured"
_PORT_BYTES = 2
_CALLS_TOGETHER = 5
"""Calls that are timed together: one after other work, and the rest in a hot loop."""
_COUNTED = 8
"""Calls whose bytes on the wire are counted."""
_TIMEOUT_S = 60.0
_POLL_S = 0.1


def measure_message(bundle: Path, inputs: Inputs, options: EngineOptions, runs: int) -> Message:
    """Measure what one message costs for a bundle with one cut.

    The device's share is CPU time, which a busy machine does not change; the exchange is wall time.
    Without the packages of a server, only the device's share is measured.

    Args:
        bundle: Folder of a bundle with a device and a server segment.
        inputs: The model's inputs, by name.
        options: How the inference engine runs, on both sides.
        runs: How often to measure.

    Raises:
        ServeError: The server does not start.
    """
    sides = _BothSides(bundle, inputs, options)
    device_ns = sides.device_ns(runs)
    # A device usually has no server's packages.
    if any(importlib.util.find_spec(name) is None for name in ("grpc", "uvicorn")):
        return Message(device_ns)

    with _server_process(bundle, options) as port:
        exchange_ns = _exchange_ns(sides, port, runs)
        with _CountingProxy(port) as proxy:
            up_bytes, down_bytes = _protocol_bytes(sides, proxy)

    return Message(device_ns, exchange_ns, up_bytes, down_bytes)


def measure_device_message(
    bundle: Path, inputs: Inputs, options: EngineOptions, runs: int
) -> Message:
    """Measure the device's share of a message alone.

    Args:
        bundle: A bundle whose first segment runs on the device, and whose second one does not.
        inputs: The model's inputs, by name.
        options: How the inference engine runs.
        runs: How often to measure.
    """
    return Message(_DeviceSide(bundle, inputs, options).device_ns(runs))


class _DeviceSide:
    """A bundle's first segment and the encoder, each alone, and the session that runs both."""

    def __init__(self, bundle: Path, inputs: Inputs, options: EngineOptions) -> None:
        self.bundle, self.inputs, self.options = bundle, inputs, options
        self.session = DeviceSession(bundle, options)
        manifest = self.session.manifest
        self.schema = manifest.boundaries[0]

        segment = manifest.segments[0]
        self._device_engine = open_segment_of(manifest, 0, options)
        self._device_inputs = [inputs[name] for name in segment.inputs]
        outputs = self._device_engine.run(self._device_inputs)
        self.values: dict[str, Any] = {
            **inputs,
            **dict(zip(segment.outputs, outputs, strict=True)),
        }
        self.sent = [self.values[spec.name] for spec in self.schema.tensors]

    def compute_device(self) -> None:
        self._device_engine.run(self._device_inputs)

    def encode(self) -> None:
        framing.encode(self.schema, self.sent)

    def device_ns(self, runs: int) -> int:
        """What a call costs the device beyond engine and encoder."""
        rounds = [self._round_ns() for _ in range(runs + 1)][1:]  # the first one warms up
        return max(0, round(statistics.median(rounds)))

    def _round_ns(self) -> float:
        clock = time.process_time_ns
        alone = _call_ns(self.compute_device, clock) + _call_ns(self.encode, clock)
        return _call_ns(lambda: self.session.start(self.inputs), clock) - alone


class _BothSides(_DeviceSide):
    """Both segments of a bundle with one cut."""

    def __init__(self, bundle: Path, inputs: Inputs, options: EngineOptions) -> None:
        super().__init__(bundle, inputs, options)
        manifest = self.session.manifest
        segment = manifest.segments[1]
        # The server's segment reads directly what the device's segment has produced.
        self.frame = framing.encode(self.schema, self.sent)
        self._server_engine = open_segment_of(manifest, 1, options)
        self._server_inputs = [self.values[name] for name in segment.inputs]
        results = self._server_engine.run(self._server_inputs)
        outputs = dict(zip(segment.outputs, results, strict=True))
        self.returned_bytes = sum(outputs[name].nbytes for name in segment.results)

    def decode(self) -> None:
        framing.decode(self.schema, self.frame)

    def compute_server(self) -> None:
        self._server_engine.run(self._server_inputs)


def _call_ns(call: Callable[[], object], clock: Callable[[], int]) -> float:
    """Mean time of one of several calls in a row."""
    began = clock()
    for _ in range(_CALLS_TOGETHER):
        call()
    return (clock() - began) / _CALLS_TOGETHER


def _exchange_ns(sides: _BothSides, port: int, runs: int) -> int:
    """Time from the end of the device's share to the outputs, without link, codec and engine."""
    rounds: list[float] = []
    with connect(
        _url(port), sides.bundle, name=_NAME, timeout_s=_TIMEOUT_S, options=sides.options
    ) as session:
        for _ in range(max(runs, 2) + 1):
            started = session.start(sides.inputs)
            began = time.perf_counter_ns()
            session.finish(started)
            taken = time.perf_counter_ns() - began

            steps = (sides.encode, sides.decode, sides.compute_server)
            alone = sum(_call_ns(step, time.perf_counter_ns) for step in steps)
            rounds.append(taken - alone)

    # What disturbs threads that wait for each other only makes them slower, so the first quartile
    # tells more than the median.
    return max(0, round(statistics.quantiles(rounds[1:], n=4)[0]))


def _protocol_bytes(sides: _BothSides, proxy: "_CountingProxy") -> tuple[int, int]:
    """Bytes on the wire beyond the frame, and beyond the raw results."""
    with connect(
        _url(proxy.port), sides.bundle, name=_NAME, timeout_s=_TIMEOUT_S, options=sides.options
    ) as session:
        session.infer(sides.inputs)  # opens the connection
        up_before, down_before = proxy.passed
        for _ in range(_COUNTED):
            session.infer(sides.inputs)
        up = (proxy.passed[0] - up_before) // _COUNTED
        down = (proxy.passed[1] - down_before) // _COUNTED

    return max(0, up - len(sides.frame)), max(0, down - sides.returned_bytes)


def _url(port: int) -> str:
    return f"grpc://{_LOOPBACK}:{port}"


@contextlib.contextmanager
def _server_process(bundle: Path, options: EngineOptions) -> Generator[int]:
    """Serve a bundle in a process of its own, and yield the port.

    The process connects back to this one and sends the port. It serves until that connection ends,
    which happens even when this process is killed.
    """
    with socket.create_server((_LOOPBACK, 0)) as listener, ThreadPoolExecutor(1) as thread:
        address: tuple[str, int] = listener.getsockname()
        process = thread.submit(lambda: isolated(_serve_until_closed, bundle, options, address))
        with _accept(listener, process) as connection:
            port = connection.recv(_PORT_BYTES)
            if len(port) < _PORT_BYTES:
                raise _not_started(process)

            yield int.from_bytes(port, "big")


def _serve_until_closed(bundle: Path, options: EngineOptions, address: tuple[str, int]) -> None:
    """The process of a server: send its port to `address`, and serve until that connection ends."""
    server_options = serving.ServerOptions(port=0, http_port=None, workers=1, engine=options)
    words = [f"{_NAME}={bundle}"]
    with (
        serving.serving(words, server_options) as server,
        socket.create_connection(address) as connection,
    ):
        connection.sendall(server.port.to_bytes(_PORT_BYTES, "big"))
        connection.recv(1)


def _accept(listener: socket.socket, process: Future[None]) -> socket.socket:
    """The connection of a process that starts. Raises ServeError if it ends before."""
    listener.settimeout(_POLL_S)
    while not process.done():
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            return connection

    raise _not_started(process)


def _not_started(process: Future[None]) -> ServeError:
    """What to raise for a server that has ended; its own error goes first."""
    process.result()
    return ServeError("the server that messages are measured with ended before it was asked")


class _CountingProxy:
    """Stands before a local port and counts the bytes that pass.

    Attributes:
        port: The port to connect to.
        passed: Bytes towards the server, and bytes back.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((_LOOPBACK, 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self.passed = [0, 0]

    def __enter__(self) -> "_CountingProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        """Connect every client to the target, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection((_LOOPBACK, self._target))
                self._sockets += [client, server]
                self._start(0, client, server)
                self._start(1, server, client)

    def _start(self, direction: int, source: socket.socket, sink: socket.socket) -> None:
        arguments = (direction, source, sink)
        threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, direction: int, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.passed[direction] += len(data)
                sink.sendall(data)

            sink.shutdown(socket.SHUT_WR)
