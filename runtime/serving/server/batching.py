"""Runs frames of several requests at once, where the first dimension of all tensors is a batch.

A shape does not say that rows are independent: a recurrent network may have time in its first
dimension. `batching_obstacle` finds out by trying.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec

_Key = TypeVar("_Key", bound=Hashable)
_Job = TypeVar("_Job")
_Answer = TypeVar("_Answer")

_PROBE_DIM = 3
"""Size of further dimensions that may vary, when rows are tried."""
_TOLERANCE = 1e-3
"""Allowed difference as a share of the largest element.

Kernels round differently for other batch sizes, but rows that depend on each other differ by far
more.
"""

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batching:
    """How frames are gathered.

    Attributes:
        frames: Frames in one run, at most; 1 runs every frame alone.
        delay_s: How long the first frame waits for others.
    """

    frames: int = 1
    delay_s: float = 0.0


def join_rows(requests: Sequence[Values]) -> dict[str, NDArray[Any]]:
    """Concatenate the values of several requests along their rows, by name."""
    return {
        name: np.concatenate([values[name] for values in requests], axis=0) for name in requests[0]
    }


def split_rows(
    values: Values, rows: Sequence[int], names: Sequence[str]
) -> list[dict[str, NDArray[Any]]]:
    """Undo `join_rows`.

    Args:
        values: Joined arrays by name.
        rows: Rows of each request.
        names: The arrays to split.

    Returns:
        The arrays of each request, by name.

    Raises:
        ValueError: An array has another number of rows than all requests together.
    """
    total = sum(rows)
    for name in names:
        if values[name].shape[:1] != (total,):
            shape = list(values[name].shape)
            raise ValueError(f"'{name}' of shape {shape} has no row for each of {total}")

    requests: list[dict[str, NDArray[Any]]] = []
    start = 0
    for count in rows:
        requests.append({name: values[name][start : start + count] for name in names})
        start += count

    return requests


def shape_key(values: Values) -> Hashable:
    """A key that is equal for values whose rows may be joined."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in values.items())


def batching_obstacle(
    schema: FrameSchema, run: Callable[[Values], Values], names: Sequence[str]
) -> str:
    """Find out why frames of a boundary cannot run together.

    Requests of one row and of two rows run alone, then joined. They can be batched if the results
    agree.

    Args:
        schema: The schema of the frames.
        run: Computes all values that answers need from the values of a frame.
        names: Those values that are compared.

    Returns:
        The reason, or "" if frames can run together.

    Raises:
        EngineError: The engine does not take the synthetic values.
    """
    for spec in schema.tensors:
        if spec.shape[:1] != (None,):
            return f"the first dimension of '{spec.name}' is fixed"

    for spec in schema.tensors:
        if spec.dtype[:2] in ("bf", "f8"):
            return f"'{spec.name}' has elements that cannot be made up"

    # Different numbers of rows, so that a shift between the requests shows.
    rows = (1, 2)
    random = np.random.default_rng(0)
    requests = [
        {spec.name: _random_array(spec, count, random) for spec in schema.tensors} for count in rows
    ]
    alone = [run(values) for values in requests]
    try:
        together = split_rows(run(join_rows(requests)), rows, names)
    except ValueError as error:
        return str(error)

    for expected, actual in zip(alone, together, strict=True):
        for name in names:
            if not _close(expected[name], actual[name]):
                return f"rows of '{name}' depend on each other"

    return ""


def _random_array(spec: TensorSpec, rows: int, random: np.random.Generator) -> NDArray[Any]:
    """Values for one tensor of a frame. Wide integers are 0 and 1, as they may be indices."""
    shape = (rows, *(_PROBE_DIM if dim is None else dim for dim in spec.shape[1:]))
    if spec.storage.kind == "f":
        return random.standard_normal(shape).astype(spec.storage)

    top = 100 if spec.dtype in ("i8", "u8") else 2
    return random.integers(0, top, shape).astype(spec.storage)


def _close(expected: NDArray[Any], actual: NDArray[Any]) -> bool:
    if expected.dtype.kind != "f" or expected.shape != actual.shape:
        return np.array_equal(expected, actual)

    largest = float(np.max(np.abs(expected), initial=0.0))
    return np.allclose(expected, actual, rtol=0, atol=_TOLERANCE * largest, equal_nan=True)


class _Group(Generic[_Job, _Answer]):
    """Jobs that wait for the same run."""

    def __init__(self) -> None:
        self.jobs: list[tuple[_Job, asyncio.Future[_Answer]]] = []
        self.full = asyncio.Event()


class Batcher(Generic[_Key, _Job, _Answer]):
    """Gathers jobs of the same key, and runs them together.

    A group is closed when it is full. Otherwise it is closed when its first job has waited for the
    delay and its turn to run has come, so it still grows while all workers are busy. Belongs to one
    event loop.

    Args:
        batching: Size of a group, and the delay.
        turn: Waits until a worker is free, and takes it.
        run: Runs the jobs of one key, and returns an answer or an exception for each.
    """

    def __init__(
        self,
        batching: Batching,
        turn: Callable[[], Awaitable[object]],
        run: Callable[[_Key, list[_Job]], Awaitable[Sequence[_Answer | Exception]]],
    ) -> None:
        self._batching = batching
        self._turn = turn
        self._run = run
        self._open: dict[_Key, _Group[_Job, _Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, key: _Key, job: _Job) -> _Answer:
        """Answer one job. A caller that is cancelled takes its job back if it has not begun."""
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _Group[_Job, _Answer]()
            task = asyncio.create_task(self._gather(key, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        group.jobs.append((job, answer))
        if len(group.jobs) >= self._batching.frames:
            group.full.set()
            self._close(key, group)

        return await answer

    def _close(self, key: _Key, group: _Group[_Job, _Answer]) -> None:
        """Let later jobs of this key begin another group."""
        if self._open.get(key) is group:
            del self._open[key]

    async def _gather(self, key: _Key, group: _Group[_Job, _Answer]) -> None:
        """Wait until a group is complete, run it, and hand out its answers."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(group.full.wait(), self._batching.delay_s)
        await self._turn()
        self._close(key, group)

        # A caller that was cancelled meanwhile has taken its job back.
        jobs = [(job, answer) for job, answer in group.jobs if not answer.done()]
        outcomes = await self._run(key, [job for job, _ in jobs])
        for (_, answer), outcome in zip(jobs, outcomes, strict=True):
            if answer.done():
                continue

            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
