"""Connections to the HTTP door made to last: long headers, half requests, unread answers."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import irsplit
from irsplit.runtime.serving.server import http_connections
from irsplit.runtime.serving.server.http_server import HttpFrontend
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

HALF = b"POST /v2/models/onnx/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"
ALIVE = b"/v2/health/live HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def server(onnx_bundle: Path) -> Iterator[Server]:
    with serving([f"onnx={onnx_bundle}"], ServerOptions(port=0, http_port=0)) as server:
        yield server


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.http_port), 10)


def said(server: Server, data: bytes, until: bytes = b"") -> bytes:
    """What comes back until `until` has come, or the end."""
    answer = b""
    with connected(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        while part := connection.recv(1 << 16):
            answer += part
            if until and until in answer:
                break
    return answer


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_connection_ends_when_the_client_wants_it(version, server):
    answer = said(
        server, b"GET /v2/health/live HTTP/" + version + b"\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer


def test_a_body_is_asked_for_only_when_it_is_wanted(server):
    head = (
        b"POST /v2/models/onnx/infer HTTP/1.1\r\nhost: x\r\n"
        b"expect: 100-continue\r\ncontent-length: "
    )
    assert said(server, head + b"2\r\n\r\n", b"Continue").startswith(b"HTTP/1.1 100 Continue")
    assert said(server, head + b"999999999\r\n\r\n", b"too_large").startswith(b"HTTP/1.1 413 ")


def test_after_a_refused_body_the_connection_goes_on(server):
    refused = b"POST /v2/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
    answer = said(server, refused + b"GET " + ALIVE + b"\r\n", b"200 OK")
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET " + ALIVE + b"x: " + b"y" * (1 << 22),
        b"GET " + ALIVE + b"x: y\r\n" * (1 << 20),
        b"GET /" + b"y" * (1 << 22),
    ],
    ids=["a long header", "many headers", "a long path"],
)
def test_a_head_without_end_is_cut_off(head, server):
    answer = said(server, head + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_trailers_without_end_are_cut_off(server):
    head = (
        b"POST /v2/models/onnx/infer HTTP/1.1\r\nhost: x\r\n"
        b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    )
    answer = said(server, head + b"x: y\r\n" * (1 << 20))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_quiet_clients_are_let_go_and_a_long_computation_is_not(onnx_bundle, calls, monkeypatch):
    """The answer is computed only when all the silent ones are gone: else this waits in vain."""
    answer, infer = HttpFrontend.answer, ServedBundle.infer
    goes_on = threading.Event()

    async def large(door: HttpFrontend, scope: Any, receive: Any) -> Any:
        return (
            (200, {}, bytes(1 << 26))
            if scope["path"] == "/large"
            else await answer(door, scope, receive)
        )

    def slow(bundle: ServedBundle, request: Any) -> Any:
        assert goes_on.wait(20)
        return infer(bundle, request)

    monkeypatch.setattr(http_connections, "QUIET_S", 0.2)
    monkeypatch.setattr(HttpFrontend, "answer", large)
    monkeypatch.setattr(ServedBundle, "infer", slow)
    frame = bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))
    begun = [b"", b"GET /v2", b"GET " + ALIVE, HALF]
    with (
        serving([f"onnx={onnx_bundle}"], ServerOptions(port=0, http_port=0)) as server,
        contextlib.ExitStack() as stack,
    ):
        quiet = [stack.enter_context(connected(server)) for _ in begun]
        for connection, data in zip(quiet, begun, strict=True):
            connection.sendall(data)
        stack.enter_context(connected(server)).sendall(b"GET /large HTTP/1.1\r\n\r\n")
        client = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
        body = b'{"inputs": [{"name": "frame", "datatype": "UINT8", "shape": [%d], "data": %s}]}'
        client.request(
            "POST", "/v2/models/onnx/infer", body % (len(frame), str(list(frame)).encode())
        )
        for connection in quiet:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        ends = time.monotonic() + 20
        while len(server._http.server_state.connections) > 1 and time.monotonic() < ends:
            time.sleep(0.01)
        goes_on.set()
        assert client.getresponse().status == 200
        client.close()
