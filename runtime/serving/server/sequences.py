"""Sessions of a stateful bundle. Each has a state of its own, and expires when it is left alone.

A step is identified by its number. The latest step may be asked for again, because its answer was
lost on the way. It gets the same answer without running, provided that it brings the same
contents. Any other number than the next one means that client and server no longer agree; that is
an error and never a guess. So two clients that number their steps and chose the same name by
accident find out.

Steps without numbers, as other servers have them, follow each other as they come, and a start
always begins a new session.
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
    """One step of a session.

    Attributes:
        number: Its number, beginning with 0; None is the next one.
        start: Begin a new session.
        end: Forget the session after the answer.
        contents: A digest of what the step brings.
    """

    number: int | None = None
    start: bool = False
    end: bool = False
    contents: Hashable = None


class Sequence(Generic[_Answer]):
    """One session: its state, and its latest step with the answer."""

    def __init__(self, segments: SegmentRunner, numbered: bool) -> None:
        self.segments = segments
        self.numbered = numbered
        self.lock = threading.Lock()
        self.step = -1
        self.contents: Hashable = None
        self.answer: _Answer | None = None
        self.used = 0.0
        self.kept_bytes = 0
        """Bytes of its latest answer and its state."""


class Sequences(Generic[_Answer]):
    """All sessions of a bundle. Thread-safe.

    Args:
        fresh: Returns segments with an initial state.
        limit: Sessions that are kept at most.
        expiry_s: How long an idle session is kept.
        clock: Seconds that never run backwards.
        size_of: Bytes of an answer.
        most_bytes: Bytes of all states and latest answers together. Beyond, the session that keeps
            the most is dropped.
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

    def __contains__(self, name: str) -> bool:
        return name in self._sequences

    def run(self, name: str, step: Step, call: Callable[[SegmentRunner], _Answer]) -> _Answer:
        """Answer one step of a session.

        Args:
            name: The client's name for the session.
            step: What is asked.
            call: Runs the step on the session's segments, and moves their state.

        Returns:
            The answer; that of the first time if the latest step is repeated.

        Raises:
            ServiceError: SESSION_LOST if the session is unknown or the step is not the next one;
                OVERLOADED if there are too many sessions.
        """
        sequence = self._begin(name, step) if step.start else self._find(name)
        with sequence.lock:
            _check_numbering(name, sequence, step)
            if step.number == sequence.step and sequence.answer is not None:
                if step.contents != sequence.contents:
                    why = f"step {step.number} came before with other contents, from another client"
                    raise _lost(name, why)

                return sequence.answer

            self._check_next(name, sequence, step)
            answer = self._advance(name, sequence, step, call)

        if step.end:
            self._forget(name, sequence)
        self._drop_largest()
        return answer

    def _check_next(self, name: str, sequence: Sequence[_Answer], step: Step) -> None:
        """Raise ServiceError unless the step is the next one of a session that still exists."""
        next_number = sequence.step + 1
        if step.number not in (None, next_number):
            remedy = "start another one" if step.start else "start it again"
            why = f"step {step.number} was asked, but {next_number} is the next one"
            raise _lost(name, why, remedy)
        # While this step waited for the lock, the one before it may have failed.
        if self._sequences.get(name) is not sequence:
            raise _lost(name, "a step before this one failed, or it ended")

    def _advance(
        self,
        name: str,
        sequence: Sequence[_Answer],
        step: Step,
        call: Callable[[SegmentRunner], _Answer],
    ) -> _Answer:
        """Run the next step, and keep its answer in case that it is lost on the way."""
        try:
            answer = call(sequence.segments)
        except BaseException:
            # Nobody can tell whether the state has moved, so nobody may go on.
            self._forget(name, sequence)
            raise

        sequence.step += 1
        sequence.contents, sequence.answer = step.contents, answer
        sequence.used = self._clock()
        sequence.kept_bytes = self._size_of(answer) + sequence.segments.state_bytes
        return answer

    @property
    def kept_bytes(self) -> int:
        """Bytes of all states and latest answers."""
        with self._lock:
            return self._total_bytes()

    def _total_bytes(self) -> int:
        return sum(sequence.kept_bytes for sequence in self._sequences.values())

    def _drop_largest(self) -> None:
        """Forget the sessions that keep the most, until the others stay within the limit."""
        with self._lock:
            total = self._total_bytes()
            while total > self._most_bytes:
                name = max(self._sequences, key=lambda name: self._sequences[name].kept_bytes)
                total -= self._sequences.pop(name).kept_bytes

    def end(self, name: str) -> None:
        """Forget a session that its client does not need any more, if it exists."""
        with self._lock:
            self._sequences.pop(name, None)

    def _forget(self, name: str, sequence: Sequence[_Answer]) -> None:
        """Forget a session, but not another one that has taken its name meanwhile."""
        with self._lock:
            if self._sequences.get(name) is sequence:
                del self._sequences[name]

    def expire(self) -> None:
        """Forget the sessions that nobody has used for `expiry_s`."""
        oldest = self._clock() - self._expiry_s
        with self._lock:
            for name, sequence in list(self._sequences.items()):
                if sequence.used < oldest and not sequence.lock.locked():
                    del self._sequences[name]

    def _begin(self, name: str, step: Step) -> Sequence[_Answer]:
        """The session that a starting step begins."""
        if step.number not in (None, 0):
            text = f"session '{name}': it starts with step {step.number}; start with step 0"
            raise ServiceError(Code.INVALID, text)

        self.expire()
        with self._lock:
            existing = self._sequences.get(name)
            if existing is not None and (existing.numbered or step.number is not None):
                # Its first answer was lost on the way, or another client has the name: `run`
                # finds out by number and contents.
                return existing
            if existing is None and len(self._sequences) >= self._limit:
                text = f"{self._limit} sessions are open; end one, or raise the server's limit"
                raise ServiceError(Code.OVERLOADED, text)

            sequence = Sequence[_Answer](self._fresh(), step.number is not None)
            sequence.used = self._clock()
            self._sequences[name] = sequence
            return sequence

    def _find(self, name: str) -> Sequence[_Answer]:
        """The session that a later step goes on with."""
        self.expire()
        with self._lock:
            if name not in self._sequences:
                why = "the server does not know it: it expired, ended, or the server was restarted"
                raise _lost(name, why)

            return self._sequences[name]


def _check_numbering(name: str, sequence: Sequence[_Answer], step: Step) -> None:
    """Raise ServiceError if only one of session and step has numbers."""
    if sequence.numbered == (step.number is not None):
        return

    without = "without" if sequence.numbered else "with"
    why = (
        f"a step {without} a number was asked, unlike those before: another client has this session"
    )
    raise _lost(name, why)


def _lost(name: str, why: str, remedy: str = "start it again") -> ServiceError:
    return ServiceError(Code.SESSION_LOST, f"session '{name}': {why}; {remedy}")
