"""The Open Inference Protocol for a hostile tester: every form of a request, and what is none."""

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_calls import model_infer
from tritonclient.utils import InferenceServerException

import irsplit
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.http_messages import (
    HEADER_LENGTH,
    Form,
    request_from_body,
    response_from_body,
    response_to_body,
)
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferResponse,
    ServiceError,
    WireTensor,
    to_array,
    to_bytes,
)
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

INFER = "/v2/models/onnx/infer"
DOORS = [tritonclient.grpc, tritonclient.http]


@pytest.fixture(scope="module")
def server(onnx_bundle: Path) -> Iterator[Server]:
    options = ServerOptions(port=0, http_port=0, limits=Limits(frame_bytes=1 << 20))
    with serving([f"onnx={onnx_bundle}"], options) as server:
        yield server


@pytest.fixture(scope="module")
def frame(onnx_bundle: Path, calls: Any) -> bytes:
    return bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))


@pytest.fixture(scope="module")
def logits(onnx_bundle: Path, calls: Any) -> Any:
    return irsplit.LocalSession(onnx_bundle).run(calls["onnx"][0])["logits"]


def ask(
    server: Server,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    chunked = body is not None and not isinstance(body, bytes)
    connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
    answer = connection.getresponse()
    found = answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def as_json(frame: bytes, **changes: Any) -> dict[str, Any]:
    return {
        "name": "frame",
        "datatype": "UINT8",
        "shape": [len(frame)],
        "data": list(frame),
    } | changes


def request(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


NO_REQUESTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"id": 5}, "'id' is a number, not a string"),
    ({}, {"parameters": []}, "'parameters' is an array, not an object"),
    ({}, {"parameters": {"a": {}}}, "parameter 'a' is no"),
    ({}, {"parameters": {"timeout": 10**400}}, "parameter 'timeout' is no"),
    ({}, {"outputs": ["logits"]}, "'outputs[0]' is a string"),
    ({}, {"outputs": [None]}, "'outputs[0]' is null"),
    ({}, {"outputs": [{}]}, "no 'name'"),
    ({}, {"outputs": [{"name": "nothing"}]}, "'nothing' is not made here; outputs: logits"),
    ({}, {"outputs": [{"name": "frame"}]}, "'frame' is not made here"),
    (
        {},
        {"outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
        "extension classification",
    ),
    (
        {},
        {"outputs": [{"name": "logits", "parameters": {"shared_memory_region": "r"}}]},
        "extension shared memory",
    ),
    ({}, {"inputs": None}, "no 'inputs'"),
    ({"parameters": {"shared_memory_region": "r"}}, {}, "extension shared memory"),
    ({"data": [0.5]}, {}, "type float is not UINT8"),
    ({"data": ["7"]}, {}, "type str is not UINT8"),
    ({"data": [True]}, {}, "type bool is not UINT8"),
    ({"data": [None]}, {}, "type NoneType is not UINT8"),
    ({"data": [256]}, {}, "does not fit into UINT8"),
    ({"data": [-1]}, {}, "does not fit into UINT8"),
    ({"data": 7}, {}, "'data' is a number, not an array"),
    ({"data": None}, {}, "no 'data'"),
    ({"parameters": {"binary_data_size": 0}}, {}, "'data' and binary_data_size"),
    ({"parameters": {"binary_data_size": 7}}, {}, "0 bytes are left"),
    ({"shape": [232.5]}, {}, "not an integer"),
    ({"shape": ["232"]}, {}, "not an integer"),
    ({"shape": [-232]}, {}, "negative dim"),
    ({"shape": [7]}, {}, "send UINT8[n] of n bytes"),
    ({"shape": [1] * 1001}, {}, "1001 dimensions"),
    ({"datatype": "uint8"}, {}, "unknown datatype 'uint8'; known: BOOL"),
    ({"datatype": "INT16"}, {}, "send UINT8[n]"),
    ({"datatype": None}, {}, "no 'datatype'"),
    ({"name": 7}, {}, "'name' is a number, not a string"),
    (
        {"name": "image", "datatype": "FP32", "shape": [0, 1 << 62, 16, 1 << 62], "data": []},
        {},
        "too big",
    ),
    ({"name": "image", "datatype": "FP32", "shape": [0, 1 << 80], "data": []}, {}, "dimension"),
    (
        {"name": "image", "datatype": "FP32", "shape": [1], "data": [1e300]},
        {},
        "does not fit into FP32",
    ),
    (
        {"name": "x" * 100_000, "datatype": "FP32", "shape": [0], "data": []},
        {},
        "a tensor's name has 100000 characters",
    ),
]


@pytest.mark.parametrize("case", NO_REQUESTS, ids=lambda case: case[2][:30])
def test_json_that_is_no_request_is_refused_with_the_reason(case, server, frame):
    tensor, fields, reason = case
    body = json.dumps({"inputs": [as_json(frame) | tensor]} | fields).encode()
    status, _, text = ask(server, "POST", INFER, body)
    told = json.loads(text)
    assert (status, told["code"]) == (400, "invalid")
    assert reason in told["error"]
    assert len(told["error"]) < 2000


def test_an_input_given_twice_is_refused(server, frame):
    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 16, 16], "data": [0.5] * 256}
    for tensor in (as_json(frame), image):
        assert ask(server, "POST", INFER, request(tensor, tensor))[0] == 400


def forms(frame: bytes) -> dict[str, tuple[Any, dict[str, str]]]:
    """One request in all the ways that HTTP has: body and headers."""
    plain = request(as_json(frame))
    head = request(as_json(frame, data=None, parameters={"binary_data_size": len(frame)}))
    behind = {"Inference-Header-Content-Length": str(len(head))}
    return {
        "JSON": (plain, {}),
        "nested elements": (request(as_json(frame, data=[[[byte] for byte in frame]])), {}),
        "null for what may be missing": (
            request(as_json(frame, parameters=None), id=None, outputs=None),
            {},
        ),
        "binary": (head + frame, behind),
        "in chunks": (iter([plain[:7], plain[7:8], plain[8:]]), {"Transfer-Encoding": "chunked"}),
        "gzip": (gzip.compress(plain), {"Content-Encoding": "gzip"}),
        "deflate": (zlib.compress(plain), {"Content-Encoding": "deflate"}),
        "binary in gzip": (gzip.compress(head + frame), {"Content-Encoding": "GZIP", **behind}),
        "an output asked for twice": (
            request(as_json(frame), outputs=[{"name": "logits"}] * 2),
            {},
        ),
    }


@pytest.mark.parametrize("form", forms(b""))
def test_every_form_of_a_request_is_answered(form, server, frame, logits):
    status, headers, body = ask(server, "POST", INFER, *forms(frame)[form])
    answer = response_from_body(headers, body)
    assert status == 200
    assert "id" not in json.loads(body)
    np.testing.assert_array_equal([to_array(tensor) for tensor in answer.outputs], [logits])


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"", 400),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}")[:-3], 400),
        ("gzip", gzip.compress(b"{}") + b"more", 400),
        ("gzip", gzip.compress(bytes(2 << 20)), 413),
    ],
    ids=["unknown", "none", "cut short", "more behind it", "far larger than it looks"],
)
def test_bodies_that_do_not_decompress_are_refused(coding, body, status, server):
    assert ask(server, "POST", INFER, body, {"Content-Encoding": coding})[0] == status


def test_json_that_would_fill_the_memory_is_not_read():
    """Small lists: 3 bytes each on the way, 64 in memory; tensors may be as large as a frame."""
    lists = (
        json.dumps({"inputs": [as_json(b"", data=[[]])]})
        .encode()
        .replace(b"[[]]", b"[" + b"[]," * 2_000_000 + b"[]]")
    )
    with pytest.raises(ServiceError, match="send tensors as binary data") as caught:
        request_from_body("m", "", {}, lists)
    assert caught.value.code is Code.TOO_LARGE
    large = bytes(8 << 20)
    head = request(
        as_json(b"", shape=[len(large)], data=None, parameters={"binary_data_size": len(large)})
    )
    found, _ = request_from_body("m", "", {HEADER_LENGTH: str(len(head))}, head + large)
    assert found.inputs[0].data == large


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INFER, "POST"),
        ("PUT", INFER, "POST"),
        ("POST", "/v2", "GET, HEAD"),
        ("DELETE", "/v2/models/onnx", "GET, HEAD"),
        ("POST", "/v2/models/onnx/ready", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("OPTIONS", "/v2/health/live", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused_and_the_right_ones_named(method, path, allowed, server):
    status, headers, _ = ask(server, method, path)
    assert (status, headers["allow"]) == (405, allowed)


def test_head_is_get_without_its_body(server):
    status, headers, body = ask(server, "HEAD", "/v2/models/onnx")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(ask(server, "GET", "/v2/models/onnx")[2])


def test_each_output_comes_in_the_form_it_was_asked_for():
    asked = {
        "inputs": [],
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "a"},
            {"name": "b", "parameters": {"binary_data": False}},
            {"name": "c", "parameters": {"binary_data": True}},
        ],
    }
    tensors = [
        WireTensor("a", "INT16", (2,), b"\1\0\2\0"),
        WireTensor("b", "BF16", (1, 1), b"\xc0\x3f"),
        WireTensor("c", "BYTES", (1,), b"\2\0\0\0hi"),
    ]
    answer = InferResponse("m", "1", tensors, "7")
    _, form = request_from_body("m", "", {}, json.dumps(asked).encode())
    headers, body = response_to_body(answer, form)
    size = int(headers["inference-header-content-length"])
    assert json.loads(body[:size])["outputs"] == [
        {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
        {"name": "b", "datatype": "BF16", "shape": [1, 1], "data": [1.5]},
        {"name": "c", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
    ]
    assert body[size:] == b"\1\0\2\0\2\0\0\0hi"
    headers, body = response_to_body(answer, Form())
    assert headers == {"content-type": "application/json"}
    assert [output["data"] for output in json.loads(body)["outputs"]] == [[1, 2], [1.5], ["hi"]]


def test_elements_that_come_one_by_one_are_those_of_the_datatype_exactly():
    assert to_bytes("UINT64", [(1 << 64) - 1, 0]) == bytes([255] * 8 + [0] * 8)
    assert (
        to_bytes("INT64", [[-1], [(1 << 53) + 1]]) == np.array([-1, (1 << 53) + 1], "<i8").tobytes()
    )
    assert to_bytes("FP16", [1, 0.5]) == np.array([1, 0.5], "<f2").tobytes()
    assert to_bytes("BOOL", [True, False]) == b"\1\0"
    assert to_bytes("BYTES", ["é", b"\0"]) == b"\2\0\0\0\xc3\xa9\1\0\0\0\0"
    assert to_bytes("FP32", []) == b""
    for datatype, values in [
        ("BOOL", [1]),
        ("BYTES", [1]),
        ("BF16", [1.5]),
        ("FP16", [1e6]),
        ("INT8", [[1], [2, 3]]),
    ]:
        with pytest.raises(ValueError, match=datatype):
            to_bytes(datatype, values)


def grpc_infer(server: Server, **fields: Any) -> Any:
    """The answer of the gRPC door to a message of these fields, or the error."""
    return model_infer(server, protobuf.message("ModelInferRequest")(model_name="onnx", **fields))


def grpc_tensor(frame: bytes, **fields: Any) -> dict[str, Any]:
    return {"name": "frame", "datatype": "UINT8", "shape": [len(frame)], **fields}


def test_elements_may_come_in_fields_of_their_own_over_grpc(server, frame, logits, calls):
    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 16, 16]}
    values = calls["onnx"][0]["image"].ravel().tolist()
    for tensor in (
        grpc_tensor(frame, contents={"uint_contents": frame}),
        image | {"contents": {"fp32_contents": values}},
    ):
        answer = protobuf.response_from_message(grpc_infer(server, inputs=[tensor], id="7"))
        np.testing.assert_array_equal(to_array(answer.outputs[0]), logits)
        assert answer.id == "7"


@pytest.mark.parametrize(
    ("tensor", "raw", "reason"),
    [
        ({"contents": {"int_contents": [1]}}, 0, "UINT8 goes into uint_contents, not int_contents"),
        ({"contents": {"uint_contents": [256]}}, 0, "does not fit into UINT8"),
        ({"contents": {"uint_contents": [1]}}, 1, "raw contents and others"),
        ({"datatype": "FP16"}, 0, "send them raw"),
        ({}, 2, "1 tensors and 2 raw contents"),
        ({}, 0, "of 0 bytes"),
        ({"shape": [1] * 1000}, 1, "1000 dimensions"),
        (
            {"parameters": [{"key": "shared_memory_region", "value": {"string_param": "r"}}]},
            1,
            "extension shared memory",
        ),
    ],
)
def test_grpc_tensors_that_are_none_are_refused_with_the_reason(tensor, raw, reason, server, frame):
    error = grpc_infer(
        server, inputs=[grpc_tensor(frame) | tensor], raw_input_contents=[frame] * raw
    )
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason in error.details()


def test_more_elements_than_are_sensible_one_by_one_are_refused():
    contents = protobuf.message("InferTensorContents").FromString(
        b"\x22\x80\x80\x80\x04" + bytes(1 << 23)
    )
    message = protobuf.message("ModelInferRequest")(inputs=[grpc_tensor(b"", contents=contents)])
    with pytest.raises(
        ValueError, match=r"8388608 elements in uint_contents, the limit is 4194304; send them raw"
    ):
        protobuf.request_from_message(message)


def stock(door: Any, server: Server) -> Any:
    return door.InferenceServerClient(
        f"127.0.0.1:{server.port if door is tritonclient.grpc else server.http_port}"
    )


@pytest.mark.parametrize(
    ("door", "sent", "asked", "options"),
    [
        (tritonclient.http, {"binary_data": False}, {"binary_data": False}, {}),
        (tritonclient.http, {"binary_data": False}, {"binary_data": True}, {}),
        (tritonclient.http, {"binary_data": True}, {"binary_data": False}, {}),
        (
            tritonclient.http,
            {},
            {},
            {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"},
        ),
        (tritonclient.http, {}, {}, {"request_compression_algorithm": "deflate"}),
        (tritonclient.grpc, {}, {}, {"compression_algorithm": "gzip"}),
        (tritonclient.grpc, {}, {}, {"compression_algorithm": "deflate"}),
        (
            tritonclient.http,
            {},
            {},
            {"request_id": "7", "priority": 1, "parameters": {"a": 1, "b": "c", "d": True}},
        ),
        (
            tritonclient.grpc,
            {},
            {},
            {"request_id": "7", "priority": 1, "parameters": {"a": 1, "b": "c", "d": True}},
        ),
    ],
)
def test_all_that_a_stock_client_can_say_is_understood(
    door, sent, asked, options, server, frame, logits
):
    tensor = door.InferInput("frame", [len(frame)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(frame, np.uint8), **sent)
    client = stock(door, server)
    answer = client.infer(
        "onnx", [tensor], outputs=[door.InferRequestedOutput("logits", **asked)], **options
    )
    np.testing.assert_array_equal(answer.as_numpy("logits"), logits)
    response = answer.get_response()
    found = response.get("id", "") if isinstance(response, dict) else response.id
    assert found == options.get("request_id", "")
    client.close()


@pytest.mark.parametrize("door", DOORS)
def test_a_stock_client_is_told_what_is_not_here(door, server, frame):
    tensor = door.InferInput("frame", [len(frame)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(frame, np.uint8))
    shared = door.InferInput("frame", [len(frame)], "UINT8")
    shared.set_shared_memory("region", len(frame))
    client = stock(door, server)
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("onnx", "9")
    with pytest.raises(InferenceServerException, match="no bundle 'nobody' here"):
        client.get_model_metadata("nobody")
    with pytest.raises(InferenceServerException, match="extension classification"):
        client.infer("onnx", [tensor], outputs=[door.InferRequestedOutput("logits", class_count=2)])
    with pytest.raises(InferenceServerException, match="extension shared memory"):
        client.infer("onnx", [shared])
    client.close()


def test_a_fault_of_the_server_is_told_in_the_protocols_form_and_logged(
    server, frame, monkeypatch, server_log
):
    def broken(*_: Any) -> Any:
        raise RuntimeError("of all things")

    monkeypatch.setattr(ServedBundle, "infer", broken)
    status, _, text = ask(server, "POST", INFER, request(as_json(frame)))
    assert (status, json.loads(text)["code"]) == (500, "internal")
    error = grpc_infer(server, inputs=[grpc_tensor(frame)], raw_input_contents=[frame])
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "of all things" not in text.decode() + error.details()
    assert [str(record.exc_info[1]) for record in server_log if record.exc_info] == [
        "of all things"
    ] * 2
