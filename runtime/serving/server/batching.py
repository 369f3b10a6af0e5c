"""Frames of several requests through the engine at once, where the first dimension of all tensors is a batch.

A shape does not say that rows are independent (a recurrent network may have time there): `mixed_rows` tries it out.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
"""Of the largest element: kernels round differently for other batches, but rows that mix differ by far more."""

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batching:
    """At most `frames` together; the first of them waits `delay_s` for others. `frames` 1: every frame alone."""

    frames: int = 1
    delay_s: float = 0.0


def joined(parts: Sequence[Values]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def parted(
    values: Values, rows: Sequence[int], names: Sequence[str]
) -> list[dict[str, NDArray[Any]]]:
    """The rows of each part. Raises ValueError when a value has another number of rows."""
    for name in names:
        if values[name].shape[:1] != (sum(rows),):
            raise ValueError(
                f"'{name}' of shape {list(values[name].shape)} has no row for each of {sum(rows)}"
            )
    ends = list(accumulate(rows))
    return [
        {name: values[name][end - count : end] for name in names}
        for count, end in zip(rows, ends, strict=True)
    ]


def alike(values: Values) -> Hashable:
    """Equal for values that may be joined."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in values.items())


def mixed_rows(boundary: FrameSchema, run: Callable[[Values], Values], names: Sequence[str]) -> str:
    """Why frames of this boundary cannot be joined, "" when they can; `run` gives the values that answers need."""
    fixed = next((spec.name for spec in boundary.tensors if spec.shape[:1] != (None,)), None)
    if fixed is not None:
        return f"the first dimension of '{fixed}' is fixed"
    unknown = next((spec.name for spec in boundary.tensors if spec.dtype[:2] in ("bf", "f8")), None)
    if unknown is not None:
        return f"'{unknown}' has elements that cannot be made up"
    random = np.random.default_rng(0)
    parts = [
        {spec.name: _sample(spec, rows, random) for spec in boundary.tensors} for rows in (1, 2)
    ]
    alone = [run(part) for part in parts]
    try:
        together = parted(run(joined(parts)), (1, 2), names)
    except ValueError as error:
        return str(error)
    for expected, found in zip(alone, together, strict=True):
        for name in names:
            if not _close(expected[name], found[name]):
                return f"rows of '{name}' depend on each other"
    return ""


def _sample(spec: TensorSpec, rows: int, random: np.random.Generator) -> NDArray[Any]:
    shape = (rows, *(_PROBE_DIM if dim is None else dim for dim in spec.shape[1:]))
    if spec.storage.kind == "f":
        return random.standard_normal(shape).astype(spec.storage)
    # Wide integers may be indices: 0 and 1 are legal ones nearly everywhere.
    top = 100 if spec.dtype in ("i8", "u8") else 2
    return random.integers(0, top, shape).astype(spec.storage)


def _close(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    if expected.dtype.kind != "f" or expected.shape != found.shape:
        return np.array_equal(expected, found)
    largest = float(np.max(np.abs(expected), initial=0.0))
    return np.allclose(expected, found, rtol=0, atol=_TOLERANCE * largest, equal_nan=True)


class _Group(Generic[_Job, _Answer]):
    """Jobs that wait for the same run."""

    def __init__(self) -> None:
        self.jobs: list[tuple[_Job, asyncio.Future[_Answer]]] = []
        self.full = asyncio.Event()


class Collector(Generic[_Key, _Job, _Answer]):
    """Gathers jobs of one key until there are enough or the first has waited long enough, and `run` has its `turn`.

    `run` gives an answer or an exception for each job. Belongs to one event loop.
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
        """The answer to one job. A caller that is cancelled takes its job back if it has not begun."""
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
        """Later jobs of this key begin another group."""
        if self._open.get(key) is group:
            del self._open[key]

    async def _gather(self, key: _Key, group: _Group[_Job, _Answer]) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(group.full.wait(), self._batching.delay_s)
        await self._turn()
        self._close(key, group)
        jobs = [(job, answer) for job, answer in group.jobs if not answer.done()]
        outcomes = await self._run(key, [job for job, _ in jobs])
        for (_, answer), outcome in zip(jobs, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
