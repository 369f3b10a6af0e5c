"""The server as stock clients meet it: same outputs as in one process, clear refusals."""

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils
from grpc_calls import model_infer

import irsplit
from irsplit.base.errors import BundleError, ServeError
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import (
    InferRequest,
    InferResponse,
    WireTensor,
    frame_tensor,
)
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.server import Server, ServerOptions, load_bundles, serving
from irsplit.runtime.serving.server.service import Service

TOKEN = "correct horse battery staple"
ANY_PORT = {"port": 0, "http_port": 0}


@pytest.fixture(scope="module")
def server(onnx_bundle: Path, tflite_bundle: Path) -> Iterator[Server]:
    with serving(
        [f"onnx={onnx_bundle}", f"tflite={tflite_bundle}"], ServerOptions(**ANY_PORT)
    ) as server:
        yield server


def triton(door: Any, server: Server) -> Any:
    """A stock client of the door, tritonclient.grpc or tritonclient.http."""
    port = server.port if door is tritonclient.grpc else server.http_port
    return door.InferenceServerClient(f"127.0.0.1:{port}")


def frame_input(door: Any, frame: bytes) -> Any:
    tensor = door.InferInput("frame", [len(frame)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(frame, np.uint8))
    return tensor


@pytest.mark.parametrize("door", [tritonclient.grpc, tritonclient.http])
@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_stock_client_gets_what_one_process_computes(door, name, server, calls, request):
    folder = request.getfixturevalue(f"{name}_bundle")
    device, local = irsplit.DeviceSession(folder), irsplit.LocalSession(folder)
    client = triton(door, server)
    for call in calls[name][:8]:
        found = client.infer(name, [frame_input(door, device.start(call))]).as_numpy("logits")
        np.testing.assert_array_equal(found, local.run(call)["logits"])
    client.close()


@pytest.mark.parametrize("door", [tritonclient.grpc, tritonclient.http])
def test_stock_client_sends_the_models_own_inputs_when_the_server_has_both_sides(
    door, server, calls, onnx_bundle
):
    image = calls["onnx"][0]["image"]
    tensor = door.InferInput("image", list(image.shape), "FP32")
    tensor.set_data_from_numpy(image)
    client = triton(door, server)
    expected = irsplit.LocalSession(onnx_bundle).run({"image": image})["logits"]
    np.testing.assert_array_equal(client.infer("onnx", [tensor]).as_numpy("logits"), expected)
    client.close()


@pytest.mark.parametrize("door", [tritonclient.grpc, tritonclient.http])
def test_health_and_metadata(door, server):
    client = triton(door, server)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("onnx")
    metadata = client.get_model_metadata("tflite")
    described = metadata if isinstance(metadata, dict) else json.loads(_to_json(metadata))
    assert described["platform"] == "irsplit_tflite"
    assert [(tensor["name"], tensor["datatype"]) for tensor in described["inputs"]] == [
        ("frame", "UINT8")
    ]
    assert [(tensor["name"], tensor["datatype"]) for tensor in described["outputs"]] == [
        ("logits", "FP32")
    ]
    client.close()


def _to_json(message: Any) -> str:
    def tensors(items: Any) -> list[dict[str, Any]]:
        return [{"name": item.name, "datatype": item.datatype} for item in items]

    return json.dumps(
        {
            "platform": message.platform,
            "inputs": tensors(message.inputs),
            "outputs": tensors(message.outputs),
        }
    )


def test_frames_find_their_version(onnx_bundle, tmp_path, calls):
    other = tmp_path / "later-cut"
    irsplit.compile_model(
        Path(__file__).parent.parent.parent / "examples" / "digits" / "digits.onnx",
        other,
        ["block2/relu"],
    )
    with serving([f"digits={onnx_bundle}", f"digits={other}"], ServerOptions(**ANY_PORT)) as server:
        client = triton(tritonclient.grpc, server)
        for folder in (onnx_bundle, other):
            call = calls["onnx"][0]
            frame = irsplit.DeviceSession(folder).start(call)
            answer = client.infer("digits", [frame_input(tritonclient.grpc, frame)])
            assert (
                answer.get_response().model_version
                == irsplit.DeviceSession(folder).manifest.digest[:16]
            )
            np.testing.assert_array_equal(
                answer.as_numpy("logits"), irsplit.LocalSession(folder).run(call)["logits"]
            )
        client.close()


def _raw_infer(server: Server, request: InferRequest) -> grpc.StatusCode:
    answer = model_infer(server, protobuf.request_to_message(request))
    return answer.code() if isinstance(answer, grpc.RpcError) else grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda frame: frame, grpc.StatusCode.OK),
        (lambda frame: frame[:-1], grpc.StatusCode.INVALID_ARGUMENT),
        (
            lambda frame: frame[:30] + bytes([frame[30] ^ 1]) + frame[31:],
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (lambda frame: b"", grpc.StatusCode.INVALID_ARGUMENT),
        (lambda frame: b"garbage" * 100, grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["sound", "cut short", "flipped bit", "empty", "garbage"],
)
def test_damaged_frames_are_refused(change, code, server, onnx_bundle, calls):
    frame = change(bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0])))
    assert _raw_infer(server, InferRequest("onnx", "", [frame_tensor(frame)])) == code


def test_requests_that_fit_nothing_are_refused(server, onnx_bundle, tflite_bundle, calls):
    frame = bytes(irsplit.DeviceSession(tflite_bundle).start(calls["tflite"][0]))
    status = grpc.StatusCode
    cases = [
        (InferRequest("nobody", "", [frame_tensor(frame)]), status.NOT_FOUND),
        (InferRequest("onnx", "", [frame_tensor(frame)]), status.FAILED_PRECONDITION),
        (
            InferRequest("onnx", "0123456789abcdef", [frame_tensor(frame)]),
            status.FAILED_PRECONDITION,
        ),
        (
            InferRequest("onnx", "", [WireTensor("frame", "INT8", (len(frame),), frame)]),
            status.INVALID_ARGUMENT,
        ),
        (
            InferRequest("onnx", "", [WireTensor("frame", "UINT8", (7,), frame)]),
            status.INVALID_ARGUMENT,
        ),
        (
            InferRequest("onnx", "", [WireTensor("other", "UINT8", (1,), b"1")]),
            status.INVALID_ARGUMENT,
        ),
        (
            InferRequest("onnx", "", [WireTensor("image", "FP32", (1, 1, 16, 15), bytes(960))]),
            status.INVALID_ARGUMENT,
        ),
        (InferRequest("onnx", "", []), status.INVALID_ARGUMENT),
    ]
    assert [_raw_infer(server, request) for request, _ in cases] == [code for _, code in cases]


def _http(
    server: Server, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Any:
    """Status and body of a plain HTTP request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.http_port}{path}", body, headers or {}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"{}", {}),
        (b"{" * 5000, {}),
        (b'{"inputs": [{"name": "frame", "datatype": "UINT8", "shape": [4], "data": "no"}]}', {}),
        (b'{"inputs": 3}', {}),
        (b'{"inputs": []}extra', {"Inference-Header-Content-Length": "14"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "-1"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "99"}),
        (b'{"inputs": [{"name": "frame", "datatype": "UINT8", "shape": [1e999], "data": []}]}', {}),
    ],
)
def test_http_bodies_that_are_no_request_are_refused(body, headers, server):
    status, text = _http(server, "/v2/models/onnx/infer", body, headers)
    assert (status, json.loads(text)["code"]) == (400, "invalid")


def test_plain_json_request_is_answered_in_json(server, onnx_bundle, calls):
    frame = irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0])
    tensor = {"name": "frame", "datatype": "UINT8", "shape": [len(frame)], "data": list(frame)}
    status, text = _http(server, "/v2/models/onnx/infer", json.dumps({"inputs": [tensor]}).encode())
    assert status == 200
    (output,) = json.loads(text)["outputs"]
    expected = irsplit.LocalSession(onnx_bundle).run(calls["onnx"][0])["logits"]
    np.testing.assert_array_equal(np.float32(output["data"]).reshape(output["shape"]), expected)


def test_oversized_requests_are_refused_before_they_are_read(onnx_bundle, calls):
    options = ServerOptions(**ANY_PORT, limits=Limits(frame_bytes=1000, decoded_bytes=100))
    frame = bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))
    with serving([f"onnx={onnx_bundle}"], options) as server:
        too_large = bytes(1001)
        assert (
            _raw_infer(server, InferRequest("onnx", "", [frame_tensor(too_large)]))
            == grpc.StatusCode.OUT_OF_RANGE
        )
        huge = bytes(1 << 20)
        assert (
            _raw_infer(server, InferRequest("onnx", "", [frame_tensor(huge)]))
            == grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert _announced(server, len(huge)) == 413
        # 256 bytes of tensor behind a small frame: over the limit, which its header tells
        assert (
            _raw_infer(server, InferRequest("onnx", "", [frame_tensor(frame)]))
            == grpc.StatusCode.OUT_OF_RANGE
        )


def _announced(server: Server, size: int) -> int:
    """Status of a request that announces a body and sends none of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    connection.putrequest("POST", "/v2/models/onnx/infer")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_token_is_asked_at_both_doors(onnx_bundle):
    with serving([f"onnx={onnx_bundle}"], ServerOptions(**ANY_PORT, token=TOKEN)) as server:
        right, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": "Bearer guess"}
        assert _http(server, "/v2/health/live")[0] == 200
        assert [
            _http(server, "/v2/models/onnx", headers=headers)[0] for headers in ({}, wrong, right)
        ] == [
            401,
            401,
            200,
        ]
        assert [
            _http(server, "/metrics", headers=headers)[0] for headers in ({}, wrong, right)
        ] == [401, 401, 200]
        client = triton(tritonclient.grpc, server)
        assert client.is_server_live()
        with pytest.raises(tritonclient.utils.InferenceServerException, match="UNAUTHENTICATED"):
            client.get_model_metadata("onnx")
        assert (
            client.get_model_metadata("onnx", headers={"authorization": f"Bearer {TOKEN}"}).name
            == "onnx"
        )
        client.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_nothing_listens_beyond_loopback_unprotected(host):
    with pytest.raises(ServeError, match="allow an insecure server"):
        ServerOptions(host=host, token=TOKEN).check()
    ServerOptions(host=host, insecure=True).check()


@pytest.mark.parametrize(("option", "name"), [("port", "gRPC"), ("http_port", "HTTP")])
def test_a_port_that_is_taken_is_refused_with_the_reason(option, name, onnx_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ServerOptions(**ANY_PORT | {option: taken.getsockname()[1]})
        with (
            pytest.raises(
                ServeError,
                match=f"Address already in use; give {name} another port, or another host",
            ),
            serving([f"onnx={onnx_bundle}"], options),
        ):
            pass


def test_metrics_count_by_outcome(server, onnx_bundle, calls):
    frame = bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))
    _raw_infer(server, InferRequest("onnx", "", [frame_tensor(frame)]))
    _raw_infer(server, InferRequest("onnx", "", [frame_tensor(frame[:-1])]))
    _raw_infer(server, InferRequest('evil"label\n', "", [frame_tensor(frame)]))
    _, text = _http(server, "/metrics")
    version = irsplit.DeviceSession(onnx_bundle).manifest.digest[:16]
    assert f'irsplit_requests_total{{code="ok",model="onnx",version="{version}"}}' in text
    assert f'irsplit_requests_total{{code="invalid",model="onnx",version="{version}"}}' in text
    assert f'irsplit_resumed_total{{boundary="0",model="onnx",version="{version}"}}' in text
    assert "evil" not in text


def test_same_bundle_twice_or_without_a_server_side_is_refused(onnx_bundle, tmp_path):
    bundles = load_bundles([f"a={onnx_bundle}", f"a={onnx_bundle}"], ServerOptions())
    with pytest.raises(BundleError, match="given twice"):
        Server(bundles, ServerOptions())
    folder = tmp_path / "device-only"
    irsplit.compile_model(
        Path(__file__).parent.parent.parent / "examples" / "digits" / "digits.onnx",
        folder,
        ["bottleneck/relu"],
        places=("device", "device"),
    )
    with pytest.raises(BundleError, match="no segment runs on the server"):
        load_bundles([str(folder)], ServerOptions())


def test_command_serves_until_told_to_stop(onnx_bundle, calls):
    ports = ["--port", "0", "--http-port", "0"]
    command = [
        sys.executable,
        "-m",
        "irsplit",
        "serve",
        *ports,
        "--log-level",
        "debug",
        f"digits={onnx_bundle}",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        grpc_url = next(word for word in line.split() if word.startswith("grpc://"))
        client = tritonclient.grpc.InferenceServerClient(grpc_url.removeprefix("grpc://"))
        frame = irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0])
        assert client.infer("digits", [frame_input(tritonclient.grpc, frame)]).as_numpy(
            "logits"
        ).shape == (1, 10)
        client.close()
        process.terminate()
        _, log = process.communicate(timeout=300)
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["listening", "request", "draining", "stopped"]


def test_drain_answers_what_runs_and_refuses_what_comes(onnx_bundle, calls, monkeypatch):
    began, goes_on, codes = threading.Event(), threading.Event(), list[grpc.StatusCode]()
    infer = ServedBundle.infer

    def slow(bundle: ServedBundle, request: InferRequest) -> Any:
        began.set()
        goes_on.wait(60)
        return infer(bundle, request)

    monkeypatch.setattr(ServedBundle, "infer", slow)
    request = InferRequest(
        "onnx", "", [frame_tensor(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))]
    )
    with serving([f"onnx={onnx_bundle}"], ServerOptions(**ANY_PORT, grace_s=60)) as server:
        caller = threading.Thread(target=lambda: codes.append(_raw_infer(server, request)))
        caller.start()
        assert began.wait(60)
        stopping = threading.Thread(
            target=lambda: (_refused(server, request, codes), goes_on.set())
        )
        stopping.start()
    caller.join()
    stopping.join()
    assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK]


def _refused(server: Server, request: InferRequest, codes: list[grpc.StatusCode]) -> None:
    """Ask as soon as the server drains, and note the answer."""
    while server.service.ready:
        time.sleep(0.005)
    codes.append(_raw_infer(server, request))


def test_short_requests_run_where_they_came_in_and_long_ones_on_threads(
    onnx_bundle, calls, monkeypatch
):
    frame = frame_tensor(bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0])))
    threads: list[str] = []
    inner = ServedBundle.infer

    def noted(self: ServedBundle, request: InferRequest) -> InferResponse:
        threads.append(threading.current_thread().name.partition("_")[0])
        return inner(self, request)

    monkeypatch.setattr(ServedBundle, "infer", noted)
    service = Service(load_bundles([f"onnx={onnx_bundle}"], ServerOptions()), workers=1, queue=4)
    (bundle,) = service.bundles["onnx"].values()

    async def answers() -> list[bytes]:
        request, found = InferRequest("onnx", "", [frame]), list[bytes]()
        for usual_s in (None, 1e-4, 1e-2):
            if usual_s is not None:
                service._usual_s[bundle] = usual_s
            found.append(bytes((await service.infer(request, 10.0)).outputs[0].data))
        await service.drain(1.0)
        return found

    assert len(set(asyncio.run(answers()))) == 1
    assert threads == ["irsplit-engine", "MainThread", "irsplit-engine"]
