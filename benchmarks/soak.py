"""Two processes on loopback under load: is every answer right, is memory flat, what does it cost?

    python -m benchmarks.soak [--seconds 60] [-o docs/serving.md]

With a minute a row it takes seven minutes. For each format and number of clients: every client is a
session of its own on a thread of this process, asks again at once, and compares each answer bit for
bit with the same call in one process. Beside it: the two halves called directly, and a plain server
of the same kind (grpc.aio, the same messages, threads and engine) with the whole model.
"""

import argparse
import asyncio
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import grpc
import grpc.aio
import numpy as np

import irsplit
import irsplit.runtime
from benchmarks.tables import markdown
from irsplit.base.errors import IrsplitError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions, open_engine
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import (
    InferRequest,
    InferResponse,
    to_array,
    to_tensor,
)

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "digits"
CUT = "bottleneck/relu"
CLIENTS = (1, 4, 16)
WARM = 0.25
"""Share of the time after which memory must not grow any more."""
ALLOWED_GROWTH_MB = 8.0

Call = dict[str, Any]


@dataclass
class Count:
    """What became of the calls of one row."""

    seconds: list[float] = field(default_factory=list[float])
    device: int = 0
    wrong: int = 0
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One load; times in milliseconds, memory in megabytes after the warm-up."""

    kind: str
    clients: int
    calls: int
    device: int
    wrong: int
    lost: int
    rate: float
    p50_ms: float
    p99_ms: float
    server_growth_mb: float
    client_growth_mb: float
    direct_ms: float
    plain_rate: float

    @property
    def holds(self) -> bool:
        flat = max(self.server_growth_mb, self.client_growth_mb) <= ALLOWED_GROWTH_MB
        return flat and not (self.wrong or self.lost or self.device) and self.calls > 0


@contextmanager
def process(*arguments: str) -> Generator[tuple[str, int]]:
    """A Python process that says where it listens; its gRPC address and its number."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as started:
        try:
            assert started.stdout is not None
            found = re.search(r"grpc://(\S+)", started.stdout.readline())
            assert found is not None
            yield found[1], started.pid
        finally:
            started.terminate()


def memory_mb(pid: int) -> float:
    """Resident memory, without what is shared with files."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def load(ask: Callable[[int], None], clients: int, seconds: float) -> None:
    """`ask(index)` again and again by so many threads, with indices that all differ."""
    ends = time.monotonic() + seconds

    def client(offset: int) -> None:
        index = offset
        while time.monotonic() < ends:
            ask(index)
            index += clients

    threads = [threading.Thread(target=client, args=(offset,)) for offset in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def soak(
    bundle: Path,
    kind: str,
    calls: Sequence[Call],
    address: str,
    pid: int,
    clients: int,
    seconds: float,
) -> Row:
    """Load with sessions; `direct_ms` and `plain_rate` are left to the caller."""
    local = irsplit.LocalSession(bundle)
    expected = [local.run(call)["logits"] for call in calls]
    count = Count()
    with ExitStack() as stack:
        url = f"grpc://{address}"
        sessions = [
            stack.enter_context(irsplit.runtime.connect(url, bundle, name="digits", timeout_s=10.0))
            for _ in range(clients)
        ]

        def ask(index: int) -> None:
            began, device, wrong, lost = time.perf_counter(), False, False, False
            try:
                answer = sessions[index % clients].infer(calls[index % len(calls)])
                device = answer.path == "device"
                wrong = not np.array_equal(answer.outputs["logits"], expected[index % len(calls)])
            except IrsplitError as error:
                print(f"lost: {error}", file=sys.stderr)
                lost = True
            took = time.perf_counter() - began
            with count.lock:
                count.seconds.append(took)
                count.device, count.wrong, count.lost = (
                    count.device + device,
                    count.wrong + wrong,
                    count.lost + lost,
                )

        load(ask, clients, WARM * seconds)
        before = memory_mb(pid), memory_mb(os.getpid())
        load(ask, clients, (1 - WARM) * seconds)
        growth = memory_mb(pid) - before[0], memory_mb(os.getpid()) - before[1]
    total = len(count.seconds)
    tail = quantiles(count.seconds, n=100)[-1]
    return Row(
        kind, clients, total, count.device, count.wrong, count.lost, total / seconds,
        1000 * median(count.seconds), 1000 * tail, *growth, 0.0, 0.0,
    )  # fmt: skip


def direct_ms(bundle: Path, calls: Sequence[Call], seconds: float) -> float:
    """Median of device half, frame and server half in this process."""
    device, server, times = (
        irsplit.DeviceSession(bundle),
        irsplit.ServerSession(bundle),
        list[float](),
    )
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for call in calls:
            began = time.perf_counter()
            server.resume(device.start(call))
            times.append(time.perf_counter() - began)
    return 1000 * median(times)


def plain_rate(
    address: str, requests: Sequence[InferRequest], clients: int, seconds: float
) -> float:
    """Answers a second of a server to whole-model requests."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{protobuf.SERVICE}/ModelInfer",
            request_serializer=_serialized,
            response_deserializer=protobuf.message("ModelInferResponse").FromString,
        )
        done = [0] * clients

        def ask(index: int) -> None:
            call(protobuf.request_to_message(requests[index % len(requests)]), timeout=30)
            done[index % clients] += 1

        load(ask, clients, seconds)
    return sum(done) / seconds


def plain_server(model: Path) -> None:
    """grpc.aio, two threads, the whole model: a server as one writes it without irsplit."""
    kind = model.suffix[1:]
    engine, lock = open_engine(model, kind, EngineOptions(threads=1)), threading.Lock()
    described = Manifest.load(os.environ["IRSPLIT_SOAK_BUNDLE"])

    def run(message: Any) -> Any:
        request = protobuf.request_from_message(message)
        inputs = [to_array(tensor) for tensor in request.inputs]
        if kind == "tflite":  # its interpreter holds its tensors
            with lock:
                outputs = engine.run(inputs)
        else:
            outputs = engine.run(inputs)
        tensors = [
            to_tensor(info, value) for info, value in zip(described.outputs, outputs, strict=True)
        ]
        return protobuf.response_to_message(InferResponse(request.model, "1", tensors, request.id))

    async def serve() -> None:
        threads = ThreadPoolExecutor(2)

        async def answer(message: Any, context: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(threads, run, message)

        handler = grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=protobuf.message("ModelInferRequest").FromString,
            response_serializer=_serialized,
        )
        server = grpc.aio.server()
        methods = grpc.method_handlers_generic_handler(protobuf.SERVICE, {"ModelInfer": handler})
        server.add_generic_rpc_handlers((methods,))
        print(
            f"listening on grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True
        )
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()


def rows(
    folder: Path, seconds: float, clients: Sequence[int] = CLIENTS, plain_s: float = 3.0
) -> Generator[Row]:
    """A row for each format and number of clients, as it is done."""
    pixels = (np.load(EXAMPLE / "test_images.npz")["images"][:64] / 255).astype(np.float32)
    for kind, axis in (("onnx", 1), ("tflite", -1)):
        model, bundle = EXAMPLE / f"digits.{kind}", folder / kind
        irsplit.compile_model(model, bundle, [CUT], autonomous=True)
        calls = [{"image": np.expand_dims(pixel, (0, axis))} for pixel in pixels]
        direct = direct_ms(bundle, calls, min(plain_s, seconds))
        infos = Manifest.load(bundle).inputs
        whole = [
            InferRequest("digits", "", [to_tensor(info, call[info.name]) for info in infos])
            for call in calls
        ]
        plain: dict[int, float] = {}
        os.environ["IRSPLIT_SOAK_BUNDLE"] = str(bundle)
        with process("benchmarks.soak", "--plain", str(model)) as (address, _):
            for number in clients:
                plain[number] = plain_rate(address, whole, number, min(plain_s, seconds))
        serve = (
            "irsplit",
            "serve",
            "--port",
            "0",
            "--no-http",
            "--workers",
            "2",
            "--log-level",
            "error",
        )
        with process(*serve, f"digits={bundle}") as (address, pid):
            for number in clients:
                row = soak(bundle, kind, calls, address, pid, number, seconds)
                yield replace(row, direct_ms=direct, plain_rate=plain[number])


_PAGE = """# What the service costs

Made by `python -m benchmarks.soak --seconds {seconds:g} -o docs/serving.md` on {machine}:
**measured**, {seconds:g} s a row; the machine's load average at the end was {load:.1f}.

The example, cut at `{cut}`, is served by a process of its own over gRPC. Every client is a session
on a thread of one other process; it asks again at once and compares each answer bit for bit with
the same call in one process. *halves* is the device's and the server's half called directly, one
after the other, frame included; *plain* a server of the same kind (grpc.aio, the same messages, two
threads, the same engine) with the whole model, asked by clients that do nothing else, where a
session also runs the device's half, makes the frame and checks the answer. *grew* is anonymous
memory after the first quarter of the time.

{table}

{verdict}
"""


def page(found: Sequence[Row], seconds: float) -> str:
    head = (
        "format", "clients", "calls", "on the device", "wrong", "lost", "p50 ms", "p99 ms",
        "halves p50 ms", "calls/s", "plain calls/s", "server grew MB", "clients grew MB",
    )  # fmt: skip
    cells = [
        (
            row.kind, str(row.clients), str(row.calls), str(row.device), str(row.wrong),
            str(row.lost),
            f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.direct_ms:.2f}", f"{row.rate:.0f}",
            f"{row.plain_rate:.0f}", f"{row.server_growth_mb:.1f}", f"{row.client_growth_mb:.1f}",
        )
        for row in found
    ]  # fmt: skip
    total = sum(row.calls for row in found)
    wrong, lost = sum(row.wrong for row in found), sum(row.lost for row in found)
    machine = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}"
    )
    return _PAGE.format(
        seconds=seconds,
        machine=machine,
        load=os.getloadavg()[0],
        cut=CUT,
        table=markdown(head, cells),
        verdict=f"In all: {total} calls, {wrong} wrong, {lost} lost.",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of every row; default 60")
    parser.add_argument("-o", "--output", type=Path, help="write the page here; default: print it")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain is not None:
        plain_server(arguments.plain)
        return 0
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        for row in rows(Path(folder), arguments.seconds):
            found.append(row)
            print(row, file=sys.stderr, flush=True)
    text = page(found, arguments.seconds)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text, encoding="utf-8")
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
