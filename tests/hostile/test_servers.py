"""Clients of servers that mean harm: a right answer, the device's own or a clear error, in time."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import irsplit
import irsplit.runtime
from hostile import servers
from hostile.servers import (
    GRPC_EVILS,
    HTTP_EVILS,
    MISFITS,
    STRANGE_TIMES,
    EvilHttpServer,
    evil_grpc_server,
)
from irsplit.base.errors import IrsplitError, RemoteError
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.client.switching import SwitchingPolicy
from irsplit.runtime.serving.server.served import ServedBundle
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
PATIENCE = RetryPolicy(attempts=3, backoff_s=0.001, breaker_failures=1000)
SEEDS = range(3)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One whose device can finish alone, and one whose device cannot."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, autonomous in (("alone", True), ("lone", False)):
        irsplit.compile_model(
            DIGITS / "digits.onnx", folder / name, ["bottleneck/relu"], autonomous=autonomous
        )
    return {name: folder / name for name in ("alone", "lone")}


@pytest.fixture(scope="module")
def server(bundles: dict[str, Path]) -> Iterator[Server]:
    with serving(
        [f"{name}={path}" for name, path in bundles.items()], ServerOptions(port=0, http_port=0)
    ) as server:
        yield server


@pytest.fixture(scope="module")
def call() -> dict[str, Any]:
    pixels = (np.load(DIGITS / "test_images.npz")["images"][0] / 255).astype(np.float32)
    return {"image": pixels[np.newaxis, np.newaxis]}


@pytest.fixture(scope="module")
def expected(bundles: dict[str, Path], call: dict[str, Any]) -> Any:
    return irsplit.LocalSession(bundles["alone"]).run(call)["logits"]


def ask(
    url: str, name: str, bundles: dict[str, Path], call: Any, expected: Any, timeout_s: float = 0.3
) -> str:
    """Ask twice over one session: the path of the last answer, which is right, or the error."""
    with irsplit.runtime.connect(url, bundles[name], name=name, retry_policy=PATIENCE) as session:
        for _ in range(2):
            try:
                answer = session.infer(call, timeout_s=timeout_s)
            except IrsplitError as error:
                outcome, text = "error", str(error)
            else:
                np.testing.assert_array_equal(answer.outputs["logits"], expected)
                outcome, text = answer.path, answer.reason
            assert outcome != ("error" if name == "alone" else "device")
            assert text.isprintable()
            assert len(text) < 1000
    return outcome


@pytest.mark.parametrize("name", ["alone", "lone"])
@pytest.mark.parametrize("evil", HTTP_EVILS)
def test_over_http(evil, name, server, bundles, call, expected):
    endless = evil.startswith(("drip", "flood", "says"))
    for seed in SEEDS[:1] if endless else SEEDS:
        with EvilHttpServer(server.http_port, HTTP_EVILS[evil], seed).running() as stranger:
            outcome = ask(f"http://127.0.0.1:{stranger.port}", name, bundles, call, expected)
            assert stranger.asked
            assert not stranger.outlasted
        if evil not in ("flipped_bits", "answers_twice"):
            assert outcome == ("device" if name == "alone" else "error")


@pytest.mark.parametrize("name", ["alone", "lone"])
@pytest.mark.parametrize("evil", GRPC_EVILS)
def test_over_grpc(evil, name, server, bundles, call, expected):
    for seed in SEEDS:
        with evil_grpc_server(server.port, GRPC_EVILS[evil], seed) as port:
            outcome = ask(f"grpc://127.0.0.1:{port}", name, bundles, call, expected, timeout_s=5.0)
        if evil not in ("flipped", "huge"):
            assert outcome == ("device" if name == "alone" else "error")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_more_than_the_outputs_can_be_is_not_read(scheme, tmp_path):
    """Of a bundle without open dimensions, whose answers have a size."""
    nodes = [helper.make_node("Neg", ["x"], ["cut"]), helper.make_node("Neg", ["cut"], ["logits"])]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "logits")
    ]
    graph = helper.make_graph(nodes, "fixed", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "fixed.onnx")
    bundle, expected = tmp_path / "fixed", np.arange(4, dtype=np.float32)
    irsplit.compile_model(tmp_path / "fixed.onnx", bundle, ["cut"], autonomous=True)
    call = {"x": expected}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            serving([f"alone={bundle}"], ServerOptions(port=0, http_port=0))
        )
        if scheme == "grpc":
            port = stack.enter_context(evil_grpc_server(server.port, GRPC_EVILS["huge"]))
        else:
            port = stack.enter_context(
                EvilHttpServer(server.http_port, servers.huge_body).running()
            ).port
        url = f"{scheme}://127.0.0.1:{port}"
        with irsplit.runtime.connect(url, bundle, name="alone", retry_policy=PATIENCE) as session:
            answer = session.infer(call, timeout_s=5.0)
        np.testing.assert_array_equal(answer.outputs["logits"], expected)
        assert answer.path == "device"
        assert ("larger than max" if scheme == "grpc" else "possible") in answer.reason


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("misfit", MISFITS)
def test_answers_that_do_not_fit_are_none(
    misfit, scheme, server, bundles, call, expected, monkeypatch
):
    honest = ServedBundle.infer
    monkeypatch.setattr(
        ServedBundle, "infer", lambda self, request: MISFITS[misfit](honest(self, request))
    )
    port = server.port if scheme == "grpc" else server.http_port
    for name, outcome in (("alone", "device"), ("lone", "error")):
        assert (
            ask(f"{scheme}://127.0.0.1:{port}", name, bundles, call, expected, timeout_s=5.0)
            == outcome
        )


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("strange", STRANGE_TIMES)
def test_times_that_make_no_sense_do_no_harm(
    strange, checked, server, bundles, call, expected, monkeypatch
):
    """To what a session that chooses its cut learns from them."""
    honest = ServedBundle.infer
    monkeypatch.setattr(
        ServedBundle, "infer", lambda self, request: STRANGE_TIMES[strange](honest(self, request))
    )
    monkeypatch.setattr(
        server.service, "_count", lambda *_: None
    )  # the honest server would not count such times
    url = f"http://127.0.0.1:{server.http_port}"
    with irsplit.runtime.connect(
        url, bundles["alone"], name="alone", policy=SwitchingPolicy(), checked=checked
    ) as session:
        for _ in range(3):
            answer = session.infer(call)
            np.testing.assert_array_equal(answer.outputs["logits"], expected)
        assert (session.metrics().server_wait_s or 0.0) < 60


def test_a_name_server_that_does_not_answer_is_waited_for_once(bundles, call, monkeypatch):
    answers, look_ups = threading.Event(), list[str]()

    def never(host: str, *_: Any, **__: Any) -> Any:
        look_ups.append(host)
        answers.wait(servers.BOUND_S)
        raise OSError("no name server")

    monkeypatch.setattr("socket.getaddrinfo", never)
    with irsplit.runtime.connect(
        "http://server.example", bundles["lone"], retry_policy=PATIENCE
    ) as session:
        for _ in range(3):
            with pytest.raises(RemoteError, match="attempts"):
                session.infer(call, timeout_s=0.05)
    assert not answers.is_set()
    assert look_ups == ["server.example"]
    answers.set()


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_handshake_that_never_ends(scheme, server, bundles, call, expected):
    """TLS to a server that waits for the end of the headers, which a ClientHello lacks."""
    with EvilHttpServer(server.http_port, HTTP_EVILS["drip_everything"]).running() as stranger:
        outcome = ask(f"{scheme}://127.0.0.1:{stranger.port}", "alone", bundles, call, expected)
        assert outcome == "device"
        assert not stranger.outlasted


def test_an_update_from_a_server_that_drips_ends_in_time(server, bundles, tmp_path):
    with EvilHttpServer(server.http_port, HTTP_EVILS["drip_body"]).running() as stranger:
        with pytest.raises(RemoteError, match="did not arrive in time"):
            irsplit.runtime.update(
                f"http://127.0.0.1:{stranger.port}",
                tmp_path / "device",
                name="alone",
                timeout_s=0.3,
            )
        assert not stranger.outlasted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("timeout_s", [float("nan"), float("inf"), -1.0, 0.0, 1e300])
def test_any_number_is_a_timeout(timeout_s, server, bundles, call, expected):
    url = f"http://127.0.0.1:{server.http_port}"
    if timeout_s == timeout_s:
        assert ask(url, "alone", bundles, call, expected, timeout_s) == (
            "server" if timeout_s > 0 else "device"
        )
        return
    with (
        irsplit.runtime.connect(url, bundles["alone"]) as session,
        pytest.raises(RemoteError, match="nan"),
    ):
        session.infer(call, timeout_s=timeout_s)
