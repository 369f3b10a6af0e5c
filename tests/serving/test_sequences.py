"""Sessions of a stateful bundle with clients that err: an error, never another's answer."""

from collections.abc import Callable
from typing import Any

import pytest

from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.sequences import Sequences, Step


class Counting:
    """Segments whose state is what they were given."""

    state_bytes = 0

    def __init__(self) -> None:
        self.seen: list[int] = []

    def add(self, item: int) -> tuple[int, ...]:
        self.seen.append(item)
        return tuple(self.seen)


class Clients:
    """Asks steps of sessions, whose contents stand for themselves."""

    def __init__(self, limit: int = 8) -> None:
        self.now = 0.0
        fresh: Callable[[], Any] = Counting
        self.sequences = Sequences[Any](fresh, limit, 10.0, lambda: self.now)

    def ask(
        self,
        name: str,
        item: int,
        number: int | None = None,
        start: bool = False,
        end: bool = False,
    ) -> Any:
        def call(segments: Any) -> Any:
            if item < 0:
                raise ValueError("it cannot be run")
            return segments.add(item)

        return self.sequences.run(name, Step(number, start, end, contents=item), call)

    def refused(self, *step: Any, **flags: Any) -> str:
        with pytest.raises(ServiceError) as caught:
            self.ask(*step, **flags)
        assert caught.value.code in (Code.SESSION_LOST, Code.OVERLOADED, Code.INVALID)
        return str(caught.value)


def test_a_repeated_step_is_answered_again_only_with_the_same_contents():
    clients = Clients()
    assert clients.ask("a", 5, 0, start=True) == clients.ask("a", 5, 0, start=True) == (5,)
    assert clients.ask("a", 6, 1) == clients.ask("a", 6, 1) == (5, 6)
    assert "other contents" in clients.refused("a", 7, 1)
    assert clients.ask("a", 7, 2) == (5, 6, 7)


def test_two_clients_that_number_their_steps_never_share_a_session_unawares():
    clients = Clients()
    assert clients.ask("a", 1, 0, start=True) == (1,)
    assert "other contents" in clients.refused("a", 2, 0, start=True)
    assert clients.ask("a", 3, 1) == (1, 3)
    assert "2 is the next one; start another one" in clients.refused("a", 1, 0, start=True)
    assert "2 is the next one" in clients.refused("a", 3, 3)
    assert "without a number" in clients.refused("a", 4)
    assert "without a number" in clients.refused("a", 4, start=True)
    assert clients.ask("a", 5, 2) == (1, 3, 5)


def test_steps_without_numbers_follow_each_other_and_a_start_begins_anew():
    clients = Clients()
    assert [clients.ask("a", 1, start=True), clients.ask("a", 1), clients.ask("a", 2)] == [
        (1,),
        (1, 1),
        (1, 1, 2),
    ]
    assert "with a number" in clients.refused("a", 2, 3)
    assert "with a number" in clients.refused("a", 2, 0, start=True)
    assert clients.ask("a", 3, start=True) == (3,)


def test_a_session_starts_with_step_zero_and_a_wrong_start_leaves_none():
    clients = Clients()
    assert "start with step 0" in clients.refused("a", 1, 4, start=True)
    assert len(clients.sequences) == 0


def test_a_step_that_failed_ends_its_session_and_not_the_one_that_took_its_name():
    clients = Clients()
    clients.ask("a", 1, start=True)
    older = clients.sequences._sequences["a"]

    def replaced_meanwhile(_: Any) -> Any:
        clients.sequences._sequences["a"] = newer
        raise ValueError("it cannot be run")

    clients.ask("b", 2, start=True)
    newer = clients.sequences._sequences.pop("b")
    with pytest.raises(ValueError, match="cannot be run"):
        clients.sequences.run("a", Step(), replaced_meanwhile)
    assert older is not newer
    assert clients.ask("a", 3) == (2, 3)
    with pytest.raises(ValueError, match="cannot be run"):
        clients.ask("a", -1)
    assert "does not know it" in clients.refused("a", 4)


def test_an_expired_session_is_lost_even_for_a_step_that_was_answered():
    clients = Clients()
    assert clients.ask("a", 1, 0, start=True) == (1,)
    assert clients.ask("a", 2, 1) == (1, 2)
    clients.now = 11.0
    assert "does not know it: it expired" in clients.refused("a", 2, 1)
    assert clients.ask("a", 1, 0, start=True) == (1,)
    assert "2 was asked, but 1 is the next one" in clients.refused("a", 3, 2)


def test_beyond_the_limit_a_new_session_waits_for_one_to_end():
    clients = Clients(limit=2)
    clients.ask("a", 1, start=True)
    clients.ask("b", 1, start=True)
    assert "2 sessions are open" in clients.refused("c", 1, start=True)
    assert clients.ask("a", 2, end=True) == (1, 2)
    assert clients.ask("c", 1, start=True) == (1,)
    assert clients.ask("b", 2) == (1, 2)
    clients.now = 11.0
    assert clients.ask("d", 1, start=True) == (1,)
    assert len(clients.sequences) == 1
