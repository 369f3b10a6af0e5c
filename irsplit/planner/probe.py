"""What limits forbid outright, found before any search.

All costs are non-negative, so whatever a single choice drags along must fit into every limit by itself. A way to
send a tensor that is over a limit alone is dropped; a group that is over a limit alone is pinned to the other place.
In a monotone plan a choice drags along much more: a group on the device needs all its ancestors there, a group on
the server all its descendants. On a chain this decides every cut, so that the Lagrange bound becomes exact there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from irsplit.planner.cost import METRICS, TERMS, Columns, CostColumns, Ints, Mask

_WORKING = TERMS.index("working_bytes")
_LARGEST_CLOSURE = 12_000  # groups; the closure takes n * n bits

Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Least:
    """What a placement costs at least, for one metric: in all, and more if a group is on the device or the server."""

    base: int
    device: Ints
    server: Ints


def probe(columns: Columns, limits: Mapping[str, int], *, monotone: bool) -> Columns:
    """The same table with the choices removed that no placement within the limits can make."""
    if not limits:
        return columns
    closures = (
        _Closures(columns) if monotone and columns.pinned_device.size <= _LARGEST_CLOSURE else None
    )
    away, stay = columns.pinned_server.copy(), columns.pinned_device.copy()
    up, down = _all_kept(columns.up), _all_kept(columns.down)
    for name, limit in limits.items():
        rows = [TERMS.index(term) for term in METRICS[name]]
        least = _least(columns, rows, closures)
        left = limit - least.base
        away |= least.device > left
        stay |= least.server > left
        up &= columns.up.terms[rows].sum(axis=0) + _along(columns, least, monotone) <= left
        down &= columns.down.terms[rows].sum(axis=0) <= left
    return replace(
        columns,
        pinned_server=away,
        pinned_device=stay,
        up=columns.up.keep(up),
        down=columns.down.keep(down),
    )


def _least(columns: Columns, rows: list[int], closures: "_Closures | None") -> _Least:
    working = (
        columns.device[_WORKING] if _WORKING in rows else np.zeros_like(columns.device[_WORKING])
    )
    device, server = columns.device[rows].sum(axis=0) - working, columns.server[rows].sum(axis=0)
    least = np.minimum(device, server)
    if closures is None:
        return _Least(int(least.sum()), device - least + working, server - least)
    return _Least(
        int(least.sum()),
        closures.ancestors(device - least) + working,
        closures.descendants(server - least),
    )


def _along(columns: Columns, least: _Least, monotone: bool) -> Ints:
    """What uploading each tensor costs at least beside itself: its maker here and, if monotone, one reader there."""
    here = np.append(least.device, 0)[columns.producer]
    there = np.zeros_like(here)
    filled = np.flatnonzero(np.diff(columns.consumer_ptr) > 0)
    if monotone and filled.size:
        there[filled] = np.minimum.reduceat(
            least.server[columns.consumer], columns.consumer_ptr[:-1][filled]
        )
    return np.repeat(here + there, np.diff(columns.up.ptr))


def _all_kept(ways: CostColumns) -> Mask:
    return np.ones(ways.terms.shape[1], dtype=np.bool_)


class _Closures:
    """Ancestors and descendants of every group, itself included, as packed bits."""

    def __init__(self, columns: Columns) -> None:
        maker = np.repeat(columns.producer, np.diff(columns.consumer_ptr))
        inner = maker >= 0
        maker, reader = maker[inner], columns.consumer[inner]
        count = columns.pinned_device.size
        self._before = _closure(count, reader, maker, range(count))
        self._after = _closure(count, maker, reader, range(count - 1, -1, -1))

    def ancestors(self, values: Ints) -> Ints:
        """Sum of the values of each group and all its ancestors."""
        return _sums(self._before, values)

    def descendants(self, values: Ints) -> Ints:
        """Sum of the values of each group and all its descendants."""
        return _sums(self._after, values)


def _closure(count: int, owner: Ints, neighbour: Ints, order: Iterable[int]) -> Bits:
    """A row of bits per group: its own and those of its neighbours' rows; `order` visits neighbours first."""
    bits = np.zeros((count, -(-count // 8)), dtype=np.uint8)
    sorting = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[sorting], np.arange(count + 1)).tolist()
    neighbours = neighbour[sorting].tolist()
    for group in order:
        row = bits[group]
        for other in neighbours[starts[group] : starts[group + 1]]:
            np.bitwise_or(row, bits[other], out=row)
        row[group >> 3] |= 128 >> (group & 7)
    return bits


def _sums(bits: Bits, values: Ints) -> Ints:
    """Sum of the values whose bits are set, for every row: eight bits at a time through a table of 256 sums."""
    padded = np.zeros(bits.shape[1] * 8, dtype=np.int64)
    padded[: values.size] = values
    patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int64)
    tables = padded.reshape(-1, 8) @ patterns.T
    total = np.zeros(len(bits), dtype=np.int64)
    for table, column in zip(tables, np.ascontiguousarray(bits.T), strict=True):
        total += table[column]
    return total
