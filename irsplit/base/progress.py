"""How work that takes a while reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """A function that is called before each step of the work."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Report that `done` of `total` steps are finished, and that `what` comes next."""


def silent(done: int, total: int, what: str) -> None:
    """A progress function that reports nothing."""


class Steps:
    """Counts the steps of one piece of work as they begin.

    Args:
        progress: The function to report to.
        total: The number of steps.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._begun = 0

    def begin(self, what: str) -> None:
        """Report that the next step, `what`, begins."""
        self._progress(self._begun, self._total, what)
        self._begun += 1
