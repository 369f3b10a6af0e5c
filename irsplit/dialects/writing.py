"""Write several graphs at once: copying weights releases Python's lock, so threads help."""

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
    """Write each graph of a model to its path, in threads.

    Args:
        dialect: The dialect that read the model.
        model: The model that the graphs belong to.
        graphs: Graphs without irsplit.* nodes, each with the path of its file.
        options: How to store the weights.

    Returns:
        For each graph the files that were written, the model first.

    Raises:
        IrsplitError: A graph cannot be written. The other graphs are finished first.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [
            pool.submit(dialect.write, model, graph, path, options) for graph, path in graphs
        ]
    return [future.result() for future in futures]
