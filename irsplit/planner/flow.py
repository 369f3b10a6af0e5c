"""Exact maximum flow and minimum cut over 64-bit capacities.

scipy's solver is fast but counts in 32 bits. So the flow is found digit by digit: the capacities without their low
bits give a flow whose residual network has little left to carry, which is solved again with more digits, until no
bit is missing. Each round divides what may be left by about 2**30 / arcs, so two or three rounds suffice, and the
result is exact: no scaling error enters a bound.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BITS = 30  # scipy adds capacities in int32
_COARSE_BITS = (
    24  # of a round when the last digits are not asked for: noise that goes long ways is left out
)


@dataclass(frozen=True, slots=True)
class Topology:
    """The arcs of a network in compressed rows, every arc beside its reverse; capacities come and go, this stays.

    `slot` sends an input arc to its place in the rows; parallel arcs share one. `reverse` pairs a place with that of
    the opposite arc. The last node feeds the source through one arc, the gate, so that no flow outgrows 32 bits.
    """

    nodes: int
    source: int
    sink: int
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    rows: NDArray[np.int32]
    slot: NDArray[np.int64]
    reverse: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MinimumCut:
    """A minimum cut: its value, and the smallest and the largest source side that attain it."""

    value: int
    smallest: Mask
    largest: Mask


def topology(nodes: int, source: int, sink: int, tail: Ints, head: Ints) -> Topology:
    """Sort the arcs once. Arcs from a node to itself are not allowed."""
    gate, nodes = nodes, nodes + 1
    tail, head = np.append(tail, gate), np.append(head, source)
    forward, backward = tail * nodes + head, head * nodes + tail
    keys = np.sort(np.concatenate([forward, backward]))
    keys = keys[np.append(True, keys[1:] != keys[:-1])]
    rows, indices = keys // nodes, keys % nodes
    return Topology(
        nodes=nodes,
        source=gate,
        sink=sink,
        indptr=np.searchsorted(rows, np.arange(nodes + 1)).astype(np.int32),
        indices=indices.astype(np.int32),
        rows=rows.astype(np.int32),
        slot=np.searchsorted(keys, forward),
        reverse=np.searchsorted(keys, indices * nodes + rows),
    )


def minimum_cut(network: Topology, capacity: Ints, most: int, precision: int = 0) -> MinimumCut:
    """The minimum cut under one capacity per input arc; a value above `most` is reported as `most` + 1.

    `most` is any upper bound on the cuts that are of interest: larger capacities are as good as infinite, and the
    caller's infinity is simply a number above it. With a `precision` the search ends when what may be missing is that
    many times smaller than the value, which is then a lower bound; the smallest side is that of a cut so near to it.
    """
    room = np.zeros(network.indices.size, dtype=np.int64)
    np.add.at(room, network.slot, np.append(np.minimum(capacity, most + 1), most + 1))
    room = np.minimum(room, most + 1)
    value, left, shift = 0, most + 1, 0
    bits = _COARSE_BITS if precision else _BITS
    while left > 0:
        shift = max(0, left.bit_length() - bits)
        scaled = (np.minimum(room, left) >> shift).astype(np.int32)
        found, pushed = _push(network, scaled)
        room -= pushed.astype(np.int64) << shift
        value += found << shift
        if shift == 0:
            break
        side = _reachable(network, scaled > pushed, network.source)
        crossing = side[network.rows] & ~side[network.indices]
        left = min(left - (found << shift), int(np.minimum(room[crossing], left).sum()))
        if precision and left * precision <= value:
            break
    open_arcs = room >> shift > 0
    return MinimumCut(
        value=value,
        smallest=_reachable(network, open_arcs, network.source)[:-1],
        largest=~_reachable(network, open_arcs[network.reverse], network.sink)[:-1],
    )


def _push(network: Topology, capacity: NDArray[np.int32]) -> tuple[int, NDArray[np.int32]]:
    graph = csr_array(
        (capacity, network.indices, network.indptr), shape=(network.nodes, network.nodes)
    )
    result = maximum_flow(graph, network.source, network.sink)
    assert result.flow.data.size == network.indices.size, "the solver keeps the rows it was given"
    return int(result.flow_value), result.flow.data


def _reachable(network: Topology, open_arcs: Mask, start: int) -> Mask:
    """Nodes that open arcs connect to `start`."""
    counts = np.concatenate([[0], np.cumsum(open_arcs)])
    indptr = counts[network.indptr].astype(np.int32)
    indices = network.indices[open_arcs]
    graph = csr_array(
        (np.ones(indices.size, np.int8), indices, indptr), shape=(network.nodes, network.nodes)
    )
    reached = np.zeros(network.nodes, dtype=np.bool_)
    reached[breadth_first_order(graph, start, return_predecessors=False)] = True
    return reached
