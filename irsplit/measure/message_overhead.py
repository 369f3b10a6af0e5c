"""What a frame and its answer cost beside engines, codecs and the link (`irsplit profile`).

A profile's parts are measured alone, again and again. In use they take turns: the runtime is around them, the encoder
finds cold what the engine has used, a server's thread wakes up. What a real client and a server in a process of its
own take beyond the sum of the parts is a cost of its own, paid once a round trip.
"""

import contextlib
import importlib.util
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from irsplit.base.errors import ServeError
from irsplit.engines.execute import Inputs
from irsplit.profiles import Message
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.run.segments import open_segment_of
from irsplit.runtime.run.session import DeviceSession
from irsplit.runtime.serving.client.session import connect

_BUNCH = 5
"""Calls timed together, the first of them after something else: as many of the same kind follow it in a hot loop."""
_COUNTED = 8
_PATIENCE_S = 60.0


def measure_message(bundle: Path, call: Inputs, options: EngineOptions, runs: int) -> Message:
    """What one message of a bundle with one cut costs; without grpc and a server, the device's runtime alone.

    The device's part is CPU time, which a busy machine does not change; the exchange is by the clock on the wall.
    """
    parts = _Parts(bundle, call, options)
    device_ns = parts.device_ns(runs)
    if any(importlib.util.find_spec(name) is None for name in ("grpc", "uvicorn")):
        return Message(device_ns)
    with _serving(bundle, options) as port:
        exchange_ns = _exchange_ns(parts, port, runs)
        with _Counter(port) as counter:
            up_bytes, down_bytes = _protocol_bytes(parts, counter)
    return Message(device_ns, exchange_ns, up_bytes, down_bytes)


def measure_device_message(
    bundle: Path, call: Inputs, options: EngineOptions, runs: int
) -> Message:
    """The device's part of a message, of a bundle whose first segment runs there and whose second does not."""
    return Message(_Near(bundle, call, options).device_ns(runs))


class _Near:
    """A bundle's first segment and the encoder, each alone, and the session that runs both together."""

    def __init__(self, bundle: Path, call: Inputs, options: EngineOptions) -> None:
        self.bundle, self.call, self.options = bundle, call, options
        self.session = DeviceSession(bundle, options)
        manifest = self.session.manifest
        self.boundary = manifest.boundaries[0]
        near = manifest.segments[0]
        engine = open_segment_of(manifest, 0, options)
        self.known: dict[str, Any] = dict(call)
        self._near = engine, [self.known[name] for name in near.inputs]
        self.known.update(zip(near.outputs, engine.run(self._near[1]), strict=True))
        self._sent = [self.known[spec.name] for spec in self.boundary.tensors]

    def compute(self) -> None:
        self._near[0].run(self._near[1])

    def encode(self) -> None:
        framing.encode(self.boundary, self._sent)

    def device_ns(self, runs: int) -> int:
        """What a call costs the device beyond engine and encoder."""
        turns = [self._turn_ns() for _ in range(runs + 1)][1:]
        return max(0, round(statistics.median(turns)))

    def _turn_ns(self) -> float:
        clock = time.process_time_ns
        alone = sum(_each_ns(part, clock) for part in (self.compute, self.encode))
        return _each_ns(lambda: self.session.start(self.call), clock) - alone


class _Parts(_Near):
    """Both segments of a bundle with one cut."""

    def __init__(self, bundle: Path, call: Inputs, options: EngineOptions) -> None:
        super().__init__(bundle, call, options)
        far = self.session.manifest.segments[1]
        engine = open_segment_of(self.session.manifest, 1, options)
        self.frame = framing.encode(self.boundary, self._sent)
        self._far = engine, [self.known[name] for name in far.inputs]
        outputs = dict(zip(far.outputs, engine.run(self._far[1]), strict=True))
        self.returned_bytes = sum(outputs[name].nbytes for name in far.results)

    def decode(self) -> None:
        framing.decode(self.boundary, self.frame)

    def compute_far(self) -> None:
        self._far[0].run(self._far[1])


def _each_ns(call: Callable[[], object], clock: Callable[[], int]) -> float:
    """Time of one of a bunch of calls."""
    began = clock()
    for _ in range(_BUNCH):
        call()
    return (clock() - began) / _BUNCH


def _exchange_ns(parts: _Parts, port: int, runs: int) -> int:
    """From the end of the device's part to the outputs, without link, codec and engine."""
    found: list[float] = []
    with connect(
        _url(port), parts.bundle, name=_NAME, timeout_s=_PATIENCE_S, options=parts.options
    ) as session:
        for _ in range(max(runs, 2) + 1):
            started = session.start(parts.call)
            began = time.perf_counter_ns()
            session.finish(started)
            took = time.perf_counter_ns() - began
            alone = (parts.encode, parts.decode, parts.compute_far)
            found.append(took - sum(_each_ns(part, time.perf_counter_ns) for part in alone))
    # What disturbs threads that wait for each other only makes them slower: the first quartile, not the median.
    return max(0, round(statistics.quantiles(found[1:], n=4)[0]))


def _protocol_bytes(parts: _Parts, counter: "_Counter") -> tuple[int, int]:
    """Bytes on the wire beyond the frame and the raw results."""
    url = _url(counter.port)
    with connect(
        url, parts.bundle, name=_NAME, timeout_s=_PATIENCE_S, options=parts.options
    ) as session:
        session.infer(parts.call)
        before = tuple(counter.passed)
        for _ in range(_COUNTED):
            session.infer(parts.call)
        up, down = (
            (now - then) // _COUNTED for now, then in zip(counter.passed, before, strict=True)
        )
    return max(0, up - len(parts.frame)), max(0, down - parts.returned_bytes)


_NAME = "measured"


def _url(port: int) -> str:
    return f"grpc://127.0.0.1:{port}"


@contextlib.contextmanager
def _serving(bundle: Path, options: EngineOptions) -> Generator[int]:
    """A server process for the bundle; yields its port."""
    command = [
        sys.executable,
        "-m",
        "irsplit",
        "serve",
        "--port",
        "0",
        "--no-http",
        "--workers",
        "1",
    ]
    command += ["--threads", str(options.threads), "--log-level", "error", f"{_NAME}={bundle}"]
    command += [f"--provider={each}" for each in options.providers]
    command += [f"--delegate={each}" for each in options.delegates]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                raise ServeError(
                    "the server that messages are measured with did not start; see what it said above"
                )
            yield int(told.rsplit(":", 1)[1])
        finally:
            process.terminate()


class _Counter:
    """Stands before a local port and counts what passes, up and down."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self.passed = [0, 0]

    def __enter__(self) -> "_Counter":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for direction, pair in enumerate(((near, far), (far, near))):
                    threading.Thread(
                        target=self._pass, args=(direction, *pair), daemon=True
                    ).start()

    def _pass(self, direction: int, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.passed[direction] += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
