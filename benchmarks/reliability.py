"""Break the link and the server in every way the table names, and count what requests become.

python -m benchmarks.reliability [-o docs/reliability.md]     loopback only, about six minutes

Every answer is compared bit for bit with the same call in one process. "Lost" are calls that ended
with neither an answer nor an IrsplitError; "late" are those that took longer than their deadline
and a quarter of a second.
"""

import argparse
import contextlib
import http.client
import itertools
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import irsplit
import irsplit.runtime
from benchmarks import http2
from benchmarks.link import PERFECT, USHAKOV_3G
from benchmarks.stage import (
    DIGITS,
    NEAR,
    PATIENCE,
    ROOT,
    Call,
    Count,
    Stage,
    ask,
    ask_once,
    meanwhile,
)
from benchmarks.tables import markdown
from irsplit.compilation.delta import write_delta
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.serving.client.transport import Credentials, TransportError, open_transport
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
    frame_tensor,
)
from irsplit.runtime.serving.server.connections import raise_file_limit
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.server import ServerOptions, serving


@dataclass(frozen=True)
class Row:
    fault: str
    count: Count
    remark: str


def no_fault(stage: Stage, count: Count) -> str:
    ask(stage, stage.url("grpc"), count, 3)
    ask(stage, stage.url("http"), count, 3)
    return "gRPC, then HTTP"


def server_killed(stage: Stage, count: Count, scheme: str) -> str:
    with meanwhile((1, stage.kill), (2, stage.restart)):
        ask(stage, stage.url(scheme), count, 8)
    return "SIGKILL under load after 1 s, started again 2 s later"


def server_frozen(stage: Stage, count: Count, scheme: str) -> str:
    pid = stage.process.pid
    with meanwhile(
        (1, lambda: os.kill(pid, signal.SIGSTOP)), (4, lambda: os.kill(pid, signal.SIGCONT))
    ):
        ask(stage, stage.url(scheme), count, 8, timeout_s=1.0)
    return "SIGSTOP for 4 s; deadline 1 s"


def link_cut(stage: Stage, count: Count, scheme: str) -> str:
    with stage.behind(PERFECT, scheme) as (url, proxy), meanwhile((1, proxy.cut), (3, proxy.mend)):
        ask(stage, url, count, 7)
    return "connections reset and refused for 3 s"


def half_open(stage: Stage, count: Count, scheme: str) -> str:
    with (
        stage.behind(PERFECT, scheme) as (url, proxy),
        meanwhile((1, proxy.freeze), (4, proxy.mend)),
    ):
        ask(stage, url, count, 8, timeout_s=1.0)
    return "connections stay, nothing passes for 4 s; deadline 1 s"


def heavy_loss(stage: Stage, count: Count, scheme: str) -> str:
    with stage.behind(replace(NEAR, jitter_ns=2 * 10**6, loss_ppm=300_000), scheme) as (url, _):
        ask(stage, url, count, 10)
    return "30 % of packets, one-way delay 10 +- 2 ms; TCP sends them again"


def damaged_packets(stage: Stage, count: Count, scheme: str) -> str:
    with stage.behind(replace(PERFECT, corruption_ppm=10_000), scheme) as (url, _):
        ask(stage, url, count, 5)
    return "a bit flipped in 1 % of packets, unseen by TCP"


def damage_everywhere(stage: Stage, count: Count, scheme: str) -> str:
    with stage.behind(replace(PERFECT, corruption_ppm=500_000), scheme) as (url, _):
        ask(stage, url, count, 5)
    return "a bit flipped in half of the packets"


def outage(stage: Stage, count: Count, scheme: str) -> str:
    now = time.monotonic()
    with stage.behind(NEAR, scheme, [(now + 2, now + 22)]) as (url, _):
        ask(stage, url, count, 28, timeout_s=1.0, pause_s=0.05)
    return "nothing passes for 20 s; deadline 1 s"


def paper_link(stage: Stage, count: Count, scheme: str) -> str:
    with stage.behind(USHAKOV_3G, scheme) as (url, _):
        ask(stage, url, count, 15, timeout_s=3.0)
    return "1024 kbit/s, 100 +- 20 ms, 1 % loss, 0.1 % damaged; deadline 3 s"


def answers_that_drip(stage: Stage, count: Count, scheme: str) -> str:
    with stage.behind(PERFECT, scheme, drip_s=0.1) as (url, _):
        _ask_stubbornly(url, stage.bundle, "digits", stage.calls, stage.expected, count)
    return (
        "what the server sends comes byte by byte, 10 a second; deadline 1 s; tried again with "
        "every call"
    )


def slow_link(stage: Stage, count: Count, scheme: str) -> str:
    """An honest server, whose frames and answers of 100 kB take 3.4 s each way."""
    bundle = _negated(stage.folder / f"negated-{scheme}")
    values = [
        np.random.default_rng(seed).standard_normal(25_600).astype(np.float32) for seed in range(8)
    ]
    calls = [{"x": each} for each in values]
    over = replace(PERFECT, up_bit_s=240_000, down_bit_s=240_000, rtt_ns=100 * 10**6)
    with stage.instead(bundle=bundle), stage.behind(over, scheme) as (url, _):
        _ask_stubbornly(url, bundle, "", calls, values, count)
    return (
        "240 kbit/s, 100 ms; frames and answers of 100 kB; deadline 1 s; tried again with every "
        "call"
    )


def _ask_stubbornly(
    url: str, bundle: Path, name: str, calls: Sequence[Call], expected: Sequence[Any], count: Count
) -> None:
    """Four callers, eight calls each, over a session that never gives the link up; deadline 1 s."""
    patience = replace(PATIENCE, breaker_failures=1_000_000)
    with irsplit.runtime.connect(url, bundle, name=name, retry_policy=patience) as session:

        def caller(offset: int) -> None:
            for index in range(offset, 32, 4):
                ask_once(
                    session, calls[index % len(calls)], expected[index % len(calls)], 1.0, count
                )

        threads = [threading.Thread(target=caller, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _negated(folder: Path) -> Path:
    """A bundle that negates 100 kB on the device, and once more on the server."""
    nodes = [helper.make_node("Neg", ["x"], ["cut"]), helper.make_node("Neg", ["cut"], ["logits"])]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [25_600]) for name in ("x", "logits")
    ]
    graph = helper.make_graph(nodes, "negated", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder.with_suffix(".onnx"))
    irsplit.compile_model(
        folder.with_suffix(".onnx"), folder, ["cut"], codec="raw", autonomous=True
    )
    return folder


def wrong_answers(stage: Stage, count: Count, scheme: str) -> str:
    """Of a server that is ours but for what it puts into its answers, which it signs."""
    kinds = itertools.cycle(WRONG)
    honest = ServedBundle.infer

    def lies(bundle: ServedBundle, request: InferRequest) -> InferResponse:
        return next(kinds)(honest(bundle, request))

    options = ServerOptions(port=0, http_port=0)
    with (
        serving([f"digits={stage.bundle}"], options) as server,
        mock.patch.object(ServedBundle, "infer", lies),
    ):
        port = server.port if scheme == "grpc" else server.http_port
        ask(stage, f"{scheme}://127.0.0.1:{port}", count, 3)
    return (
        f"a server signs answers of {len(WRONG)} wrong kinds: without outputs, of another name, "
        "shape or type, with a frame, to another frame, or that a session is lost"
    )


def _first(**fields: Any) -> Callable[[InferResponse], InferResponse]:
    """Another first output."""
    return lambda answer: replace(answer, outputs=[replace(answer.outputs[0], **fields)])


def _session_lost(_: InferResponse) -> InferResponse:
    raise ServiceError(Code.SESSION_LOST, "the session is lost")


WRONG: tuple[Callable[[InferResponse], InferResponse], ...] = (
    lambda answer: replace(answer, outputs=[]),
    lambda answer: replace(answer, outputs=[*answer.outputs, frame_tensor(b"frame")]),
    lambda answer: replace(answer, answers="0123456789abcdef"),
    _first(name="Logits"),
    _first(shape=(10,)),
    _first(shape=(1, 11), data=bytes(44)),
    _first(shape=(2, 10), data=bytes(80)),
    _first(datatype="INT32"),
    _session_lost,
)


def slow_readers(stage: Stage, count: Count) -> str:
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for scheme in ("http", "grpc"):
            for _ in range(100):
                connection = stack.enter_context(
                    socket.create_connection(("127.0.0.1", stage.ports[scheme]))
                )
                connection.sendall(head if scheme == "http" else b"PRI * HTTP/2.0\r\n")
        ask(stage, stage.url("http"), count, 3)
        ask(stage, stage.url("grpc"), count, 3)
    return "200 connections that began a request and never go on"


def bodies_without_end(stage: Stage, count: Count) -> str:
    """Far more than the server may hold, over both doors; then others come."""
    part, limits = 3 << 20, ("--max-frame-bytes", str(4 << 20), "--max-held-bytes", str(32 << 20))
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n"
    call = (
        http2.OPENING
        + http2.head(1, "ModelInfer")
        + http2.data(1, http2.message(4_000_000) + bytes(60_000))
    )
    with stage.instead(limits=limits), contextlib.ExitStack() as stack:
        before = stage.memory_bytes()
        for data, scheme in [(head + bytes(part), "http")] * 60 + [(call, "grpc")] * 20:
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", stage.ports[scheme]))
            )
            threading.Thread(target=_sent, args=(connection, data)).start()
        ask(stage, stage.url("http"), count, 4, timeout_s=5.0)
        held = stage.metric("held_bytes") / 1e6
        ask(stage, stage.url("grpc"), count, 4, timeout_s=5.0)
        growth = max(stage.memory_bytes() - before, 0) / 1e6
        pushed_out = stage.metric("pushed_out_total")
    return (
        "60 connections send 3 of 4 MB over HTTP, 20 over gRPC what fits, and stop; the server "
        f"may hold 33 MB, held {held:.0f} MB, told {pushed_out:.0f} to come back later, and grew "
        f"by {growth:.0f} MB"
    )


def _sent(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server has closed it
        connection.sendall(data)


def heads_without_end(stage: Stage, count: Count) -> str:
    """Headers that go on for ever, and JSON beyond its limit."""
    before, refused = stage.memory_bytes(), [0]
    begin = b" /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
    objects = (
        b"POST" + begin + b"content-length: 6000000\r\n\r\n" + b'{"inputs": [' + b" " * 5_999_988
    )

    def attack() -> None:
        for data in [b"GET" + begin + b"x: y\r\n" * 200_000, objects] * 50:
            with socket.create_connection(("127.0.0.1", stage.ports["http"])) as connection:
                _sent(connection, data)
                with contextlib.suppress(ConnectionError):
                    answer = connection.recv(100)
                    refused[0] += answer == b"" or answer.startswith(b"HTTP/1.1 4")
                    continue
                refused[0] += 1  # closed before all was sent

    with meanwhile((0, attack)):
        ask(stage, stage.url("http"), count, 3)
        ask(stage, stage.url("grpc"), count, 3)
    growth = max(stage.memory_bytes() - before, 0) / 1e6
    return (
        f"100 requests with 1.2 MB of headers or 6 MB of JSON: {refused[0]} refused; the server "
        f"grew by {growth:.0f} MB"
    )


def sessions_over(stage: Stage, count: Count) -> str:
    """Streams of a stateful bundle one after the other, at a server that keeps two."""
    bundle = _counter(stage.folder / "counter")
    call = {"x": np.ones((1, 2), np.float32)}
    with stage.instead(bundle=bundle, limits=("--max-sessions", "2")):
        for scheme in ("grpc", "http"):
            for _ in range(50):
                with irsplit.runtime.connect(
                    stage.url(scheme), bundle, retry_policy=PATIENCE
                ) as session:
                    for step in (1, 2):
                        ask_once(session, call, np.full((1, 2), step, np.float32), 5.0, count)
    return (
        "100 streams of a stateful bundle that end, one after the other, at a server that keeps 2"
    )


def _counter(folder: Path) -> Path:
    """A bundle that counts its calls."""
    nodes = [
        helper.make_node("Abs", ["x"], ["cut"]),
        helper.make_node("Add", ["cut", "total"], ["logits"]),
        helper.make_node("Identity", ["logits"], ["next"]),
    ]
    x, total, logits, after = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])
        for name in ("x", "total", "logits", "next")
    )
    graph = helper.make_graph(nodes, "counter", [x, total], [logits, after])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder.with_suffix(".onnx"))
    irsplit.compile_model(folder.with_suffix(".onnx"), folder, ["cut"], state=["total=next"])
    return folder


def answers_not_read(stage: Stage, count: Count) -> str:
    """Requests whose answers stay: pipelined over HTTP; many gRPC streams without a window."""
    before, stop = stage.memory_bytes(), threading.Event()
    asked = [0] * 40

    def never_read(index: int) -> None:
        scheme = ("http", "grpc")[index % 2]
        with socket.create_connection(("127.0.0.1", stage.ports[scheme])) as connection:
            connection.settimeout(0.5)
            connection.sendall(b"" if scheme == "http" else http2.NO_WINDOW)
            while not stop.is_set():
                with contextlib.suppress(OSError):  # nothing more fits, or the server has closed it
                    number = asked[index]
                    connection.sendall(
                        _PIPELINED if scheme == "http" else _metadata(2 * number + 1)
                    )
                    asked[index] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=never_read, args=(index,)) for index in range(len(asked))]
    for thread in threads:
        thread.start()
    ask(stage, stage.url("http"), count, 6)
    ask(stage, stage.url("grpc"), count, 6)
    growth = max(stage.memory_bytes() - before, 0) / 1e6
    stop.set()
    for thread in threads:
        thread.join()
    began = time.monotonic()
    stage.process.terminate()
    code = stage.process.wait(30)
    took = time.monotonic() - began
    stage.restart()
    return (
        f"{len(asked)} connections sent {sum(asked)} requests and read no answer, gRPC with a "
        f"window of 0; the server grew by {growth:.0f} MB, and ended with code {code} {took:.1f} "
        "s after SIGTERM"
    )


def _metadata(stream: int) -> bytes:
    return http2.head(stream, "ServerMetadata") + http2.data(stream, http2.message(0), ends=True)


_PIPELINED = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"


def many_connections(stage: Stage, count: Count) -> str:
    with contextlib.ExitStack() as stack:
        for scheme in ("http", "grpc"):
            for _ in range(400):
                stack.enter_context(socket.create_connection(("127.0.0.1", stage.ports[scheme])))
        ask(stage, stage.url("http"), count, 3)
        ask(stage, stage.url("grpc"), count, 3)
    return "800 connections that say nothing"


def told_to_stop(stage: Stage, count: Count, scheme: str) -> str:
    codes: list[int] = []

    def stop() -> None:
        stage.process.terminate()
        codes.append(stage.process.wait())

    with meanwhile((1, stop), (1, stage.restart)):
        ask(stage, stage.url(scheme), count, 6)
    return (
        f"SIGTERM under load: the server answers what it took and ends with code {codes[0]}; "
        "started again 1 s later"
    )


def no_room_for_the_log(stage: Stage, count: Count) -> str:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with stage.instead(log=full, level="debug"):
            ask(stage, stage.url("grpc"), count, 3)
            ask(stage, stage.url("http"), count, 3)
    finally:
        os.close(full)
    return "every line of the server's log fails (/dev/full)"


def replaced_while_serving(stage: Stage, count: Count) -> str:
    def replace_it() -> None:
        irsplit.compile_model(DIGITS / "digits.onnx", stage.served, ["down/relu"])

    with meanwhile((1, replace_it)):
        ask(stage, stage.url(), count, 5)
    with stage.instead():
        ask(stage, stage.url(), count, 3)
    shutil.rmtree(stage.served)
    shutil.copytree(stage.bundle, stage.served)
    stage.kill()
    stage.restart()
    return (
        "another build in the served folder: the old one is served on; after a restart, frames "
        "are refused by name"
    )


def other_token(stage: Stage, count: Count, scheme: str) -> str:
    with stage.instead(token="the new one"):
        ask(stage, stage.url(scheme), count, 3)
    return "the server's token was changed, the device's was not"


def hostile(stage: Stage, count: Count) -> str:
    before, random = stage.memory_bytes(), Random(5)
    answered = [0]
    frame = bytes(irsplit.DeviceSession(stage.bundle).start(stage.calls[0]))

    def attack() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stage.ports["http"], timeout=10)
        for index in range(10_000):
            body, headers = _malformed(index, frame, random)
            connection.request("POST", "/v2/models/digits/infer", body, headers)
            with connection.getresponse() as answer:
                answer.read()
                answered[0] += 400 <= answer.status < 500
        connection.close()

    thread = threading.Thread(target=attack)
    thread.start()
    while thread.is_alive():
        ask(stage, stage.url(), count, 1)
    thread.join()
    growth = max(stage.memory_bytes() - before, 0) / 1e6
    return f"{answered[0]} of 10 000 refused with a 4xx status; the server grew by {growth:.0f} MB"


def _malformed(index: int, frame: bytes, random: Random) -> tuple[bytes, dict[str, str]]:
    """A request that is none: JSON that lies about its tensors, damaged frames, noise."""
    kind = index % 5
    if kind == 0:
        return random.randbytes(random.randrange(300)), {}
    size = (1 << 62) if kind == 1 else len(frame)
    tensor = (
        f'{{"name":"frame","datatype":"UINT8","shape":[{size}],'
        f'"parameters":{{"binary_data_size":{size}}}}}'
    )
    head = f'{{"inputs":[{tensor}]}}'.encode()
    length = {
        "Inference-Header-Content-Length": str(
            len(head) if kind != 2 else random.randrange(1 << 40)
        )
    }
    position = random.randrange(len(frame))
    flipped = bytes([frame[position] ^ (1 << random.randrange(8))])
    damaged = frame[:position] + flipped + frame[position + 1 :]
    return head + (damaged if kind == 3 else frame[:position]), length


def other_build(stage: Stage, count: Count) -> str:
    with irsplit.runtime.connect(
        stage.url(), stage.lone, name="digits", retry_policy=PATIENCE
    ) as session:
        for call, expected in zip(stage.calls[:20], stage.expected, strict=False):
            ask_once(session, call, expected, 2.0, count)
    return (
        "the device has another build, and no rest to go on with: each call is an error that says "
        "so"
    )


def full_disk(stage: Stage, count: Count) -> str:
    """`irsplit apply` where files cannot grow beyond 20 kB."""
    write_delta(stage.lone, stage.bundle, stage.folder / "patch")
    command = [
        sys.executable,
        "-m",
        "irsplit",
        "apply",
        str(stage.lone),
        str(stage.folder / "patch"),
        "-o",
    ]
    target = stage.folder / "full" / "new"
    target.parent.mkdir()
    limit = (20_000, 20_000)
    done = subprocess.run(
        [*command, str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    count.asked = 1
    count.refused = int(done.returncode == 2)
    count.lost = 1 - count.refused
    left = len(list(target.parent.iterdir()))
    return (
        f"`irsplit apply` with no room for the files: exit code {done.returncode}, {left} files "
        "left behind"
    )


def rows_beyond_reason(stage: Stage, count: Count) -> str:
    """A million rows of zeros in some kilobytes, again and again."""
    path, folder = stage.folder / "rows.onnx", stage.folder / "rows"
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in _WEIGHTS.items()
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 16), ("y", 4))
    )
    nodes = [helper.make_node("Relu", ["x"], ["cut"])]
    nodes += [
        helper.make_node("MatMul", pair, [made])
        for *pair, made in (("cut", "w1", "wide"), ("wide", "w2", "y"))
    ]
    graph = helper.make_graph(nodes, "rows", [x], [y], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    boundary = irsplit.compile_model(path, folder, ["cut"]).manifest.boundaries[0]
    frame = framing.encode(boundary, [np.zeros((1_000_000, 16), np.float32)])
    refused = [0]

    def attack() -> None:
        for scheme in ("grpc", "http"):
            for _ in range(100):
                refused[0] += _refuses(
                    stage.url(scheme), InferRequest("rows", "", [frame_tensor(frame)])
                )

    with stage.instead(also=[folder]):
        before = stage.memory_bytes()
        with meanwhile((0, attack)):
            ask(stage, stage.url("http"), count, 3)
            ask(stage, stage.url("grpc"), count, 3)
        after = stage.memory_bytes()
    return (
        f"200 frames of {len(frame)} bytes and 1 000 000 rows, {refused[0]} refused; the server "
        f"had {before / 1e6:.0f} MB before and {after / 1e6:.0f} MB after; worst call "
        f"{1e3 * count.worst_s:.0f} ms"
    )


_WEIGHTS = {"w1": (16, 1024), "w2": (1024, 4)}


def _refuses(url: str, request: InferRequest) -> bool:
    transport = open_transport(url, Credentials())
    try:
        transport.infer(request, 30.0)
    except TransportError as error:
        return error.code is Code.TOO_LARGE
    finally:
        transport.close()
    return False


def parts_beyond_reason(stage: Stage, count: Count) -> str:
    """Empty inputs, 60 000 a request."""
    tensor = '{"name":"frame","datatype":"UINT8","shape":[0],"data":[]}'
    body = f'{{"inputs":[{",".join([tensor] * 60_000)}]}}'.encode()
    refused = [0]

    def attack() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stage.ports["http"], timeout=30)
        with grpc.insecure_channel(f"127.0.0.1:{stage.ports['grpc']}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(50):
                connection.request("POST", "/v2/models/digits/infer", body)
                with connection.getresponse() as answer:
                    answer.read()
                    refused[0] += answer.status == 413
                with contextlib.suppress(grpc.RpcError):
                    infer(b"\x2a\0" * 2_000_000, timeout=30)
                    continue
                refused[0] += 1
        connection.close()

    before = stage.memory_bytes()
    with meanwhile((0, attack)):
        ask(stage, stage.url("http"), count, 3)
        ask(stage, stage.url("grpc"), count, 3)
    after = stage.memory_bytes()
    return (
        f"50 requests of {len(body) / 1e6:.1f} MB of JSON with 60 000 empty inputs, 50 over gRPC "
        f"with 2 000 000: {refused[0]} refused; the server had {before / 1e6:.0f} MB before and "
        f"{after / 1e6:.0f} MB after; worst call {1e3 * count.worst_s:.0f} ms"
    )


def idle_connections(stage: Stage, count: Count) -> str:
    """More connections than the server may have files."""
    raise_file_limit()
    limited = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))  # noqa: E731
    with stage.instead(prepare=limited), contextlib.ExitStack() as stack:
        before = stage.memory_bytes()
        for _ in range(1024):
            for scheme in ("http", "grpc"):
                with contextlib.suppress(OSError):
                    stack.enter_context(
                        socket.create_connection(("127.0.0.1", stage.ports[scheme]), 10)
                    )
        ask(stage, stage.url("http"), count, 3)
        ask(stage, stage.url("grpc"), count, 3)
        after = stage.memory_bytes()
    return (
        "1024 idle connections to each frontend of a server that may open 1024 files; it had "
        f"{before / 1e6:.0f} MB before and {after / 1e6:.0f} MB after; worst call "
        f"{1e3 * count.worst_s:.0f} ms"
    )


def wrong_tokens(stage: Stage, count: Count) -> str:
    """Guesses over many connections, beside clients that have the token."""
    guesses, stop = [0], threading.Event()

    def guess() -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", stage.ports["http"], timeout=30)
            connection.request("GET", "/v2", headers={"authorization": "Bearer guess"})
            with contextlib.closing(connection), connection.getresponse() as answer:
                guesses[0] += answer.status == 401

    threads = [threading.Thread(target=guess) for _ in range(32)]
    with stage.instead(token="right"):
        for thread in threads:
            thread.start()
        ask(stage, stage.url("http"), count, 3, token="right")
        ask(stage, stage.url("grpc"), count, 3, token="right")
        stop.set()
        for thread in threads:
            thread.join()
    return (
        f"32 connections guess the token: {guesses[0]} answers in 6 s; the worst call of those "
        f"that have it {1e3 * count.worst_s:.0f} ms"
    )


_Fault = Callable[[Stage, Count], str]

OVER_EACH: dict[str, Callable[[Stage, Count, str], str]] = {
    "server killed and restarted": server_killed,
    "server frozen": server_frozen,
    "link cut": link_cut,
    "half-open connections": half_open,
    "loss": heavy_loss,
    "damaged packets": damaged_packets,
    "damage everywhere": damage_everywhere,
    "outage": outage,
    "the founding paper's link": paper_link,
    "answers that drip": answers_that_drip,
    "slow link, large frames": slow_link,
    "wrong answers": wrong_answers,
    "server told to stop": told_to_stop,
    "expired token": other_token,
}
"""Faults that are tried over gRPC, then over HTTP."""

_SCHEMES = {"grpc": "gRPC", "http": "HTTP"}


def _over(fault: Callable[[Stage, Count, str], str], scheme: str) -> _Fault:
    return lambda stage, count: fault(stage, count, scheme)


FAULTS: dict[str, _Fault] = {
    "none": no_fault,
    **{
        f"{name}, {title}": _over(fault, scheme)
        for name, fault in OVER_EACH.items()
        for scheme, title in _SCHEMES.items()
    },
    "requests that never end": slow_readers,
    "bodies that never end": bodies_without_end,
    "heads that never end": heads_without_end,
    "answers that are not read": answers_not_read,
    "many connections": many_connections,
    "rows beyond reason": rows_beyond_reason,
    "parts beyond reason": parts_beyond_reason,
    "idle connections": idle_connections,
    "wrong tokens": wrong_tokens,
    "no room for the server's log": no_room_for_the_log,
    "bundle replaced while it is served": replaced_while_serving,
    "malformed and oversized requests": hostile,
    "streams that end": sessions_over,
    "version mismatch": other_build,
    "full disk": full_disk,
}

_PAGE = """# What happens when things break

Made by `python -m benchmarks.reliability -o docs/reliability.md` on {machine}.

The example (`digits.onnx`, cut at `bottleneck/relu`, compiled with `--autonomous`) is served by a
process of its own; four callers share one session, and every answer is compared bit for bit with
the same call in one process. The faults are made by `benchmarks/link.py`, a proxy on loopback, or
done to the server's process. *server* and *device* say where a call was finished, *refused* counts
clear errors, *lost* calls that ended otherwise, *late* those that took a quarter of a second longer
than their deadline.

{table}

{verdict}

Killed at every write: `tests/test_bundle_replace.py` (compile) and `tests/test_delta.py` (apply)
kill the process at each of its operations on files, one after the other; the old or the new bundle
is there, whole. What the killed process leaves beside it is held by no lock, and a later run
removes it. Before an older bundle goes, the new one is on the disk (fsync), so that a power cut
leaves one of them too.

Two processes under load for a minute a row, nothing broken: [what the service costs](serving.md).
Durations are measured by clocks that never jump, so a change of the machine's time moves nothing; a
server that is started before its bundle exists says so and ends with code 2. A stateful bundle
never repeats a step: see `tests/serving/test_client.py`, where every other answer is lost on its
way and the count is still right, and where a state that is gone is an error until `reset()`. What
takes minutes is tried there with shorter times: connections on which nothing moves
(`test_http_connections.py`), and those whose answers nobody reads (`test_held_bytes.py`), are
closed.
"""


def page(rows: Sequence[Row]) -> str:
    head = ("fault", "asked", "server", "device", "refused", "wrong", "lost", "late", "how")
    cells = [
        (row.fault, *(str(getattr(row.count, name)) for name in head[1:-1]), row.remark)
        for row in rows
    ]
    asked, wrong, lost, late = (
        sum(getattr(row.count, name) for row in rows) for name in ("asked", "wrong", "lost", "late")
    )
    machine = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}"
    )
    verdict = f"In all: {asked} calls, {wrong} wrong, {lost} lost, {late} late."
    return _PAGE.format(machine=machine, table=markdown(head, cells), verdict=verdict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="write the page here; default: print it")
    parser.add_argument("--only", choices=FAULTS, action="append", help="only this fault")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        stage = Stage(Path(folder))
        try:
            for name in arguments.only or FAULTS:
                count = Count()
                rows.append(Row(name, count, FAULTS[name](stage, count)))
                print(rows[-1], file=sys.stderr, flush=True)
        finally:
            stage.kill()
    text = page(rows)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text, encoding="utf-8")
    return 1 if any(row.count.wrong or row.count.lost or row.count.late for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
