"""Run two stages over a stream of calls: in order, with a bounded number under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Call = TypeVar("_Call")
_Middle = TypeVar("_Middle")
_Answer = TypeVar("_Answer")


def pipelined(
    calls: Iterable[_Call],
    start: Callable[[_Call], _Middle],
    finish: Callable[[_Middle], _Answer],
    depth: int,
    finishing: int,
) -> Iterator[_Answer]:
    """Yield `finish(start(call))` for every call, in the order of the calls.

    The first failure is raised in the place of its answer. Calls behind it that had not begun
    before it do not begin any more.

    Args:
        calls: The calls; the next one is taken only when fewer than `depth` are under way.
        start: The first stage, which runs for one call at a time.
        finish: The second stage.
        depth: How many calls may be under way.
        finishing: How many calls may be in the second stage at a time.
    """
    under_way = deque[Future[_Answer]]()
    first = ThreadPoolExecutor(1, "irsplit-start")
    second = ThreadPoolExecutor(finishing, "irsplit-finish")

    def submit(call: _Call) -> Future[_Answer]:
        begun = first.submit(start, call)
        return second.submit(lambda: finish(begun.result()))

    try:
        for call in calls:
            under_way.append(submit(call))
            if len(under_way) >= depth:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        # After a failure, or if the caller stops early: nothing that is queued begins.
        first.shutdown(cancel_futures=True)
        second.shutdown(cancel_futures=True)
