"""Sessions of a stateful bundle: state of their own, every step once, forgotten when they are left alone.

A step is named by its number. The latest step may be asked again (its answer was lost on the way) and gets the same
answer without running, if it brings the same contents; any other number than the next one means that client and server
no longer agree, which is an error and never a guess. So clients that number their steps and took the same name by
accident hear of it. Steps without numbers, as other engines have them, follow each other as they come, and a start is
always a new beginning.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from irsplit.runtime.run.segments import SegmentRunner
from irsplit.runtime.serving.protocol.messages import Code, ServiceError

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Step:
    """`number` None is the next one. `start` begins anew, `end` forgets after the answer; `contents` is a digest."""

    number: int | None = None
    start: bool = False
    end: bool = False
    contents: Hashable = None


class Sequence(Generic[_Answer]):
    def __init__(self, segments: SegmentRunner, numbered: bool) -> None:
        self.segments = segments
        self.numbered = numbered
        self.lock = threading.Lock()
        self.step = -1
        self.contents: Hashable = None
        self.answer: _Answer | None = None
        self.used = 0.0
        self.kept_bytes = 0
        """Of its latest answer and its state."""


class Sequences(Generic[_Answer]):
    """`limit` bounds how many are kept, `expiry_s` how long an idle one is. Thread-safe.

    All together keep at most `most_bytes` in their states and latest answers, whose size `size_of` tells: beyond, the
    one that keeps the most is lost.
    """

    def __init__(
        self,
        fresh: Callable[[], SegmentRunner],
        limit: int,
        expiry_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        size_of: Callable[[_Answer], int] = lambda _: 0,
        most_bytes: int = 1 << 30,
    ) -> None:
        self._fresh = fresh
        self._size_of = size_of
        self._limit = limit
        self._most_bytes = most_bytes
        self._expiry_s = expiry_s
        self._clock = clock
        self._lock = threading.Lock()
        self._sequences: dict[str, Sequence[_Answer]] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def run(self, name: str, step: Step, call: Callable[[SegmentRunner], _Answer]) -> _Answer:
        """The answer of a step.

        Raises ServiceError SESSION_LOST when the session is not known or the step is not the next one, OVERLOADED
        when there are too many.
        """
        sequence = self._begin(name, step) if step.start else self._find(name)
        with sequence.lock:
            _check_numbered(name, sequence, step)
            wanted = sequence.step + 1
            if step.number == sequence.step and sequence.answer is not None:
                if step.contents != sequence.contents:
                    raise _lost(
                        name,
                        f"step {step.number} came before with other contents, from another client",
                    )
                return sequence.answer
            if step.number not in (None, wanted):
                remedy = "start another one" if step.start else "start it again"
                raise _lost(
                    name, f"step {step.number} was asked, but {wanted} is the next one", remedy
                )
            if self._sequences.get(name) is not sequence:
                raise _lost(name, "a step before this one failed, or it ended")
            try:
                answer = call(sequence.segments)
            except BaseException:
                # The state may have moved or not: nobody can tell, so nobody may go on.
                self._forget(name, sequence)
                raise
            sequence.step, sequence.contents, sequence.answer = wanted, step.contents, answer
            sequence.used = self._clock()
            sequence.kept_bytes = self._size_of(answer) + sequence.segments.state_bytes
        if step.end:
            self._forget(name, sequence)
        self._bound()
        return answer

    @property
    def kept_bytes(self) -> int:
        with self._lock:
            return sum(sequence.kept_bytes for sequence in self._sequences.values())

    def _bound(self) -> None:
        """Forget those that keep the most, until the others keep no more than they may together."""
        with self._lock:
            kept = sum(sequence.kept_bytes for sequence in self._sequences.values())
            while kept > self._most_bytes:
                name = max(self._sequences, key=lambda name: self._sequences[name].kept_bytes)
                kept -= self._sequences.pop(name).kept_bytes

    def __contains__(self, name: str) -> bool:
        return name in self._sequences

    def end(self, name: str) -> None:
        """Forget a session whose client needs it no more, if it is here."""
        with self._lock:
            self._sequences.pop(name, None)

    def _forget(self, name: str, sequence: Sequence[_Answer]) -> None:
        """Not one that has taken its name meanwhile."""
        with self._lock:
            if self._sequences.get(name) is sequence:
                del self._sequences[name]

    def expire(self) -> None:
        """Forget what nobody has used for `expiry_s`."""
        oldest = self._clock() - self._expiry_s
        with self._lock:
            idle = [
                name
                for name, s in self._sequences.items()
                if s.used < oldest and not s.lock.locked()
            ]
            for name in idle:
                del self._sequences[name]

    def _begin(self, name: str, step: Step) -> Sequence[_Answer]:
        if step.number not in (None, 0):
            raise ServiceError(
                Code.INVALID,
                f"session '{name}': it starts with step {step.number}; start with step 0",
            )
        self.expire()
        with self._lock:
            known = self._sequences.get(name)
            if known is not None and (known.numbered or step.number is not None):
                return known  # its first answer was lost on the way, or another client has it
            if known is None and len(self._sequences) >= self._limit:
                text = f"{self._limit} sessions are open; end one, or let the server have more (--max-sessions)"
                raise ServiceError(Code.OVERLOADED, text)
            sequence = Sequence[_Answer](self._fresh(), step.number is not None)
            sequence.used = self._clock()
            self._sequences[name] = sequence
            return sequence

    def _find(self, name: str) -> Sequence[_Answer]:
        self.expire()
        with self._lock:
            if name not in self._sequences:
                raise _lost(
                    name,
                    "the server does not know it: it expired, ended, or the server was restarted",
                )
            return self._sequences[name]


def _check_numbered(name: str, sequence: Sequence[_Answer], step: Step) -> None:
    if sequence.numbered != (step.number is not None):
        without = "without" if sequence.numbered else "with"
        raise _lost(
            name,
            f"a step {without} a number was asked, unlike those before: another client has this session",
        )


def _lost(name: str, why: str, remedy: str = "start it again") -> ServiceError:
    return ServiceError(Code.SESSION_LOST, f"session '{name}': {why}; {remedy}")
