"""Exact maximum flow and minimum cut over 64-bit capacities.

scipy's solver is fast but counts in 32 bits. The flow is therefore found digit by digit, as in
capacity scaling (Gabow 1985), with large digits:

1. Shift all capacities right until they fit into 30 bits, and find a maximum flow of these.
2. Subtract it. The cut that stopped it bounds what is left to carry in the residual network.
3. If anything may be left, scale the residual capacities to that bound, which keeps more of the low
   digits, and go on with 1.

Each round divides what may be left by about 2**30 / arcs, so two or three rounds suffice. The last
round shifts by nothing, so the result is exact: no scaling error enters a bound.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from irsplit.planner.terms import Ints, Mask

_BITS = 30  # scipy adds capacities in int32
# When the last digits are not asked for, fewer bits a round keep the flow from going long ways for
# the sake of noise.
_COARSE_BITS = 24


@dataclass(frozen=True, slots=True)
class Topology:
    """The arcs of a network in compressed rows, without capacities.

    Every arc is stored beside its reverse. The last node feeds the source through one arc, the
    gate, so that no flow outgrows 32 bits.

    Attributes:
        nodes: The number of nodes, the gate's included.
        source: The node from which the flow comes, which is the gate's.
        sink: The node to which it goes.
        indptr: Arcs `indptr[n] .. indptr[n + 1]` leave node n.
        indices: The head of each arc.
        rows: The tail of each arc.
        slot: The arc of each input arc; parallel input arcs share one.
        reverse: The arc in the opposite direction of each arc.
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
    """Sort the arcs of a network once, for any number of cuts.

    Args:
        nodes: The number of nodes.
        source: The source node.
        sink: The sink node.
        tail: The tail of each arc.
        head: The head of each arc, which differs from its tail.
    """
    gate, nodes = nodes, nodes + 1
    tail, head = np.append(tail, gate), np.append(head, source)
    forward, backward = tail * nodes + head, head * nodes + tail

    # One key per pair of nodes, sorted by row; duplicates are parallel arcs.
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
    """Find the minimum cut.

    Args:
        network: The arcs.
        capacity: The capacity of each input arc.
        most: An upper bound on the cuts that are of interest. Larger capacities are as good as
            infinite; the caller's infinity is simply a number above it.
        precision: 0 for the exact cut. Otherwise the search ends when what may be missing is this
            many times smaller than the value, which is then a lower bound.

    Returns:
        The cut. A value above `most` is reported as `most` + 1. With a `precision`, the smallest
        side is that of a cut whose value is so near to the minimum.
    """
    residual = np.zeros(network.indices.size, dtype=np.int64)
    np.add.at(residual, network.slot, np.append(np.minimum(capacity, most + 1), most + 1))
    residual = np.minimum(residual, most + 1)

    value, left, shift = 0, most + 1, 0
    bits = _COARSE_BITS if precision else _BITS
    while left > 0:
        shift = max(0, left.bit_length() - bits)
        scaled = (np.minimum(residual, left) >> shift).astype(np.int32)
        flow, pushed = _push(network, scaled)
        residual -= pushed.astype(np.int64) << shift
        value += flow << shift
        if shift == 0:
            break

        # What is left cannot exceed what still fits through the cut that stopped this round.
        side = _reachable(network, scaled > pushed, network.source)
        crossing = side[network.rows] & ~side[network.indices]
        through_cut = int(np.minimum(residual[crossing], left).sum())
        left = min(left - (flow << shift), through_cut)
        if precision and left * precision <= value:
            break

    open_arcs = residual >> shift > 0
    return MinimumCut(
        value=value,
        smallest=_reachable(network, open_arcs, network.source)[:-1],
        largest=~_reachable(network, open_arcs[network.reverse], network.sink)[:-1],
    )


def _push(network: Topology, capacity: NDArray[np.int32]) -> tuple[int, NDArray[np.int32]]:
    """A maximum flow: its value, and what it sends through each arc."""
    graph = csr_array(
        (capacity, network.indices, network.indptr), shape=(network.nodes, network.nodes)
    )
    result = maximum_flow(graph, network.source, network.sink)
    assert result.flow.data.size == network.indices.size, "the solver keeps the rows it was given"
    return int(result.flow_value), result.flow.data


def _reachable(network: Topology, open_arcs: Mask, start: int) -> Mask:
    """The nodes that open arcs connect to `start`."""
    counts = np.concatenate([[0], np.cumsum(open_arcs)])
    indptr = counts[network.indptr].astype(np.int32)
    indices = network.indices[open_arcs]
    graph = csr_array(
        (np.ones(indices.size, np.int8), indices, indptr), shape=(network.nodes, network.nodes)
    )
    reached = np.zeros(network.nodes, dtype=np.bool_)
    reached[breadth_first_order(graph, start, return_predecessors=False)] = True
    return reached
