"""Frames that run together get what they get alone, and only where rows are independent."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import irsplit
import irsplit.runtime
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    ServiceError,
    frame_tensor,
    to_array,
)
from irsplit.runtime.serving.server.batching import Batcher, Batching
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving

Nodes = Sequence[onnx.NodeProto]


def bundle(
    folder: Path, nodes: Nodes, shape: Sequence[str | int], dtype: int = TensorProto.FLOAT
) -> Path:
    """A bundle whose device gives `cut`, like the input, and whose server gives `y`."""
    x = helper.make_tensor_value_info("x", dtype, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", None][: len(shape)])
    table = helper.make_tensor("table", TensorProto.FLOAT, [4, 2], np.arange(8, dtype=np.float32))
    graph = helper.make_graph(nodes, "model", [x], [y], [table] if "table" in str(nodes) else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    irsplit.compile_model(folder / "model.onnx", folder / "bundle", ["cut"], codec="raw")
    return folder / "bundle"


def served(folder: Path) -> ServedBundle:
    return ServedBundle(Manifest.load(folder), "model", Limits(), EngineOptions(threads=1))


def request_of(folder: Path, x: NDArray[Any]) -> InferRequest:
    return InferRequest("model", "", [frame_tensor(irsplit.DeviceSession(folder).start({"x": x}))])


DOUBLED = (helper.make_node("Neg", ["x"], ["cut"]), helper.make_node("Add", ["cut", "cut"], ["y"]))
CENTRED = (
    helper.make_node("Neg", ["x"], ["cut"]),
    helper.make_node("ReduceMean", ["cut"], ["mean"], axes=[0]),
    helper.make_node("Sub", ["cut", "mean"], ["y"]),
)
TOTAL = (
    helper.make_node("Neg", ["x"], ["cut"]),
    helper.make_node("ReduceSum", ["cut"], ["y"], keepdims=0),
)
LOOKED_UP = (
    helper.make_node("Neg", ["x"], ["negative"]),
    helper.make_node("Neg", ["negative"], ["cut"]),
    helper.make_node("Gather", ["table", "cut"], ["y"]),
)


@pytest.mark.parametrize(
    ("nodes", "shape", "reason"),
    [
        (DOUBLED, ["rows", 2], {}),
        (DOUBLED, ["rows", "columns"], {}),
        (DOUBLED, [3, 2], {0: "the first dimension of 'cut' is fixed"}),
        (CENTRED, ["rows", 2], {0: "rows of 'y' depend on each other"}),
        (TOTAL, ["rows", 2], {0: "'y' of shape [] has no row for each of 3"}),
    ],
)
def test_only_independent_rows_run_together(nodes, shape, reason, tmp_path):
    folder = bundle(tmp_path, nodes, shape)
    hosted = served(folder)
    assert hosted.allow_batches() == reason
    x = np.ones([dim if isinstance(dim, int) else 2 for dim in shape], np.float32)
    assert hosted.boundary_of(request_of(folder, x)) == (None if reason else 0)


def test_every_frame_gets_its_own_rows(tmp_path):
    folder = bundle(tmp_path, DOUBLED, ["rows", "columns"])
    hosted = served(folder)
    hosted.allow_batches()
    inputs = [
        np.full((rows, columns), rows + columns, np.float32)
        for rows in (1, 3, 2)
        for columns in (2, 4)
    ]
    answers = hosted.infer_together([request_of(folder, x) for x in inputs])
    for x, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(to_array(answer.outputs[0]), -2 * x)


def test_damaged_frame_and_failing_row_fail_alone(tmp_path):
    folder = bundle(tmp_path, LOOKED_UP, ["rows"], TensorProto.INT64)
    hosted = served(folder)
    hosted.allow_batches()
    requests = [request_of(folder, np.array([index])) for index in (1, 99, 3)]
    requests.append(
        InferRequest("model", "", [frame_tensor(bytes(requests[0].inputs[0].data)[:-1])])
    )
    first, outside, last, damaged = hosted.infer_together(requests)
    np.testing.assert_array_equal(to_array(first.outputs[0]), [[2, 3]])
    np.testing.assert_array_equal(to_array(last.outputs[0]), [[6, 7]])
    assert isinstance(outside, ServiceError)
    assert outside.code is Code.INTERNAL
    assert isinstance(damaged, ServiceError)
    assert damaged.code is Code.INVALID


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_concurrent_callers_share_runs(name, calls, request):
    folder = request.getfixturevalue(f"{name}_bundle")
    local = irsplit.LocalSession(folder)
    expected = [local.run(call)["logits"] for call in calls[name]]
    options = ServerOptions(port=0, http_port=0, workers=1, batching=Batching(8, 0.2))
    wrong: list[int] = []
    with serving([f"{name}={folder}"], options) as server:
        url = f"grpc://127.0.0.1:{server.port}"
        with irsplit.runtime.connect(url, folder, name=name, timeout_s=30) as session:

            def caller(offset: int) -> None:
                for index in range(offset, len(expected), 8):
                    answer = session.infer(calls[name][index])
                    found = answer.outputs["logits"]
                    # Kernels of another batch size may round differently.
                    if answer.path != "server" or not np.allclose(
                        found, expected[index], rtol=1e-5, atol=1e-5
                    ):
                        wrong.append(index)

            threads = [threading.Thread(target=caller, args=(offset,)) for offset in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong
        assert batch_runs(server) == (
            len(expected),
            pytest.approx(len(expected) // 8, abs=len(expected) // 4),
        )


def batch_runs(server: Server) -> tuple[float, float]:
    """Frames that ran in batches, and runs."""
    (metric,) = server.service.metrics.batch.collect()
    values = {
        sample.name.rpartition("_")[2]: sample.value
        for sample in metric.samples
        if "bucket" not in sample.name
    }
    return values["sum"], values["count"]


class Recorder:
    """The other side of a Batcher: one turn at a time, answers are the jobs themselves."""

    def __init__(self, batching: Batching) -> None:
        self.runs: list[list[int]] = []
        self.turn = asyncio.Semaphore(1)
        self.collector = Batcher[str, int, int](batching, self.turn.acquire, self.run)

    async def run(self, key: str, jobs: list[int]) -> Sequence[int | Exception]:
        self.runs.append(jobs)
        self.turn.release()
        return [ValueError(str(job)) if job < 0 else job for job in jobs]


def test_full_batch_does_not_wait():
    async def main() -> None:
        recorder = Recorder(Batching(3, delay_s=3600))
        assert await asyncio.gather(*(recorder.collector.submit("a", job) for job in range(6))) == [
            0,
            1,
            2,
            3,
            4,
            5,
        ]
        assert recorder.runs == [[0, 1, 2], [3, 4, 5]]

    asyncio.run(main())


def test_jobs_gather_while_others_have_their_turn():
    async def main() -> None:
        recorder = Recorder(Batching(8, delay_s=0))
        await recorder.turn.acquire()
        waiting = [
            asyncio.create_task(recorder.collector.submit(key, job))
            for job, key in enumerate("aab")
        ]
        await asyncio.sleep(0.05)
        assert recorder.runs == []
        late = asyncio.create_task(recorder.collector.submit("a", 3))
        waiting[1].cancel()
        await asyncio.sleep(0)
        recorder.turn.release()
        found = await asyncio.gather(*waiting, late, return_exceptions=True)
        assert [found[0], found[2], found[3]] == [0, 2, 3]
        assert isinstance(found[1], asyncio.CancelledError)
        assert sorted(recorder.runs) == [[0, 3], [2]]

    asyncio.run(main())


def test_error_is_one_jobs_own():
    async def main() -> None:
        recorder = Recorder(Batching(2, delay_s=3600))
        good, bad = await asyncio.gather(
            recorder.collector.submit("a", 7),
            recorder.collector.submit("a", -7),
            return_exceptions=True,
        )
        assert good == 7
        assert isinstance(bad, ValueError)

    asyncio.run(main())
