"""Two stages over a stream of calls: order kept, a bounded number under way."""

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
    """finish(start(call)) of every call in order; `start` one at a time, up to `finishing` of `finish` at a time.

    The next call is taken only when fewer than `depth` are under way. The first failure is raised in its place, and
    nothing that was not begun before it is begun after it.
    """
    under_way = deque[Future[_Answer]]()
    first, second = (
        ThreadPoolExecutor(1, "irsplit-start"),
        ThreadPoolExecutor(finishing, "irsplit-finish"),
    )

    def both(call: _Call) -> Future[_Answer]:
        begun = first.submit(start, call)
        return second.submit(lambda: finish(begun.result()))

    try:
        for call in calls:
            under_way.append(both(call))
            if len(under_way) >= depth:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        first.shutdown(cancel_futures=True)
        second.shutdown(cancel_futures=True)
