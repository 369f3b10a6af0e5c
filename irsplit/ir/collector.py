"""Python's garbage collector, put aside while a large graph is made or walked."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Generator[None]:
    """No garbage collection inside the block, or the function that this decorates.

    A graph of 50 000 nodes is a million objects, none of them garbage: looking at them again and again while more are
    made takes longer than the work itself.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
