"""Show progress on standard error while a command works, on a terminal only."""

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
    """Show a line with a bar, what is being done and for how long; it vanishes at the end.

    What is printed meanwhile appears above the line. Rich is imported only to draw.

    Args:
        shown: Whether to show anything; nothing is shown either where standard error is no
            terminal.

    Yields:
        The function to call with every step.
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
    """Show progress of work that has one step."""
    with progress() as show:
        show(0, 1, what)
        yield
