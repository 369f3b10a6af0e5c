"""What the service adds to calling the halves: latency of a 100 kB frame, and requests a second.

    python -m benchmarks.serving [--seconds 5] [--json]

On loopback, with the server on the last CPU and the clients on the others. Baselines: a bare echo
of the same message by grpc.aio, the two halves called directly, and the whole model on the same
server.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import irsplit
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import InferRequest, WireTensor, frame_tensor

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
ELEMENTS = 25_600
"""float32 elements of a frame of 100 kB."""


def echo() -> None:
    """A grpc.aio server that answers the same request with nothing: what the library takes."""

    async def answer(message: Any, context: Any) -> Any:
        return protobuf.message("ModelInferResponse")()

    async def run() -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 26)])
        handler = grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=protobuf.message("ModelInferRequest").FromString,
            response_serializer=protobuf.message("ModelInferResponse").SerializeToString,
        )
        methods = grpc.method_handlers_generic_handler(protobuf.SERVICE, {"ModelInfer": handler})
        server.add_generic_rpc_handlers((methods,))
        print(
            f"listening on grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True
        )
        await server.start()
        await server.wait_for_termination()

    asyncio.run(run())


class Process:
    """A server process on the last CPU."""

    def __init__(self, arguments: Sequence[str]) -> None:
        last = str((os.cpu_count() or 1) - 1)
        command = ["taskset", "-c", last, sys.executable, "-m", *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().split("grpc://")[1].split()[0]

    def __enter__(self) -> Callable[[InferRequest], Any]:
        self._channel = grpc.insecure_channel(self.address, [("grpc.max_send_message_length", -1)])
        call = self._channel.unary_unary(
            f"/{protobuf.SERVICE}/ModelInfer",
            request_serializer=_serialized,
            response_deserializer=protobuf.message("ModelInferResponse").FromString,
        )
        return lambda request: call(protobuf.request_to_message(request), timeout=30)

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.communicate()


def large_frame(folder: Path) -> tuple[Path, bytes, Any]:
    """A bundle whose server half finds the largest of 100 kB; a frame, and what it gives."""
    nodes = [
        helper.make_node("Neg", ["x"], ["cut"]),
        helper.make_node("ReduceMax", ["cut"], ["y"], keepdims=0),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", [ELEMENTS]), ("y", []))
    ]
    graph = helper.make_graph(nodes, "largest", infos[:1], infos[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "largest.onnx",
    )
    irsplit.compile_model(folder / "largest.onnx", folder / "largest", ["cut"], codec="raw")
    values = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    frame = bytes(irsplit.DeviceSession(folder / "largest").start({"x": values}))
    return folder / "largest", frame, np.max(-values)


def median_ms(call: Callable[[], Any], count: int) -> float:
    for _ in range(count // 10):
        call()
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def rate(call: Callable[[], Any], clients: int, seconds: float) -> float:
    """Answers a second to clients that each ask again at once."""
    ends, counts = time.monotonic() + seconds, [0] * clients

    def client(index: int) -> None:
        while time.monotonic() < ends:
            call()
            counts[index] += 1

    threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def latency(folder: Path) -> dict[str, float]:
    bundle, frame, expected = large_frame(folder)
    request = InferRequest("largest", "", [frame_tensor(frame)])
    direct = irsplit.ServerSession(bundle)
    assert direct.resume(frame)["y"] == expected
    found = {"direct": median_ms(lambda: direct.resume(frame), 1000)}
    with Process(["benchmarks.serving", "--echo"]) as call:
        found["grpc.aio echo"] = median_ms(lambda: call(request), 2000)
    with Process(
        ["irsplit", "serve", "--port", "0", "--no-http", "--log-level", "error", str(bundle)]
    ) as call:
        assert np.frombuffer(call(request).raw_output_contents[0], np.float32)[0] == expected
        found["irsplit serve"] = median_ms(lambda: call(request), 2000)
    return found


def throughput(folder: Path, seconds: float) -> dict[str, float]:
    irsplit.compile_model(DIGITS, folder / "digits", ["bottleneck/relu"])
    image = np.random.default_rng(0).random((1, 1, 16, 16), np.float32)
    frame = bytes(irsplit.DeviceSession(folder / "digits").start({"image": image}))
    whole = InferRequest("digits", "", [WireTensor("image", "FP32", image.shape, image.tobytes())])
    split = InferRequest("digits", "", [frame_tensor(frame)])
    expected: Any = onnxruntime.InferenceSession(DIGITS).run(None, {"image": image})[0]
    found: dict[str, float] = {}
    with Process(
        [
            "irsplit",
            "serve",
            "--port",
            "0",
            "--no-http",
            "--log-level",
            "error",
            str(folder / "digits"),
        ]
    ) as call:
        for name, request in (("second half", split), ("whole model", whole)):
            given = np.frombuffer(call(request).raw_output_contents[0], np.float32).reshape(1, 10)
            np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)
            for clients in (1, 4, 16):
                found[f"{name}, {clients} clients"] = rate(
                    lambda request=request: call(request), clients, seconds
                )
    return found


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of every throughput figure")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        echo()
        return
    os.sched_setaffinity(0, set(range(max((os.cpu_count() or 1) - 1, 1))))
    with tempfile.TemporaryDirectory(prefix="irsplit-") as name:
        found = {
            "p50_ms": latency(Path(name)),
            "requests_s": throughput(Path(name), arguments.seconds),
        }
    machine = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    load = {"load_average": os.getloadavg()[0], "grpcio": grpc.__version__}
    if arguments.json:
        print(json.dumps(machine | load | found, indent=1))
        return
    print(machine | load)
    for title, figures in found.items():
        print(title, *(f"  {key:24} {value:8.3f}" for key, value in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
