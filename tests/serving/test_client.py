"""The client against a server that comes and goes: right answers, or a clear error."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stateful import counting_model

import irsplit
import irsplit.runtime
from benchmarks.link import PERFECT, Proxy
from irsplit.base.errors import DeadlineError, RemoteError, SessionLostError
from irsplit.runtime.serving.client import session as client
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.client.transport import TransportError
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
    frame_tensor,
)
from irsplit.runtime.serving.server.served import Limits
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

HASTY = RetryPolicy(
    attempts=3, backoff_s=0.01, breaker_failures=2, probe_s=0.05, longest_probe_s=0.2
)


ONE = np.ones((1, 2), np.float32)


def options(**changes: Any) -> ServerOptions:
    return ServerOptions(**{"port": 0, "http_port": 0, **changes})


def urls(server: Server) -> dict[str, str]:
    return {
        "grpc": f"grpc://127.0.0.1:{server.port}",
        "http": f"http://127.0.0.1:{server.http_port}",
    }


@pytest.fixture(scope="module")
def server(onnx_bundle: Path, tflite_bundle: Path) -> Iterator[Server]:
    with serving([f"onnx={onnx_bundle}", f"tflite={tflite_bundle}"], options()) as server:
        yield server


@pytest.fixture(scope="module")
def lone_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose device cannot finish alone."""
    folder = tmp_path_factory.mktemp("bundles") / "lone"
    model = Path(__file__).parent.parent.parent / "examples" / "digits" / "digits.onnx"
    irsplit.compile_model(model, folder, ["bottleneck/relu"])
    return folder


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_answers_are_those_of_one_process(scheme, name, server, calls, request):
    folder = request.getfixturevalue(f"{name}_bundle")
    local = irsplit.LocalSession(folder)
    with irsplit.runtime.connect(urls(server)[scheme], folder, name=name) as session:
        for call in calls[name]:
            answer = session.infer(call)
            assert (answer.path, answer.boundary, answer.attempts, answer.reason) == (
                "server",
                0,
                1,
                "",
            )
            np.testing.assert_array_equal(answer.outputs["logits"], local.run(call)["logits"])


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_concurrent_callers_get_their_own_answers(scheme, server, calls, onnx_bundle):
    local = irsplit.LocalSession(onnx_bundle)
    expected = [local.run(call)["logits"] for call in calls["onnx"]]
    wrong: list[int] = []
    with irsplit.runtime.connect(urls(server)[scheme], onnx_bundle, name="onnx") as session:

        def caller(offset: int) -> None:
            for index in range(offset, len(expected), 4):
                answer = session.infer(calls["onnx"][index])
                if answer.path != "server" or not np.array_equal(
                    answer.outputs["logits"], expected[index]
                ):
                    wrong.append(index)

        threads = [threading.Thread(target=caller, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_stream_keeps_order_and_bounds_what_is_under_way(server, calls, onnx_bundle):
    local = irsplit.LocalSession(onnx_bundle)
    taken = 0

    def source() -> Iterator[Any]:
        nonlocal taken
        for call in calls["onnx"]:
            taken += 1
            yield call

    with irsplit.runtime.connect(urls(server)["grpc"], onnx_bundle, name="onnx") as session:
        for index, answer in enumerate(session.stream(source(), depth=3)):
            assert taken <= index + 3
            np.testing.assert_array_equal(
                answer.outputs["logits"], local.run(calls["onnx"][index])["logits"]
            )
    assert taken == len(calls["onnx"])


def test_device_finishes_when_nobody_listens_and_a_dead_link_costs_nothing(calls, onnx_bundle):
    expected = irsplit.LocalSession(onnx_bundle).run(calls["onnx"][0])["logits"]
    with irsplit.runtime.connect("http://127.0.0.1:9", onnx_bundle, retry_policy=HASTY) as session:
        first = session.infer(calls["onnx"][0])
        assert (first.path, first.attempts) == ("device", 2)
        assert not session.link_up
        later = session.infer(calls["onnx"][0])
        assert (later.path, later.attempts) == ("device", 0)
        assert "circuit open" in later.reason
        np.testing.assert_array_equal(first.outputs["logits"], expected)
        np.testing.assert_array_equal(later.outputs["logits"], expected)


def test_bundle_without_the_rest_says_so(calls, lone_bundle):
    with (
        irsplit.runtime.connect("http://127.0.0.1:9", lone_bundle, retry_policy=HASTY) as session,
        pytest.raises(RemoteError, match="--autonomous"),
    ):
        session.infer(calls["onnx"][0])


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_link_that_is_cut_is_found_again(scheme, server, calls, onnx_bundle):
    port = server.port if scheme == "grpc" else server.http_port
    call = calls["onnx"][0]
    assert port is not None
    with Proxy(port).running() as proxy:
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        with irsplit.runtime.connect(url, onnx_bundle, name="onnx", retry_policy=HASTY) as session:
            assert session.infer(call).path == "server"
            proxy.cut()
            assert session.infer(call).path == "device"
            _until(
                lambda: session.infer(call, timeout_s=1.0).path == "device" and not session.link_up
            )
            proxy.mend()
            _until(lambda: session.link_up)
            assert session.infer(call).path == "server"


def test_half_open_connection_ends_with_the_deadline(server, calls, onnx_bundle, lone_bundle):
    call = calls["onnx"][0]
    with Proxy(server.port).running() as proxy:
        url = f"grpc://127.0.0.1:{proxy.port}"
        with irsplit.runtime.connect(url, onnx_bundle, name="onnx", retry_policy=HASTY) as session:
            assert session.infer(call).path == "server"
            proxy.freeze()
            answer = session.infer(call, timeout_s=0.6)
            assert answer.path == "device"
        with (
            irsplit.runtime.connect(url, lone_bundle, retry_policy=HASTY) as session,
            pytest.raises(DeadlineError),
        ):
            session.infer(call, timeout_s=0.3)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_damaged_bytes_never_become_an_answer(scheme, server, calls, onnx_bundle):
    port = server.port if scheme == "grpc" else server.http_port
    local = irsplit.LocalSession(onnx_bundle)
    stubborn = RetryPolicy(attempts=20, backoff_s=0.001, breaker_failures=1000)
    with Proxy(port, replace(PERFECT, corruption_ppm=200_000), seed=7).running() as proxy:
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        with irsplit.runtime.connect(
            url, onnx_bundle, name="onnx", retry_policy=stubborn
        ) as session:
            attempts = 0
            for call in calls["onnx"]:
                answer = session.infer(call, timeout_s=1.0)
                attempts += answer.attempts
                np.testing.assert_array_equal(answer.outputs["logits"], local.run(call)["logits"])
    assert attempts > len(calls["onnx"])


class Nameless:
    """A transport on whose way the checksum's name is damaged, and an output with it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.ready, self.close = inner.ready, inner.close

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        response = self.inner.infer(request, timeout_s)
        parameters = {
            key.replace("checksum", "checksul"): value for key, value in response.parameters.items()
        }
        (output,) = response.outputs
        damaged = replace(output, data=bytes([output.data[0] ^ 1]) + bytes(output.data[1:]))
        return replace(response, parameters=parameters, outputs=[damaged])


def test_answer_without_its_checksum_is_not_believed(server, calls, onnx_bundle):
    expected = irsplit.LocalSession(onnx_bundle).run(calls["onnx"][0])["logits"]
    with irsplit.runtime.connect(
        urls(server)["grpc"], onnx_bundle, name="onnx", retry_policy=HASTY
    ) as session:
        session._client._transport = Nameless(session._client._transport)
        answer = session.infer(calls["onnx"][0])
        assert (answer.path, "checksum" in answer.reason) == ("device", True)
        np.testing.assert_array_equal(answer.outputs["logits"], expected)


def test_overloaded_server_is_told_from_a_dead_one(calls, onnx_bundle):
    with serving([f"onnx={onnx_bundle}"], options(workers=1, queue=0)) as server:
        server.service._busy = 1  # as if a long request were running
        with irsplit.runtime.connect(
            urls(server)["grpc"], onnx_bundle, name="onnx", retry_policy=HASTY
        ) as session:
            answer = session.infer(calls["onnx"][0])
            assert (answer.path, "RESOURCE_EXHAUSTED" in answer.reason) == ("device", True)
        server.service._busy = 0


def test_other_build_of_the_bundle_is_refused_not_guessed(calls, lone_bundle, server):
    with (
        irsplit.runtime.connect(urls(server)["grpc"], lone_bundle, name="onnx") as session,
        pytest.raises(RemoteError, match="same build"),
    ):
        session.infer(calls["onnx"][0])


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://"])
def test_addresses_that_are_none_are_refused(url, onnx_bundle):
    with pytest.raises(RemoteError):
        irsplit.runtime.connect(url, onnx_bundle)


class Forgetful:
    """A transport that passes requests on and loses the answers that `loses` picks."""

    def __init__(self, inner: Any, loses: Callable[[int], bool]) -> None:
        self.inner, self.loses, self.count = inner, loses, 0

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        response = self.inner.infer(request, timeout_s)
        self.count += 1
        if self.loses(self.count):
            raise TransportError(None, "the answer was lost")
        return response

    def ready(self, timeout_s: float) -> bool:
        return self.inner.ready(timeout_s)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose server segment counts its calls."""
    folder = tmp_path_factory.mktemp("counter")
    irsplit.compile_model(counting_model(folder / "counter.tflite"), folder / "bundle", ["cut"])
    return folder / "bundle"


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_refusal_comes_in_the_words_of_the_server(scheme, server, lone_bundle, calls):
    with (
        irsplit.runtime.connect(
            urls(server)[scheme], lone_bundle, name="nothing", retry_policy=HASTY
        ) as session,
        pytest.raises(
            RemoteError, match=r"\((NOT_FOUND: )?no bundle 'nothing' here; bundles: onnx, tflite\)"
        ),
    ):
        session.infer(calls["onnx"][0])


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize(
    ("host", "remedy"),
    [("127.0.0.1:9", "nobody listens there; give"), ("no.such.invalid:9", "no such host; give")],
)
def test_what_to_do_about_an_address_that_is_none(scheme, host, remedy, lone_bundle, calls):
    with (
        irsplit.runtime.connect(f"{scheme}://{host}", lone_bundle, retry_policy=HASTY) as session,
        pytest.raises(RemoteError, match=remedy),
    ):
        session.infer(calls["onnx"][0])


def counted(session: Any) -> float:
    answer = session.infer({"x": ONE})
    assert answer.path == "server"
    return float(answer.outputs["count"][0, 0])


def test_stateful_steps_run_once_although_answers_are_lost(counter):
    with serving([f"counter={counter}"], options()) as server:
        session = irsplit.runtime.connect(
            urls(server)["grpc"], counter, name="counter", retry_policy=HASTY
        )
        retrying = session._client
        retrying._transport = Forgetful(retrying._transport, lambda count: count % 2 == 1)
        with session:
            assert [counted(session) for _ in range(5)] == [1, 2, 3, 4, 5]
            session.reset()
            assert counted(session) == 1


def test_sessions_do_not_share_state(counter):
    with serving([f"counter={counter}"], options()) as server:
        url = urls(server)["http"]
        with (
            irsplit.runtime.connect(url, counter, name="counter") as one,
            irsplit.runtime.connect(url, counter, name="counter") as other,
        ):
            assert [counted(one), counted(one), counted(other), counted(one)] == [1, 2, 1, 3]


def test_a_server_without_state_asks_for_no_session(tmp_path):
    """The device counts; the server's segment may be run for anybody, in any order."""
    irsplit.compile_model(
        counting_model(tmp_path / "counter.tflite", shown=True), tmp_path / "bundle", ["count"]
    )
    with (
        serving([f"counter={tmp_path / 'bundle'}"], options()) as server,
        irsplit.runtime.connect(
            urls(server)["grpc"], tmp_path / "bundle", name="counter"
        ) as session,
    ):
        answers = [session.infer({"x": ONE}) for _ in range(3)]
    assert [(answer.path, float(answer.outputs["shown"][0, 0])) for answer in answers] == [
        ("server", 1),
        ("server", 2),
        ("server", 3),
    ]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_stream_that_is_over_leaves_nothing_at_the_server(scheme, counter, tmp_path):
    """Also of the older of two versions, which no frame tells in that request."""
    later = tmp_path / "later"
    irsplit.compile_model(
        counting_model(tmp_path / "counter.tflite"), later, ["cut"], autonomous=True
    )
    with serving(
        [f"counter={counter}", f"counter={later}"], options(limits=Limits(sessions=1))
    ) as server:
        sequences = next(iter(server.service.bundles["counter"].values())).sequences
        with irsplit.runtime.connect(urls(server)[scheme], counter, name="counter") as session:
            assert [counted(session), counted(session), len(sequences)] == [1, 2, 1]
            session.reset()
            assert [counted(session), len(sequences)] == [1, 1]
        assert len(sequences) == 0


def test_closing_does_not_wait_for_a_server_that_does_not_answer(counter, monkeypatch):
    monkeypatch.setattr(client, "ENDING_S", 0.01)
    goes_on = threading.Event()

    def never(*_: Any) -> InferResponse:
        goes_on.wait(30)
        raise TransportError(None, "no answer")

    with serving([f"counter={counter}"], options()) as server:
        session = irsplit.runtime.connect(
            urls(server)["grpc"], counter, name="counter", retry_policy=HASTY
        )
        assert counted(session) == 1
        monkeypatch.setattr(session._client._transport, "infer", never)
        session.close()
        assert session._ending.is_alive()
        goes_on.set()
        session._ending.join()


def test_lost_state_is_an_error_until_reset(counter):
    with (
        serving([f"counter={counter}"], options(limits=Limits(session_idle_s=0.0))) as server,
        irsplit.runtime.connect(urls(server)["grpc"], counter, name="counter") as session,
    ):
        assert counted(session) == 1
        for _ in range(2):
            with pytest.raises(SessionLostError, match="reset"):
                counted(session)
        session.reset()
        assert counted(session) == 1


def test_stateful_stream_stays_on_the_device_once_it_began_there(counter, tmp_path):
    model = counting_model(tmp_path / "counter.tflite")
    irsplit.compile_model(model, tmp_path / "bundle", ["cut"], autonomous=True)
    with irsplit.runtime.connect(
        "http://127.0.0.1:9", tmp_path / "bundle", retry_policy=HASTY
    ) as session:
        answers = [session.infer({"x": ONE}) for _ in range(3)]
    assert [(answer.path, float(answer.outputs["count"][0, 0])) for answer in answers] == [
        ("device", 1),
        ("device", 2),
        ("device", 3),
    ]


def test_server_refuses_steps_out_of_order(counter):
    with serving([f"counter={counter}"], options()) as server:
        bundle = next(iter(server.service.bundles["counter"].values()))
        device = irsplit.DeviceSession(counter)
        frame = frame_tensor(bytes(device.start({"x": ONE})))

        def step(**parameters: Any) -> Any:
            return (
                bundle.infer(InferRequest("counter", "", [frame], parameters=parameters))
                .outputs[0]
                .data
            )

        with pytest.raises(ServiceError, match="sequence_id"):
            step()
        first = step(sequence_id="a", sequence_step=0, sequence_start=True)
        assert step(sequence_id="a", sequence_step=0, sequence_start=True) == first
        assert step(sequence_id="a", sequence_step=1) != first
        for parameters in (
            {"sequence_id": "a", "sequence_step": 5},
            {"sequence_id": "b", "sequence_step": 1},
        ):
            with pytest.raises(ServiceError, match="session") as caught:
                step(**parameters)
            assert caught.value.code is Code.SESSION_LOST
