"""What tells messages apart: real frames, which end with a CRC, and answers to them."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stateful import counting_model

import irsplit
import irsplit.runtime
from irsplit.base.errors import SessionLostError
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.protocol import checksum
from irsplit.runtime.serving.protocol.checksum import (
    CHECKSUM,
    DIGEST,
    check,
    contents_digest,
    sealed,
    signed,
)
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
    frame_tensor,
)
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
PATIENCE = RetryPolicy(attempts=2, backoff_s=0.001, breaker_failures=100)


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counter")
    irsplit.compile_model(counting_model(folder / "counter.tflite"), folder / "bundle", ["cut"])
    return folder / "bundle"


@pytest.fixture(scope="module")
def server(onnx_bundle: Path, counter: Path) -> Iterator[Server]:
    words = [f"onnx={onnx_bundle}", f"counter={counter}"]
    with serving(words, ServerOptions(port=0, http_port=0)) as server:
        yield server


def url(server: Server, scheme: str) -> str:
    return f"{scheme}://127.0.0.1:{server.port if scheme == 'grpc' else server.http_port}"


def request_with(frame: bytes, id: str = "a", **parameters: Any) -> InferRequest:
    return InferRequest("onnx", "", [frame_tensor(frame)], id, parameters)


@pytest.mark.parametrize("codec", ["raw", "zstandard", "static-rans"])
def test_real_frames_differ_and_so_do_their_digests(codec, calls, tmp_path):
    inputs = calls["onnx"]
    more = {"calibration": inputs} if codec == "static-rans" else {}
    irsplit.compile_model(
        DIGITS / "digits.onnx", tmp_path / "bundle", ["bottleneck/relu"], codec=codec, **more
    )
    device = irsplit.DeviceSession(tmp_path / "bundle")
    frames = {bytes(device.start(call)) for call in inputs}
    digests = {contents_digest([frame_tensor(frame)]) for frame in frames}
    assert len(digests) == len(frames) > 16
    assert (
        len({checksum.crc32c(frame) for frame in frames}) == 1
    )  # a frame ends with its own CRC-32C


def test_frames_inside_other_tensors_are_told_apart(calls, onnx_bundle):
    device = irsplit.DeviceSession(onnx_bundle)
    frames = [bytes(device.start(call)) for call in calls["onnx"][:8]]
    pairs = list(itertools.permutations(frames, 2))
    digests = {contents_digest([frame_tensor(one + other)]) for one, other in pairs}
    digests |= {contents_digest([frame_tensor(one), frame_tensor(other)]) for one, other in pairs}
    digests |= {contents_digest([frame_tensor(one[:-4])]) for one in frames}
    assert len(digests) == 2 * len(pairs) + len(frames)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_two_clients_with_one_session_name(scheme, server, counter):
    """Each hears that the other one is there; nobody gets the other's answer."""
    with (
        irsplit.runtime.connect(url(server, scheme), counter, name="counter") as one,
        irsplit.runtime.connect(url(server, scheme), counter, name="counter") as other,
    ):
        one._stream._id = other._stream._id = f"camera over {scheme}"
        first = one.infer({"x": np.full((1, 2), 5, np.float32)})
        assert first.outputs["count"].tolist() == [[5, 5]]
        with pytest.raises(SessionLostError, match="with other contents, from another client"):
            other.infer({"x": np.full((1, 2), 7, np.float32)})
        assert one.infer({"x": np.ones((1, 2), np.float32)}).outputs["count"].tolist() == [[6, 6]]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_answer_to_another_frame_is_not_believed(
    scheme, server, calls, onnx_bundle, monkeypatch
):
    """Of a server that mixes them up and signs them all the same."""
    honest, lock, kept = ServedBundle.infer, threading.Lock(), list[InferResponse]()

    def mixed_up(self: ServedBundle, request: InferRequest) -> InferResponse:
        with lock:
            kept.append(honest(self, request))
            return replace(kept[0], id=request.id)

    monkeypatch.setattr(ServedBundle, "infer", mixed_up)
    local = irsplit.LocalSession(onnx_bundle)
    paths: list[str] = []
    with irsplit.runtime.connect(
        url(server, scheme), onnx_bundle, name="onnx", retry_policy=PATIENCE
    ) as session:
        for call in (calls["onnx"][0], calls["onnx"][0], calls["onnx"][1]):
            answer = session.infer(call)
            np.testing.assert_array_equal(answer.outputs["logits"], local.run(call)["logits"])
            paths.append(answer.path)
    assert paths == ["server", "server", "device"]
    assert "answers another frame" in answer.reason


@pytest.fixture(scope="module")
def frame(calls: Any, onnx_bundle: Path) -> bytes:
    return bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][0]))


def test_every_part_of_a_request_is_covered(frame, calls, onnx_bundle):
    request = sealed(request_with(frame), {"sequence_step": 1}, for_earlier=True)
    assert check(request).contents == contents_digest(request.inputs)
    other = bytes(irsplit.DeviceSession(onnx_bundle).start(calls["onnx"][1]))
    changed = [
        replace(request, model="onny"),
        replace(request, id="b"),
        replace(request, inputs=[frame_tensor(other)]),
        replace(request, inputs=[replace(request.inputs[0], name="grame")]),
        replace(request, parameters={**request.parameters, "sequence_step": 2}),
        replace(request, parameters={**request.parameters, DIGEST: 0}),
    ]
    for each in changed:
        with pytest.raises(ServiceError, match="checksum differs") as caught:
            check(each)
        assert caught.value.code is Code.INVALID
    renamed = {key.replace("digest", "digesu"): value for key, value in request.parameters.items()}
    with pytest.raises(ServiceError, match="checksum differs"):
        check(replace(request, parameters=renamed))


def test_a_client_of_an_earlier_release_gets_the_checksum_that_it_wants(frame, onnx_bundle, server):
    bundle = server.service.find("onnx")
    request = sealed(request_with(frame), {}, for_earlier=True)
    earlier = {key: value for key, value in request.parameters.items() if key != DIGEST}
    words = [request.model, request.version, request.id]
    earlier[CHECKSUM] = checksum._message_checksum(words, earlier, request.inputs)
    request = check(replace(request, parameters=earlier, contents=""))
    answer = signed(request, bundle.infer(request))
    assert DIGEST not in answer.parameters
    assert answer.parameters[CHECKSUM] == checksum._message_checksum(
        [answer.id], answer.parameters, answer.outputs
    )


def test_a_stock_client_gets_no_checksum(frame, server):
    request = check(request_with(frame))
    answer = signed(request, server.service.find("onnx").infer(request))
    assert not {CHECKSUM, DIGEST} & set(answer.parameters)


class Earlier:
    """A server of an earlier release: it does not know the digest."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.ready, self.close = inner.ready, inner.close

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        words = [request.model, request.version, request.id]
        assert request.parameters[CHECKSUM] == checksum._message_checksum(
            words, request.parameters, request.inputs
        )
        parameters = {key: value for key, value in request.parameters.items() if key != DIGEST}
        parameters[CHECKSUM] = checksum._message_checksum(words, parameters, request.inputs)
        return self.inner.infer(replace(request, parameters=parameters), timeout_s)


def test_a_server_of_an_earlier_release_is_believed_by_its_checksum(server, calls, onnx_bundle):
    with irsplit.runtime.connect(
        url(server, "grpc"), onnx_bundle, name="onnx", retry_policy=PATIENCE
    ) as session:
        transport = session._client._transport
        session._client._transport = Earlier(transport)
        for call in calls["onnx"][:3]:
            assert session.infer(call).path == "server"
        session._client._transport = transport
        assert session.infer(calls["onnx"][0]).attempts == 1
        assert session._client._knows_digests
