"""A decoder whose cache stays where its layers run, on both sides; and calls that overlap."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
import irsplit.runtime
from irsplit.base.errors import RemoteError, SessionLostError
from irsplit.runtime.serving.client.pipeline import pipelined
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.server.server import ServerOptions, serving
from stock_engines import same_bits
from transformers import decoder

TOKENS = [{"input_ids": np.array([[token]])} for token in (3, 1, 4, 1, 5, 9)]
PLACES = {"one visit": ("device", "server"), "two visits": ("device", "server", "device", "server")}
HASTY = RetryPolicy(attempts=2, backoff_s=0.01, breaker_failures=100)


@pytest.fixture(scope="module", params=PLACES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every segment has a layer with a cache of its own."""
    folder, places = tmp_path_factory.mktemp("decoder"), PLACES[request.param]
    path = decoder(folder / "decoder.onnx", len(places))
    cuts = [f"layer{index}" for index in range(len(places) - 1)]
    irsplit.compile_model(
        path, folder / "bundle", cuts, places=places, state=["auto"], remember=False
    )
    return folder / "bundle"


@pytest.fixture(scope="module")
def expected(bundle: Path) -> list[Any]:
    local = irsplit.LocalSession(bundle)
    return [local.run(call)["logits"] for call in TOKENS]


def options(**changes: Any) -> ServerOptions:
    return ServerOptions(**{"port": 0, "http_port": 0, **changes})


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_both_halves_keep_their_cache_and_sessions_keep_theirs_apart(bundle, expected, scheme):
    with serving([f"decoder={bundle}"], options()) as server:
        url = f"{scheme}://127.0.0.1:{server.port if scheme == 'grpc' else server.http_port}"
        with (
            irsplit.runtime.connect(url, bundle, name="decoder") as one,
            irsplit.runtime.connect(url, bundle, name="decoder") as other,
        ):
            found = [(one.infer(call), other.infer(call)) for call in TOKENS]
            for position in (0, 1):
                assert same_bits([pair[position].outputs["logits"] for pair in found], expected)
            one.reset()
            streamed = list(one.stream(TOKENS, depth=3))
            assert same_bits([answer.outputs["logits"] for answer in streamed], expected)
            assert {answer.path for answer in streamed} == {"server"}


def test_a_server_that_was_restarted_is_an_error_and_then_a_new_stream(bundle, expected):
    with serving([f"decoder={bundle}"], options()) as server:
        port = server.port
        session = irsplit.runtime.connect(
            f"grpc://127.0.0.1:{port}", bundle, name="decoder", retry_policy=HASTY
        )
        assert same_bits(
            [session.infer(call).outputs["logits"] for call in TOKENS[:3]], expected[:3]
        )
    with session, serving([f"decoder={bundle}"], options(port=port)):
        for _ in range(2):
            with pytest.raises(SessionLostError, match="reset"):
                session.infer(TOKENS[3])
        session.reset()
        assert same_bits([session.infer(call).outputs["logits"] for call in TOKENS], expected)


@contextlib.contextmanager
def command(bundle: Path, port: str = "0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its port."""
    words = ["--port", port, "--no-http", "--batch", "8", "--max-sessions", "2"]
    line = [sys.executable, "-m", "irsplit", "serve", f"decoder={bundle}", *words]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip().rpartition(":")[2]
        process.kill()


@pytest.mark.parametrize("bundle", ["one visit"], indirect=True)
def test_clients_of_one_session_id_and_a_server_that_was_killed(bundle, expected):
    """The process batches, which a state must not see, and keeps two sessions."""
    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(command(bundle))
        one, thief, other, late = (
            stack.enter_context(
                irsplit.runtime.connect(
                    f"grpc://127.0.0.1:{port}", bundle, name="decoder", retry_policy=HASTY
                )
            )
            for _ in range(4)
        )
        found = [one.infer(call).outputs["logits"] for call in TOKENS[:2]]
        thief._stream._id = one._stream._id
        with pytest.raises(SessionLostError, match="start another one"):
            thief.infer(TOKENS[2])
        assert same_bits([other.infer(call).outputs["logits"] for call in TOKENS[:2]], expected[:2])
        with pytest.raises(RemoteError, match="2 sessions are open"):
            late.infer(TOKENS[0])
        found += [one.infer(call).outputs["logits"] for call in TOKENS[2:4]]
        assert same_bits(found, expected[:4])
        process.kill()
        process.wait()
        stack.enter_context(command(bundle, port))
        for session in (one, other):
            with pytest.raises(
                SessionLostError,
                match="does not know it: it expired, ended, or the server was restarted",
            ):
                session.infer(TOKENS[4])
            session.reset()
            assert same_bits([session.infer(call).outputs["logits"] for call in TOKENS], expected)


@pytest.mark.parametrize("finishing", [1, 2])
def test_the_next_call_begins_while_this_one_is_finished(finishing):
    """A call is finished only when the next has begun: in turns, this would wait for ever."""
    count = 20
    begun = [threading.Event() for _ in range(count + 1)]
    begun[count].set()

    def start(index: int) -> int:
        begun[index].set()
        return index

    def finish(index: int) -> tuple[int, bool]:
        return index, begun[index + 1].wait(timeout=60)

    assert list(pipelined(range(count), start, finish, 3, finishing)) == [
        (index, True) for index in range(count)
    ]


def test_a_failure_comes_in_its_place_and_nothing_is_begun_after_it():
    begun: list[int] = []

    def finish(index: int) -> int:
        if index == 5:
            raise ValueError("the fifth")
        return index

    answers = pipelined(range(100), lambda index: (begun.append(index), index)[1], finish, 3, 2)
    found: list[int] = []
    with pytest.raises(ValueError, match="the fifth"):
        found.extend(answers)
    assert found == [0, 1, 2, 3, 4]
    assert max(begun) <= 8
