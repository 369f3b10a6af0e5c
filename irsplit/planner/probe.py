"""Probing: find what limits forbid outright, before any search.

All costs are non-negative, so a choice is forbidden if what it drags along at least is over a limit
already. The base is the sum, over all stages, of the cheaper side; a choice adds what it makes
dearer. A stage that is over a limit on one side is pinned to the other. A transfer option that is
over a limit is dropped.

In a monotone plan a choice drags along much more: a stage on the device needs all its ancestors
there, a stage on the server all its descendants. On a chain this decides every cut, so that the
Lagrange bound becomes exact there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from irsplit.planner.cost import Columns, CostColumns
from irsplit.planner.terms import WORKING, Ints, Mask, metric_rows

_LARGEST_CLOSURE = 12_000  # stages; the closure takes n * n bits

Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Least:
    """The least that any placement costs in one metric.

    Attributes:
        base: For every placement.
        device: What is added at least if a stage is on the device, per stage.
        server: What is added at least if a stage is on the server, per stage.
    """

    base: int
    device: Ints
    server: Ints


def probe(columns: Columns, limits: Mapping[str, int], *, monotone: bool) -> Columns:
    """Remove the choices that no placement within the limits can make.

    Args:
        columns: The cost table.
        limits: The largest allowed value by the name of a metric.
        monotone: Whether the device comes first and the server after it.

    Returns:
        The same table with more pins and fewer transfer options.
    """
    if not limits:
        return columns

    closures = None
    if monotone and columns.pinned_device.size <= _LARGEST_CLOSURE:
        closures = _Closures(columns)

    to_server, to_device = columns.pinned_server.copy(), columns.pinned_device.copy()
    up, down = _keep_all(columns.up), _keep_all(columns.down)
    for name, limit in limits.items():
        rows = metric_rows(name)
        least = _least(columns, rows, closures)

        # What a choice may add before the limit is broken.
        left = limit - least.base
        to_server |= least.device > left
        to_device |= least.server > left
        dragged = _least_beside_upload(columns, least, monotone)
        up &= columns.up.terms[rows].sum(axis=0) + dragged <= left
        down &= columns.down.terms[rows].sum(axis=0) <= left

    return replace(
        columns,
        pinned_server=to_server,
        pinned_device=to_device,
        up=columns.up.keep(up),
        down=columns.down.keep(down),
    )


def _least(columns: Columns, rows: list[int], closures: "_Closures | None") -> _Least:
    """The least cost in the metric of these rows."""
    working = columns.device[WORKING]
    if WORKING not in rows:
        working = np.zeros_like(working)

    # The working set is a maximum, so it counts for a stage alone and not for its ancestors.
    device = columns.device[rows].sum(axis=0) - working
    server = columns.server[rows].sum(axis=0)
    least = np.minimum(device, server)
    on_device, on_server = device - least, server - least

    if closures is not None:
        on_device = closures.sum_ancestors(on_device)
        on_server = closures.sum_descendants(on_server)
    return _Least(int(least.sum()), on_device + working, on_server)


def _least_beside_upload(columns: Columns, least: _Least, monotone: bool) -> Ints:
    """What sending each option to the server costs at least beside the option itself.

    The producer is on the device and, in a monotone plan, at least one reader is on the server.
    """
    device = np.append(least.device, 0)[columns.producer]
    server = np.zeros_like(device)
    filled = np.flatnonzero(np.diff(columns.consumer_ptr) > 0)
    if monotone and filled.size:
        readers = least.server[columns.consumer]
        server[filled] = np.minimum.reduceat(readers, columns.consumer_ptr[:-1][filled])
    return np.repeat(device + server, np.diff(columns.up.ptr))


def _keep_all(options: CostColumns) -> Mask:
    """A mask that keeps every option."""
    return np.ones(options.terms.shape[1], dtype=np.bool_)


class _Closures:
    """The ancestors and the descendants of every stage, itself included, as packed bits."""

    def __init__(self, columns: Columns) -> None:
        producer, reader = columns.edges()
        count = columns.pinned_device.size
        self._ancestors = _closure(count, reader, producer, range(count))
        self._descendants = _closure(count, producer, reader, range(count - 1, -1, -1))

    def sum_ancestors(self, values: Ints) -> Ints:
        """For every stage the sum of its own value and those of all its ancestors."""
        return _sums(self._ancestors, values)

    def sum_descendants(self, values: Ints) -> Ints:
        """For every stage the sum of its own value and those of all its descendants."""
        return _sums(self._descendants, values)


def _closure(count: int, owner: Ints, neighbour: Ints, order: Iterable[int]) -> Bits:
    """A row of bits per stage: its own bit and the rows of its neighbours.

    Args:
        count: The number of stages.
        owner: One end of each edge, whose row is wanted.
        neighbour: The other end.
        order: All stages, each one behind its neighbours.
    """
    bits = np.zeros((count, -(-count // 8)), dtype=np.uint8)
    sorting = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[sorting], np.arange(count + 1)).tolist()
    neighbours = neighbour[sorting].tolist()

    for stage in order:
        row = bits[stage]
        for other in neighbours[starts[stage] : starts[stage + 1]]:
            np.bitwise_or(row, bits[other], out=row)
        row[stage >> 3] |= 128 >> (stage & 7)
    return bits


def _sums(bits: Bits, values: Ints) -> Ints:
    """The sum of the values whose bits are set, for every row.

    Eight bits at a time select one of 256 sums from a table.
    """
    padded = np.zeros(bits.shape[1] * 8, dtype=np.int64)
    padded[: values.size] = values
    patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int64)
    tables = padded.reshape(-1, 8) @ patterns.T

    total = np.zeros(len(bits), dtype=np.int64)
    for table, column in zip(tables, np.ascontiguousarray(bits.T), strict=True):
        total += table[column]
    return total
