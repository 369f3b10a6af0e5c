"""Bundles that come back to the device, over real connections: device, server, device..."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
import irsplit.runtime
from irsplit.base.errors import RemoteError
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.client.transport import TransportError
from irsplit.runtime.serving.protocol.messages import InferRequest, InferResponse
from irsplit.runtime.serving.server.server import ServerOptions, serving

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
CUTS = ("down/relu", "bottleneck/relu", "expand/relu")
PATTERNS = {
    "to and fro": ("device", "server", "device"),
    "twice": ("device", "server", "device", "server"),
    "two on the server": ("device", "server", "server", "device"),
}


def compiled(folder: Path, kind: str, places: tuple[str, ...], **options: Any) -> Path:
    irsplit.compile_model(
        DIGITS / f"digits.{kind}", folder, CUTS[: len(places) - 1], places=places, **options
    )
    return folder


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("name", PATTERNS)
def test_answers_are_those_of_one_process(name, kind, scheme, calls, tmp_path):
    places = PATTERNS[name]
    folder = compiled(tmp_path / "bundle", kind, places)
    local = irsplit.LocalSession(folder)
    with serving([f"digits={folder}"], ServerOptions(port=0, http_port=0)) as server:
        url = f"{scheme}://127.0.0.1:{server.port if scheme == 'grpc' else server.http_port}"
        with irsplit.runtime.connect(url, folder, name="digits") as session:
            for call, answer in zip(
                calls[kind][:8], session.stream(calls[kind][:8], depth=3), strict=True
            ):
                trips = sum(
                    place == "server" and before == "device" for before, place in pairwise(places)
                )
                assert (answer.path, answer.attempts) == ("server", trips)
                np.testing.assert_array_equal(answer.outputs["logits"], local.run(call)["logits"])


class BreaksAfter:
    """A transport whose link is gone after so many answers."""

    def __init__(self, inner: Any, answers: int) -> None:
        self.inner, self.left = inner, answers
        self.ready, self.close = inner.ready, inner.close

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        if not self.left:
            raise TransportError(None, "the link is gone")
        self.left -= 1
        return self.inner.infer(request, timeout_s)


@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize("autonomous", [True, False])
def test_a_link_that_is_lost_between_two_visits(answers, autonomous, calls, tmp_path):
    folder = compiled(tmp_path / "bundle", "onnx", PATTERNS["twice"], autonomous=autonomous)
    call = calls["onnx"][0]
    with serving([f"digits={folder}"], ServerOptions(port=0, http_port=0)) as server:
        url, hasty = f"grpc://127.0.0.1:{server.port}", RetryPolicy(attempts=2, backoff_s=0.01)
        with irsplit.runtime.connect(url, folder, name="digits", retry_policy=hasty) as session:
            retrying = session._client
            retrying._transport = BreaksAfter(retrying._transport, answers)
            if not autonomous:
                with pytest.raises(RemoteError, match="the link is gone"):
                    session.infer(call)
                return
            answer = session.infer(call)
    assert (answer.path, answer.boundary) == ("device", 0 if answers else None)
    assert "the link is gone" in answer.reason
    np.testing.assert_array_equal(
        answer.outputs["logits"], irsplit.LocalSession(folder).run(call)["logits"]
    )
