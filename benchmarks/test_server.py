"""A resume over gRPC on loopback, against the resume itself and an empty grpc.aio server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import irsplit
from benchmarks.serving import Process, large_frame
from benchmarks.suite import describe
from irsplit.runtime.serving.protocol.messages import InferRequest, frame_tensor

GROUP = "server: a frame of 100 kB"
QUIET = ("--port", "0", "--no-http", "--log-level", "error")


@pytest.fixture(scope="module")
def frame(folder: Path) -> tuple[Path, bytes, Any]:
    return large_frame(folder)


def test_direct(frame: tuple[Path, bytes, Any], benchmark: BenchmarkFixture) -> None:
    describe(benchmark, GROUP, "resume in this process", "yardstick")
    bundle, data, expected = frame
    session = irsplit.ServerSession(bundle)
    assert benchmark(session.resume, data)["y"] == expected


def test_grpc_aio_echo(frame: tuple[Path, bytes, Any], benchmark: BenchmarkFixture) -> None:
    describe(benchmark, GROUP, "empty grpc.aio server", "yardstick")
    request = InferRequest("largest", "", [frame_tensor(frame[1])])
    with Process(["benchmarks.serving", "--echo"]) as call:
        benchmark(call, request)


def test_irsplit_serve(frame: tuple[Path, bytes, Any], benchmark: BenchmarkFixture) -> None:
    describe(benchmark, GROUP, "irsplit serve")
    bundle, data, expected = frame
    request = InferRequest("largest", "", [frame_tensor(data)])
    with Process(["irsplit", "serve", *QUIET, str(bundle)]) as call:
        answer = benchmark(call, request)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == expected
