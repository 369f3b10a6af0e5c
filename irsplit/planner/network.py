"""The network whose minimum cut is the best placement.

Source side = device. S -> v costs what v costs on the server, v -> T what it costs on the device. A tensor with
several readers is paid once through a gadget node: upload p -> a (its cost), a -> each reader (infinite); download
b -> p (its cost), each reader -> b (infinite). Two more costs are not sums over groups and still are cuts:

* the working set of the device is a maximum: levels w1 < w2 < ... become a chain of nodes, each paying its step;
* the first visit to the server costs a round trip: one node that leaves the device as soon as any group does.
"""

from dataclasses import dataclass

import numpy as np

from irsplit.planner.cost import TERMS, Columns, Ints, Mask
from irsplit.planner.flow import Topology, minimum_cut, topology

_WORKING = TERMS.index("working_bytes")
LARGEST = 1 << 60  # of a sum of weighted costs; two such numbers still add up in 64 bits


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Optimum under one weight per term: its value (None: no placement obeys the pins), both extreme placements."""

    value: int | None
    smallest: Mask
    largest: Mask
    up_choice: Ints
    down_choice: Ints


@dataclass(frozen=True, slots=True)
class Network:
    """Arcs are laid out in blocks: server, device, upload, download, working-set steps, round trip, infinite.

    The layout depends on who reads what alone: one network serves all prices, pins and ways to cross of a table.
    """

    arcs: Topology
    uploads: Ints  # tensor of each upload arc
    downloads: Ints
    steps: Ints  # bytes of each working-set level above the one below
    infinite: int
    monotone: bool

    def solve(self, columns: Columns, weights: Ints, precision: int = 0) -> Relaxed:
        """Minimum cut under these weights per term. The caller keeps the weighted total below `LARGEST`.

        With a `precision` the value is a lower bound, and the placements are nearly the best (see `minimum_cut`).
        """
        up, up_choice = columns.up.fold(weights)
        down, down_choice = columns.down.fold(weights)
        flat = weights.copy()
        flat[_WORKING] = 0
        finite = [
            flat @ columns.server,
            flat @ columns.device,
            up[self.uploads],
            down[self.downloads],
            self.steps * weights[_WORKING],
            np.array([weights @ columns.round_trip]),
        ]
        most = sum(int(np.maximum(block, 0).sum()) for block in finite)
        assert most < LARGEST, "weights were scaled by the caller"
        # A cut that stops early may be dearer than its value: not even then may it go through a wall.
        dearest = most + (most // precision if precision else 0)
        wall = dearest + 1
        capacity = np.concatenate([*finite, np.full(self.infinite, wall)])
        capacity[capacity < 0] = wall  # a tensor that cannot cross
        groups = columns.pinned_device.size
        capacity[:groups][columns.pinned_device] = wall
        capacity[groups : 2 * groups][columns.pinned_server] = wall
        cut = minimum_cut(self.arcs, capacity, dearest, precision)
        value = None if cut.value > most else cut.value
        return Relaxed(value, cut.smallest[:groups], cut.largest[:groups], up_choice, down_choice)


class _Arcs:
    """Collects arcs block by block."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.tails: list[Ints] = []
        self.heads: list[Ints] = []

    def new_nodes(self, count: int) -> Ints:
        first, self.nodes = self.nodes, self.nodes + count
        return np.arange(first, self.nodes)

    def add(self, tail: Ints | int, head: Ints | int) -> None:
        tails, heads = np.broadcast_arrays(np.atleast_1d(tail), np.atleast_1d(head))
        self.tails.append(tails.astype(np.int64))
        self.heads.append(heads.astype(np.int64))

    def count(self) -> int:
        return sum(block.size for block in self.tails)


def build(columns: Columns, *, monotone: bool) -> Network:
    """Lay out the network of a table once; `Network.solve` then prices it as often as needed."""
    groups = columns.pinned_device.size
    arcs, walls = _Arcs(groups + 2), _Arcs(0)
    source, sink = groups, groups + 1
    every = np.arange(groups)
    arcs.add(source, every)
    arcs.add(every, sink)
    uploads = _uploads(columns, arcs, walls, source)
    downloads = _downloads(columns, arcs, walls, source, monotone)
    if monotone:
        reader, maker = _edges(columns)
        walls.add(reader, maker)
    steps = _working_set(columns, arcs, walls, sink)
    visit = arcs.new_nodes(1)
    arcs.add(source, visit)
    if columns.round_trip.any():
        walls.add(visit, every)
    tail, head = (
        np.concatenate([*arcs.tails, *walls.tails]),
        np.concatenate([*arcs.heads, *walls.heads]),
    )
    shape = topology(arcs.nodes, source, sink, tail, head)
    return Network(shape, uploads, downloads, steps, infinite=walls.count(), monotone=monotone)


def _edges(columns: Columns) -> tuple[Ints, Ints]:
    maker = np.repeat(columns.producer, np.diff(columns.consumer_ptr))
    inner = maker >= 0
    return columns.consumer[inner], maker[inner]


def _gadgets(columns: Columns, arcs: _Arcs, chosen: Ints) -> tuple[Ints, Ints, Ints]:
    """The node on the readers' side of each chosen tensor: the reader itself if it is alone, else a gadget node.

    Returns that node per chosen tensor, and (gadget, reader) per reader of those that got a gadget.
    """
    readers = np.diff(columns.consumer_ptr)[chosen]
    near = columns.consumer[
        np.minimum(columns.consumer_ptr[chosen], max(columns.consumer.size - 1, 0))
    ].copy()
    shared = readers > 1
    near[shared] = arcs.new_nodes(int(shared.sum()))
    width = readers[shared]
    starts = np.repeat(
        columns.consumer_ptr[chosen[shared]] - np.concatenate([[0], np.cumsum(width)[:-1]]), width
    )
    return near, np.repeat(near[shared], width), columns.consumer[starts + np.arange(width.sum())]


def _uploads(columns: Columns, arcs: _Arcs, walls: _Arcs, source: int) -> Ints:
    chosen = np.flatnonzero(np.diff(columns.consumer_ptr) > 0)
    if not chosen.size:
        arcs.add(np.array([], np.int64), np.array([], np.int64))
        return chosen
    near, gadget, reader = _gadgets(columns, arcs, chosen)
    maker = columns.producer[chosen]
    arcs.add(np.where(maker < 0, source, maker), near)
    walls.add(gadget, reader)
    return chosen


def _downloads(columns: Columns, arcs: _Arcs, walls: _Arcs, source: int, monotone: bool) -> Ints:
    inner = columns.producer >= 0
    wanted = np.flatnonzero(
        inner & columns.output
    )  # the device reads it anyway: paid whenever its maker is away
    back = np.diff(columns.consumer_ptr) > 0
    shared = np.flatnonzero(inner & ~columns.output & back & (not monotone))
    near = gadget = reader = shared
    if shared.size:
        near, gadget, reader = _gadgets(columns, arcs, shared)
    arcs.add(
        np.concatenate([np.full(wanted.size, source), near]),
        np.concatenate([columns.producer[wanted], columns.producer[shared]]),
    )
    if shared.size:
        walls.add(reader, gadget)
    return np.concatenate([wanted, shared])


def _working_set(columns: Columns, arcs: _Arcs, walls: _Arcs, sink: int) -> Ints:
    working = columns.device[_WORKING]
    levels = np.unique(working[working > 0])
    nodes = arcs.new_nodes(levels.size)
    arcs.add(nodes, sink)
    needs = np.flatnonzero(working > 0)
    walls.add(needs, nodes[np.searchsorted(levels, working[needs])])
    walls.add(nodes[1:], nodes[:-1])
    return np.diff(levels, prepend=0)
