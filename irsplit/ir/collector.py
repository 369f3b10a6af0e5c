"""Python's garbage collector, switched off while a large graph is built or walked."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Generator[None]:
    """Switch off garbage collection for a block, or for the function that this decorates.

    A graph of 50 000 nodes is a million objects, none of them garbage. The collector would look at
    all of them again and again while more are made, which takes longer than the work itself.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
