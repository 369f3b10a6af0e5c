"""Several model files at once: copying weights leaves Python's lock, so two files cost the time of one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from irsplit.base.digests import THREADS
from irsplit.dialects.base import Dialect, WriteOptions
from irsplit.ir import Graph, Model, without_collector


@without_collector()
def write_graphs(
    dialect: Dialect,
    model: Model,
    graphs: Sequence[tuple[Graph, Path]],
    options: WriteOptions = WriteOptions(),
) -> list[list[Path]]:
    """Write each graph (without irsplit.* nodes) to its path, in threads; for each the files that were written.

    When one fails its error is raised, after the others have ended.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        writing = [
            pool.submit(dialect.write, model, graph, path, options) for graph, path in graphs
        ]
    return [each.result() for each in writing]
