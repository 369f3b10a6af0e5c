"""Sessions of a stateful bundle: state of their own, every step once, forgotten when they are left alone.

A step is named by its number. The latest step may be asked again (its answer was lost on the way) and gets the same
answer without running; any other number than the next one means that client and server no longer agree, which is an
error and never a guess.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from irsplit.runtime.serving.messages import Code, ServiceError
from irsplit.runtime.serving.segments import Segments

_Answer = TypeVar("_Answer")


class Sequence(Generic[_Answer]):
    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.lock = threading.Lock()
        self.step = -1
        self.answer: _Answer | None = None
        self.used = 0.0


class Sequences(Generic[_Answer]):
    """`limit` bounds how many are kept, `expiry_s` how long an idle one is. Thread-safe."""

    def __init__(
        self,
        fresh: Callable[[], Segments],
        limit: int,
        expiry_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh = fresh
        self._limit = limit
        self._expiry_s = expiry_s
        self._clock = clock
        self._lock = threading.Lock()
        self._sequences: dict[str, Sequence[_Answer]] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def run(self, name: str, step: int | None, start: bool, end: bool, call: Callable[[Segments], _Answer]) -> _Answer:
        """The answer of a step; `step` None is the next one. `start` begins anew, `end` forgets after the answer.

        Raises ServiceError SESSION_LOST when the session is not known or the step is not the next one, OVERLOADED
        when there are too many.
        """
        sequence = self._begin(name, step) if start else self._find(name)
        with sequence.lock:
            if step is not None and step == sequence.step and sequence.answer is not None:
                return sequence.answer
            wanted = sequence.step + 1
            if step is not None and step != wanted:
                raise _lost(name, f"step {step} was asked, but {wanted} is the next one")
            if self._sequences.get(name) is not sequence:
                raise _lost(name, "a step before this one failed, or it ended")
            try:
                answer = call(sequence.segments)
            except BaseException:
                # The state may have moved or not: nobody can tell, so nobody may go on.
                self.forget(name)
                raise
            sequence.step, sequence.answer, sequence.used = wanted, answer, self._clock()
        if end:
            self.forget(name)
        return answer

    def forget(self, name: str) -> None:
        with self._lock:
            self._sequences.pop(name, None)

    def expire(self) -> None:
        """Forget what nobody has used for `expiry_s`."""
        oldest = self._clock() - self._expiry_s
        with self._lock:
            idle = [name for name, s in self._sequences.items() if s.used < oldest and not s.lock.locked()]
            for name in idle:
                del self._sequences[name]

    def _begin(self, name: str, step: int | None) -> Sequence[_Answer]:
        self.expire()
        with self._lock:
            known = self._sequences.get(name)
            if known is not None and step is not None and known.step <= step:
                return known  # its first answer was lost on the way
            if known is None and len(self._sequences) >= self._limit:
                text = f"{self._limit} sessions are open; end one, or let the server have more (--max-sessions)"
                raise ServiceError(Code.OVERLOADED, text)
            sequence = Sequence[_Answer](self._fresh())
            sequence.used = self._clock()
            self._sequences[name] = sequence
            return sequence

    def _find(self, name: str) -> Sequence[_Answer]:
        self.expire()
        with self._lock:
            if name not in self._sequences:
                raise _lost(name, "the server does not know it: it expired, ended, or the server was restarted")
            return self._sequences[name]


def _lost(name: str, why: str) -> ServiceError:
    return ServiceError(Code.SESSION_LOST, f"session '{name}': {why}; start it again")
