"""The network whose minimum cut is the best placement.

The idea is Stone's (1977): a cut of the network separates the stages into a source side, the
device, and a sink side, the server, and its capacity is what the placement costs.

* Arc S -> v costs what stage v costs on the server: it is cut when v is on the server. Arc v -> T
  costs what v costs on the device.
* A tensor is paid once, however many stages read it. A gadget node stands for its readers. For an
  upload, arc p -> a from the producer p costs the transfer, and infinite arcs a -> r to each reader
  r pull a to the server as soon as one reader is there. For a download, infinite arcs r -> b and an
  arc b -> p that costs the transfer do the same for the device. A single reader needs no gadget.
* A graph output is downloaded whenever its producer is on the server: arc S -> p.
* A pin is an infinite arc to one side. In a monotone plan an infinite arc from every reader to its
  producer forbids a reader on the device of a producer on the server.

Two more costs are not sums over stages and still are cuts:

* The working set of the device is a maximum. Its levels w1 < w2 < ... become a chain of nodes, each
  of which pays its step above the level below as soon as a stage of that level is on the device.
* The first visit to the server costs a round trip: one node that leaves the device as soon as any
  stage does. Further visits are not seen; `Solution.round_trips` has them.
"""

from dataclasses import dataclass

import numpy as np

from irsplit.planner.cost import Columns
from irsplit.planner.flow import Topology, minimum_cut, topology
from irsplit.planner.terms import WORKING, Ints, Mask

LARGEST = 1 << 60
"""A bound of sums of weighted costs; two such numbers still add up in 64 bits."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The optimum under one weight per term.

    Attributes:
        value: Its weighted cost; None if no placement obeys the pins.
        smallest: The optimal placement with the fewest stages on the device.
        largest: The optimal placement with the most stages on the device.
        up_choice: The cheapest option to send each tensor to the server.
        down_choice: The cheapest option to send each tensor to the device.
    """

    value: int | None
    smallest: Mask
    largest: Mask
    up_choice: Ints
    down_choice: Ints


@dataclass(frozen=True, slots=True)
class Network:
    """The arcs of a table's network; `solve` gives them capacities.

    The arcs are laid out in blocks: server, device, uploads, downloads, working-set steps, round
    trip, infinite. The layout depends only on which stages read which tensors, so one network
    serves all prices, pins and transfer options of a table.

    Attributes:
        arcs: The arcs.
        uploads: The tensor of each upload arc.
        downloads: The tensor of each download arc.
        steps: The bytes of each working-set level above the one below.
        infinite: The number of infinite arcs.
        monotone: Whether the device comes first and the server after it.
    """

    arcs: Topology
    uploads: Ints
    downloads: Ints
    steps: Ints
    infinite: int
    monotone: bool

    def solve(self, columns: Columns, weights: Ints, precision: int = 0) -> Relaxed:
        """Find the placement with the least weighted cost.

        Args:
            columns: The table that the network was built from, perhaps with more pins or fewer
                transfer options.
            weights: One weight per term; the caller keeps the weighted total below LARGEST.
            precision: 0 for the exact optimum. Otherwise the value is a lower bound, and the
                placements are nearly the best (see `minimum_cut`).
        """
        # Under fixed weights the cheapest option of a tensor is always the one to take.
        up, up_choice = columns.up.fold(weights)
        down, down_choice = columns.down.fold(weights)

        sums = weights.copy()
        sums[WORKING] = 0  # the working set has arcs of its own
        finite = [
            sums @ columns.server,
            sums @ columns.device,
            up[self.uploads],
            down[self.downloads],
            self.steps * weights[WORKING],
            np.array([weights @ columns.round_trip]),
        ]
        most = sum(int(np.maximum(block, 0).sum()) for block in finite)
        assert most < LARGEST, "weights were scaled by the caller"

        # A cut that stops early may be dearer than its value: not even then may it go through a
        # wall.
        dearest = most + (most // precision if precision else 0)
        wall = dearest + 1
        capacity = np.concatenate([*finite, np.full(self.infinite, wall)])
        capacity[capacity < 0] = wall  # a tensor that cannot cross

        stages = columns.pinned_device.size
        capacity[:stages][columns.pinned_device] = wall
        capacity[stages : 2 * stages][columns.pinned_server] = wall

        cut = minimum_cut(self.arcs, capacity, dearest, precision)
        value = None if cut.value > most else cut.value
        return Relaxed(value, cut.smallest[:stages], cut.largest[:stages], up_choice, down_choice)


class _Arcs:
    """Collects arcs block by block."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.tails: list[Ints] = []
        self.heads: list[Ints] = []

    def new_nodes(self, count: int) -> Ints:
        """Add nodes, and return their indices."""
        first, self.nodes = self.nodes, self.nodes + count
        return np.arange(first, self.nodes)

    def add(self, tail: Ints | int, head: Ints | int) -> None:
        """Add one block of arcs; a single node stands for as many as the other end has."""
        tails, heads = np.broadcast_arrays(np.atleast_1d(tail), np.atleast_1d(head))
        self.tails.append(tails.astype(np.int64))
        self.heads.append(heads.astype(np.int64))

    def count(self) -> int:
        """The number of arcs so far."""
        return sum(block.size for block in self.tails)


def build(columns: Columns, *, monotone: bool) -> Network:
    """Lay out the network of a table.

    Args:
        columns: The cost table.
        monotone: Whether the device comes first and the server after it.

    Returns:
        The network, which `Network.solve` prices as often as needed.
    """
    stages = columns.pinned_device.size
    every = np.arange(stages)
    source, sink = stages, stages + 1
    arcs, walls = _Arcs(stages + 2), _Arcs(0)

    # The order of these blocks is that of the capacities in `Network.solve`.
    arcs.add(source, every)
    arcs.add(every, sink)
    uploads = _add_uploads(columns, arcs, walls, source)
    downloads = _add_downloads(columns, arcs, walls, source, monotone)
    if monotone:
        producer, reader = columns.edges()
        walls.add(reader, producer)
    steps = _add_working_set(columns, arcs, walls, sink)
    visit = arcs.new_nodes(1)
    arcs.add(source, visit)
    if columns.round_trip.any():
        walls.add(visit, every)

    tail = np.concatenate([*arcs.tails, *walls.tails])
    head = np.concatenate([*arcs.heads, *walls.heads])
    shape = topology(arcs.nodes, source, sink, tail, head)
    return Network(shape, uploads, downloads, steps, infinite=walls.count(), monotone=monotone)


def _gadgets(columns: Columns, arcs: _Arcs, chosen: Ints) -> tuple[Ints, Ints, Ints]:
    """Add the nodes that stand for the readers of each chosen tensor.

    Returns:
        For each chosen tensor the node: its only reader, or else a new gadget; and, for each reader
        of a tensor with a gadget, the gadget and the reader.
    """
    counts = np.diff(columns.consumer_ptr)[chosen]
    first = np.minimum(columns.consumer_ptr[chosen], max(columns.consumer.size - 1, 0))
    node = columns.consumer[first].copy()
    shared = counts > 1
    node[shared] = arcs.new_nodes(int(shared.sum()))

    # All readers of the shared tensors, flat.
    width = counts[shared]
    flat_start = np.concatenate([[0], np.cumsum(width)[:-1]])
    starts = np.repeat(columns.consumer_ptr[chosen[shared]] - flat_start, width)
    reader = columns.consumer[starts + np.arange(width.sum())]
    return node, np.repeat(node[shared], width), reader


def _add_uploads(columns: Columns, arcs: _Arcs, walls: _Arcs, source: int) -> Ints:
    """Add one arc per tensor that is read, and return these tensors."""
    chosen = np.flatnonzero(np.diff(columns.consumer_ptr) > 0)
    if not chosen.size:
        arcs.add(np.array([], np.int64), np.array([], np.int64))
        return chosen

    node, gadget, reader = _gadgets(columns, arcs, chosen)
    producer = columns.producer[chosen]
    arcs.add(np.where(producer < 0, source, producer), node)
    walls.add(gadget, reader)
    return chosen


def _add_downloads(
    columns: Columns, arcs: _Arcs, walls: _Arcs, source: int, monotone: bool
) -> Ints:
    """Add one arc per tensor that may be sent to the device, and return these tensors."""
    inner = columns.producer >= 0
    outputs = np.flatnonzero(inner & columns.output)
    is_read = np.diff(columns.consumer_ptr) > 0
    others = np.flatnonzero(inner & ~columns.output & is_read & (not monotone))

    node = others
    if others.size:
        node, gadget, reader = _gadgets(columns, arcs, others)
        walls.add(reader, gadget)
    tail = np.concatenate([np.full(outputs.size, source), node])
    head = np.concatenate([columns.producer[outputs], columns.producer[others]])
    arcs.add(tail, head)
    return np.concatenate([outputs, others])


def _add_working_set(columns: Columns, arcs: _Arcs, walls: _Arcs, sink: int) -> Ints:
    """Add the chain of working-set levels, and return the bytes of each above the one below."""
    working = columns.device[WORKING]
    levels = np.unique(working[working > 0])
    nodes = arcs.new_nodes(levels.size)
    arcs.add(nodes, sink)

    needy = np.flatnonzero(working > 0)
    walls.add(needy, nodes[np.searchsorted(levels, working[needy])])
    walls.add(nodes[1:], nodes[:-1])
    return np.diff(levels, prepend=0)
