"""End-to-end latency of a model's cuts by the clock: client, emulated link, server process.

The client is the real one (`irsplit.runtime.connect` over gRPC), the server `irsplit serve` in a
process of its own, the link the proxy of `benchmarks.link`. The slow device is this thread, which
computes and encodes everything as many times as it is slower. Cuts race: those that cannot win any
more drop out, so that slow links stay affordable.
"""

import contextlib
import math
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from benchmarks.link import Proxy
from irsplit.engines.execute import Inputs
from irsplit.profiles import Link
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.run.engines import Engine, EngineOptions
from irsplit.runtime.serving.client.session import RemoteSession, connect

ONE_THREAD = EngineOptions(threads=1)
_PATIENCE_S = 120.0
_HEATS = ((1, 1.5), (3, 1.2), (9, 1.1))
"""After so many runs, who is slower than the best by such a factor drops out."""


@contextlib.contextmanager
def serving(bundles: Mapping[str, Path]) -> Generator[int]:
    """A server process with one thread for these bundles; yields its port."""
    names = [f"{name}={bundle}" for name, bundle in bundles.items()]
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
        *names,
    ]
    process = subprocess.Popen(
        [*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def split_runs(
    bundles: Mapping[str, Path], call: Inputs, over: Link, slowdown: int
) -> Generator[dict[str, Callable[[], float]]]:
    """For every bundle a function that runs it once over the link and tells the seconds."""
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(stack.enter_context(serving(bundles)), over).running())
        runs: dict[str, Callable[[], float]] = {}
        for name, bundle in bundles.items():
            url = f"grpc://127.0.0.1:{proxy.port}"
            session = connect(url, bundle, name=name, timeout_s=_PATIENCE_S, options=ONE_THREAD)
            stack.enter_context(session)
            runs[name] = lambda session=session: _run_split(session, call, slowdown)
        yield runs


def _run_split(session: RemoteSession, call: Inputs, slowdown: int) -> float:
    began = time.perf_counter()
    for _ in range(slowdown - 1):
        started = session.start(call)
        boundary = session.manifest.boundaries[started.stop - 1]
        framing.encode(boundary, [started.values[spec.name] for spec in boundary.tensors])
    answer = session.finish(session.start(call))
    assert answer.path == "server", answer.reason
    return time.perf_counter() - began


def run_on_device(engine: Engine, call: Inputs, names: Sequence[str], slowdown: int) -> float:
    """Seconds of the whole model on the slow device."""
    began = time.perf_counter()
    for _ in range(slowdown):
        engine.run([call[name] for name in names])
    return time.perf_counter() - began


@contextlib.contextmanager
def whole_on_server(
    engine: Engine, call: Inputs, names: Sequence[str], over: Link
) -> Generator[Callable[[], float]]:
    """A function that sends the raw inputs over the link, runs the whole model and gets outputs.

    Plain TCP without a protocol: the least that any server would need.
    """
    inputs = [call[name] for name in names]
    sent = b"".join(array.tobytes() for array in inputs)
    received = sum(output.nbytes for output in engine.run(inputs))
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError), listener, listener.accept()[0] as connection:
            while _receive(connection, len(sent)):
                connection.sendall(b"".join(output.tobytes() for output in engine.run(inputs)))

    thread = threading.Thread(target=answer)
    thread.start()
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(listener.getsockname()[1], over).running())
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))

        def run() -> float:
            began = time.perf_counter()
            connection.sendall(sent)
            _receive(connection, received)
            return time.perf_counter() - began

        yield run
    thread.join()


def _receive(connection: socket.socket, size: int) -> bool:
    """Take so many bytes; False when the other side has gone."""
    while size:
        taken = len(connection.recv(min(size, 1 << 16)))
        if not taken:
            return False
        size -= taken
    return True


def race(
    runs: Mapping[str, Callable[[], float]],
    least_s: Mapping[str, float],
    rounds: int,
    always: Sequence[str],
) -> dict[str, float]:
    """Median seconds of all who might be the best, run in turns; those in `always` stay in.

    `least_s` is what a run takes at least: who is above the best by then is not run at all.
    Nobody's first run counts.
    """
    first: dict[str, float] = {}
    for name in sorted(runs, key=lambda name: (name not in always, least_s[name])):
        if name in always or least_s[name] <= min(first.values(), default=math.inf):
            first[name] = runs[name]()
    times: dict[str, list[float]] = {name: [] for name in first}
    for done in range(rounds):
        for name in times:
            times[name].append(runs[name]())
        medians = {name: statistics.median(found) for name, found in times.items()}
        factor = dict(_HEATS).get(done + 1)
        if factor is not None:
            best = min(medians.values())
            times = {
                name: times[name]
                for name in times
                if name in always or medians[name] <= factor * best
            }
    return {name: statistics.median(found) for name, found in times.items()}
