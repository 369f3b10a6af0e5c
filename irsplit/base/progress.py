"""How work that takes a while says how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Called before each part of the work."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` parts are finished, and `what` comes next."""


def silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""


class Steps:
    """The parts of one piece of work, counted as they begin."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._begun = 0

    def begin(self, what: str) -> None:
        self._progress(self._begun, self._total, what)
        self._begun += 1
