"""The memory that messages take while they come in and go out, over all connections of a server."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import irsplit
import irsplit.runtime
from benchmarks import http2
from irsplit.base.errors import ServeError
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import Code, InferRequest, ServiceError, frame_tensor
from irsplit.runtime.serving.server import grpc_server, memory_budget
from irsplit.runtime.serving.server.memory_budget import MemoryBudget
from irsplit.runtime.serving.server.metrics import Metrics
from irsplit.runtime.serving.server.served import Limits
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

LIMITS = Limits(frame_bytes=1 << 20, held_bytes=5 << 20)


def metric(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"irsplit_{name}") or 0.0


def wait_until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not true() and time.monotonic() < ends:
        time.sleep(0.01)
    assert true()


def test_who_finds_no_room_waits_for_it_in_turn():
    async def play() -> list[str]:
        budget, order = MemoryBudget(10, 10, Metrics()), list[str]()

        async def taker(name: str, size: int) -> None:
            with budget.reservation() as reservation:
                async with reservation:
                    await reservation.acquire(size)
                order.append(name)

        with budget.reservation() as first:
            async with first:
                await first.acquire(6)
            first.resize(8)
            others = [
                asyncio.create_task(taker(name, size))
                for name, size in (("large", 9), ("small", 2))
            ]
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*others)
        return order

    assert asyncio.run(play()) == ["large", "small"]


def test_the_oldest_on_its_way_goes_and_what_is_whole_stays(monkeypatch):
    monkeypatch.setattr(memory_budget, "EVICT_AFTER_S", 0.0)
    metrics = Metrics()

    async def never_ends(reservation: Any) -> Code | None:
        try:
            async with reservation:
                await reservation.acquire(4)
                await asyncio.Event().wait()
        except ServiceError as error:
            return error.code
        finally:
            reservation.close()
        return None

    async def play() -> None:
        budget = MemoryBudget(10, 10, metrics)
        with budget.reservation() as whole, budget.reservation() as late:
            async with whole:
                await whole.acquire(4)
            stuck = asyncio.create_task(never_ends(memory_budget.Reservation(budget)))
            await asyncio.sleep(0)
            assert metric(metrics, "held_bytes") == 8
            async with late:
                await late.acquire(4)
            assert await stuck is Code.OVERLOADED
        assert metric(metrics, "held_bytes") == 0

    asyncio.run(play())
    assert metric(metrics, "pushed_out_total") == 1


def test_a_budget_below_one_message_is_refused():
    with pytest.raises(
        ServeError, match="raise the limit of all messages, or lower that of a frame"
    ):
        ServerOptions(limits=Limits(frame_bytes=1000, held_bytes=1000)).check()


def stuck_over_http(server: Server) -> socket.socket:
    """A connection that sent most of a request's body."""
    connection = socket.create_connection(("127.0.0.1", server.http_port), 10)
    head = b"POST /v2/models/onnx/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    connection.sendall(head + bytes(900_000))
    return connection


def stuck_over_grpc(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    part = http2.data(1, http2.message(1_000_000) + bytes(60_000))
    connection.sendall(http2.OPENING + http2.head(1, "ModelInfer") + part)
    return connection


@pytest.mark.parametrize(
    ("scheme", "stuck"), [("http", stuck_over_http), ("grpc", stuck_over_grpc)]
)
def test_bodies_that_never_end_do_not_keep_others_out(
    scheme, stuck, onnx_bundle: Path, calls, monkeypatch
):
    """Each frontend has room for four or five of twelve; a second later others have it."""
    monkeypatch.setattr(memory_budget, "EVICT_AFTER_S", 0.05)
    call = calls["onnx"][0]
    expected = irsplit.LocalSession(onnx_bundle).run(call)["logits"]
    options = ServerOptions(port=0, http_port=0, limits=LIMITS)
    with serving([f"onnx={onnx_bundle}"], options) as server, contextlib.ExitStack() as stack:
        metrics = server.service.metrics
        for _ in range(12):
            stack.enter_context(stuck(server))
        wait_until(lambda: metric(metrics, "pushed_out_total") >= 7)
        assert 3 << 20 < metric(metrics, "held_bytes") <= LIMITS.held_bytes
        for other in ("http", "grpc"):
            url = f"{other}://127.0.0.1:{server.http_port if other == 'http' else server.port}"
            with irsplit.runtime.connect(url, onnx_bundle, name="onnx", timeout_s=30) as session:
                for _ in range(3):
                    answer = session.infer(call)
                    assert answer.path == "server"
                    assert (answer.outputs["logits"] == expected).all()
        stack.close()
        wait_until(lambda: metric(metrics, "held_bytes") == 0)


def test_who_is_pushed_out_is_told_when_to_come_back(onnx_bundle, monkeypatch):
    monkeypatch.setattr(memory_budget, "EVICT_AFTER_S", 0.0)
    options = ServerOptions(port=0, http_port=0, limits=LIMITS)
    with serving([f"onnx={onnx_bundle}"], options) as server, contextlib.ExitStack() as stack:
        first, *_ = [stack.enter_context(stuck_over_http(server)) for _ in range(8)]
        answer = b""
        while b"overloaded" not in answer:
            answer += first.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1\r\n" in answer


def test_a_request_is_not_read_before_its_token(onnx_bundle):
    """The answer comes although the request never ends."""
    options = ServerOptions(port=0, http_port=0, limits=LIMITS, token="secret")
    with serving([f"onnx={onnx_bundle}"], options) as server, stuck_over_grpc(server) as connection:
        answer = b""
        while b"unauthenticated" not in answer:
            answer += connection.recv(1 << 16)


def test_grpc_clients_that_read_no_answers_hold_little_and_are_dropped(
    onnx_bundle, calls, monkeypatch
):
    """Of a hundred answers as many stay as one may ask for; all are gone when it is too old."""
    monkeypatch.setattr(grpc_server, "AGE_S", 1.0)
    monkeypatch.setattr(grpc_server, "AGE_GRACE_S", 0.1)
    frame = bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))
    request = protobuf.request_to_message(
        InferRequest("onnx", "", [frame_tensor(frame)])
    ).SerializeToString()
    options = ServerOptions(port=0, http_port=0, workers=1, queue=3)
    with (
        serving([f"onnx={onnx_bundle}"], options) as server,
        socket.create_connection(("127.0.0.1", server.port), 10) as connection,
    ):
        metrics = server.service.metrics
        connection.sendall(http2.NO_WINDOW)
        for stream in range(1, 200, 2):
            body = http2.data(stream, http2.message(len(request)) + request, ends=True)
            connection.sendall(http2.head(stream, "ModelInfer") + body)
        # More while requests are read, whose sizes are not known before.
        wait_until(lambda: 1000 < metric(metrics, "held_bytes") < 100 * (len(request) + 300))
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1 << 16):
                pass
        wait_until(lambda: metric(metrics, "held_bytes") == 0)
