"""What a stranger sends around frames, over both doors: refused, counted, and nobody waits."""

import contextlib
import http.client
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import irsplit
import irsplit.runtime
from hostile import messages
from irsplit.base.errors import RemoteError
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.http_messages import Form, json_elements
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
    WireTensor,
)
from irsplit.runtime.serving.server import authenticator
from irsplit.runtime.serving.server.connections import (
    ConnectionLimiter,
    connections_for,
    raise_file_limit,
)
from irsplit.runtime.serving.server.logs import RateLimitedLog
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messages") / "digits"
    irsplit.compile_model(DIGITS / "digits.onnx", folder, ["bottleneck/relu"], remember=False)
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving([str(bundle)], ServerOptions(port=0, http_port=0)) as server:
        yield server


def refusals(server: Server, code: Code) -> float:
    labels = {"model": "", "version": "", "code": code.value[0]}
    return server.service.metrics.registry.get_sample_value("irsplit_requests_total", labels) or 0.0


def post(
    server: Server, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port or 0, timeout=60)
    connection.request("POST", INFER, body, headers or {})
    with contextlib.closing(connection), connection.getresponse() as answer:
        return answer.status, json.loads(answer.read())


def call(server: Server, body: bytes) -> grpc.RpcError:
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(f"/{protobuf.SERVICE}/ModelInfer")(body, timeout=60)
    return caught.value


def packed(request: InferRequest) -> bytes:
    message = protobuf.request_to_message(request)
    for name in request.outputs:
        message.outputs.add(name=name)
    return message.SerializeToString()


def is_well(server: Server, bundle: Path) -> bool:
    given = {"image": np.zeros((1, 1, 16, 16), np.float32)}
    expected = irsplit.LocalSession(bundle).run(given)["logits"]
    urls = [f"grpc://127.0.0.1:{server.port}", f"http://127.0.0.1:{server.http_port}"]
    answers = []
    for url in urls:
        with irsplit.runtime.connect(url, bundle, timeout_s=30) as session:
            answers.append(session.infer(given).outputs["logits"])
    return all(np.array_equal(answer, expected) for answer in answers)


@pytest.mark.parametrize("which", [name for name, _ in messages.with_words(1)])
def test_texts_that_a_client_chooses_have_a_limit(which, server):
    good = dict(messages.with_words(256))[which]
    bad = dict(messages.with_words(257))[which]
    told = call(server, packed(bad))
    assert told.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "257 characters, the limit is 256" in told.details()
    assert "characters" not in call(server, packed(good)).details()


def test_a_long_session_name_is_refused_over_http(server):
    frame = {"name": "frame", "datatype": "UINT8", "shape": [1], "data": [1]}
    body = json.dumps({"inputs": [frame], "parameters": {"sequence_id": "x" * 257}}).encode()
    status, told = post(server, body)
    assert (status, told["code"]) == (400, "invalid")
    assert told["error"] == "parameter 'sequence_id' has 257 characters, the limit is 256"


def test_sixty_thousand_empty_inputs_are_refused_before_they_are_objects(server, bundle):
    before = refusals(server, Code.TOO_LARGE)
    message = messages.many_inputs(60_000)
    assert len(message.body) > 3_000_000
    status, told = post(server, message.body)
    assert (status, told["code"]) == (413, "too_large")
    assert told["error"] == "60001 objects in the JSON, the limit is 8192"
    assert (
        post(server, messages.many_inputs(1025).body)[1]["error"]
        == "1025 inputs, the limit is 1024"
    )
    error = call(server, messages.many_fields(60_000).body)
    assert error.details() == "1025 times inputs, the limit is 1024"
    error = call(server, messages.many_fields(70_000, number=15).body)
    assert error.details() == "65537 fields, the limit is 65536"
    assert refusals(server, Code.TOO_LARGE) == before + 4
    assert is_well(server, bundle)


def test_a_large_json_of_numbers_is_still_read(server):
    """It is taken apart beside the event loop."""
    data = {"name": "image", "datatype": "FP32", "shape": [300_000], "data": [0.5] * 300_000}
    status, told = post(server, json.dumps({"inputs": [data]}).encode())
    assert (status, told["code"]) == (400, "invalid")
    assert told["error"] == "input 'image' has 1 dimensions; give 4"


def test_a_body_that_is_no_protobuf_is_an_invalid_argument_and_counted(server, bundle):
    before = refusals(server, Code.MALFORMED)
    for body in (b"\xff" * 100, b"\x0a\xff", b"\x2a\x05abc", b"\x0b\x0b", b"\x0a\x01\xff"):
        error = call(server, body)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(error.trailing_metadata())["irsplit-code"] == "malformed"
        assert error.details().startswith("not a ModelInferRequest")
    assert refusals(server, Code.MALFORMED) == before + 5
    assert is_well(server, bundle)


def test_our_client_does_not_repeat_a_request_that_is_no_message(server, bundle, monkeypatch):
    before = refusals(server, Code.MALFORMED)
    monkeypatch.setattr(
        "irsplit.runtime.serving.client.grpc_transport._serialized", lambda _: b"\xff" * 100
    )
    url = f"grpc://127.0.0.1:{server.port}"
    connected = irsplit.runtime.connect(
        url, bundle, timeout_s=10, retry_policy=RetryPolicy(attempts=4)
    )
    with connected as session, pytest.raises(RemoteError, match="not a ModelInferRequest"):
        session.infer({"image": np.zeros((1, 1, 16, 16), np.float32)})
    assert refusals(server, Code.MALFORMED) == before + 1


def test_mutants_of_messages_end_in_refusals():
    escaped = []
    for index, message in enumerate(messages.mutants(16, 1500)):
        try:
            messages.read(message, Path())
        except ServiceError:
            continue
        except Exception as error:
            escaped.append((index, message.door, repr(error)))
    assert escaped == []


def test_an_answer_as_json_has_a_limit():
    response = InferResponse("m", "1", [WireTensor("y", "FP32", (1 << 11, 1 << 12), b"")])
    with pytest.raises(ServiceError, match="ask for them as binary_data"):
        json_elements(response, Form())
    assert json_elements(response, Form(binary=True)) == 0


def test_guessing_tokens_is_slow_and_who_has_it_does_not_wait(bundle, monkeypatch, server_log):
    monkeypatch.setattr(authenticator, "LEAST_DELAY_S", 0.3)
    options = ServerOptions(port=0, http_port=0, token="secret")
    with serving([str(bundle)], options) as server:
        began = time.monotonic()
        assert post(server, b"{}", {"authorization": "Bearer guess"})[0] == 401
        error = call(server, b"")
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert time.monotonic() - began > 0.6
        assert refusals(server, Code.UNAUTHENTICATED) == 2
        given = {"image": np.zeros((1, 1, 16, 16), np.float32)}
        for url in (f"grpc://127.0.0.1:{server.port}", f"http://127.0.0.1:{server.http_port}"):
            with irsplit.runtime.connect(url, bundle, token="secret", timeout_s=30) as session:
                assert session.infer(given).path == "server"
    assert len([record for record in server_log if record.getMessage() == "not let in"]) == 2


def test_events_of_strangers_are_logged_once_a_second(caplog):
    now = [0.0]
    log = RateLimitedLog(logging.getLogger("irsplit.test"), lambda: now[0])
    for step in range(1000):
        now[0] = step / 400
        log.event(logging.WARNING, "refused", door="http", text=str(step))
    assert len(caplog.records) == 3
    assert caplog.records[1].irsplit_fields == {"door": "http", "text": "400", "left_out": 399}


class Quiet:
    """A connection that was dropped or not."""

    def __init__(self, awaits_server: bool = False) -> None:
        self.awaits_server = awaits_server
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_the_idlest_connection_goes_first():
    drops: list[None] = []
    limiter = ConnectionLimiter(2, lambda: drops.append(None))
    busy, idle, newer, newest = Quiet(awaits_server=True), Quiet(), Quiet(), Quiet()
    for connection in (busy, idle, newer):
        limiter.add(connection)
    assert (busy.dropped, idle.dropped, newer.dropped) == (False, True, False)
    limiter.touch(idle)  # it is gone
    limiter.add(newest)
    assert newer.dropped
    assert (len(limiter), len(drops)) == (2, 2)


def test_connections_leave_files_to_spare():
    assert connections_for(1024) == 384
    assert connections_for(1 << 20) == 4096
    assert 1 <= connections_for(16) <= 8
    assert raise_file_limit() >= 16


def test_idle_connections_keep_nobody_out(bundle, server_log):
    options = ServerOptions(port=0, http_port=0, connections=16)
    with serving([str(bundle)], options) as server, contextlib.ExitStack() as stack:
        for _ in range(50):
            for port in (server.http_port, server.port):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        ends = time.monotonic() + 30
        while (
            server.service.metrics.registry.get_sample_value(
                "irsplit_connections", {"door": "grpc"}
            )
            > 14
        ):
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert is_well(server, bundle)
        dropped = server.service.metrics.registry.get_sample_value
        assert dropped("irsplit_dropped_connections_total", {"door": "http"}) >= 34
    told = [record for record in server_log if record.getMessage() == "idle connection closed"]
    assert 1 <= len(told) < 20
