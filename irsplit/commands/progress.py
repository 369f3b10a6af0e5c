"""Progress on standard error while a command works, on a terminal only."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irsplit.base.lazy import LazyModule
from irsplit.base.progress import Progress, silent
from irsplit.commands.terminal import escaping, one_line, steerable

if TYPE_CHECKING:
    import rich.console as consoles
    import rich.progress as rich
else:
    consoles = LazyModule("rich.console")
    rich = LazyModule("rich.progress")


@contextmanager
def progress(*, shown: bool = True) -> Generator[Progress]:
    """A line with a bar, what is being done and for how long, which vanishes at the end.

    Nothing is printed when standard error is no terminal or `shown` is false; rich is imported only to draw. What is
    printed meanwhile appears above the line.
    """
    if not shown or not sys.stderr.isatty():
        yield silent
        return
    console = consoles.Console(file=steerable(sys.stderr))
    columns = (
        rich.SpinnerColumn(),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
    )
    words = rich.TextColumn("{task.description}", markup=False)
    with rich.Progress(
        *columns, words, console=console, transient=True, redirect_stdout=False
    ) as bar:
        task = bar.add_task("", total=None)
        # What is printed meanwhile goes through the bar's own stream, which escapes nothing.
        with escaping("stderr"):
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=one_line(what)
            )


@contextmanager
def working(what: str) -> Generator[None]:
    """Progress of work in one part."""
    with progress() as told:
        told(0, 1, what)
        yield
