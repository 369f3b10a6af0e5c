"""partition: a graph becomes k+1 segments for k cuts, joined by irsplit.send and irsplit.recv."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from irsplit.base.errors import CutError
from irsplit.ir import (
    Graph,
    Model,
    Node,
    Value,
    clone_node,
    clone_value,
    name_apart,
    uses_with_captures,
    walk,
    without_collector,
)
from irsplit.ir.printer import PLACES
from irsplit.passes.analysis.cuts import Cut, select_cut
from irsplit.passes.analysis.schedule import Schedule
from irsplit.passes.base import Context


@dataclass(frozen=True)
class Partition:
    """Cut the entry graph at `cut`: ids or tensor names; without any, those an earlier pass chose.

    `places` says where each segment runs; by default the first on the device and the others on the
    server. Graph outputs stay with the segment that produces them. A value that is needed further
    on passes through the segments between.
    """

    name: ClassVar[str] = "partition"
    cut: tuple[str, ...] = ()
    max_tensors: int = 1
    places: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        """Replace the entry graph by its segments."""
        names = self.cut or context.chosen.cuts
        if model.segments:
            raise CutError("the model is partitioned already; give all cuts to one partition")
        if not names:
            raise CutError(
                "no cut is given; add partition{cut=ID} or choose-cut before it "
                "(see 'irsplit cuts')"
            )

        listed = context.cuts(model, self.max_tensors)
        # Two names may mean one cut.
        selected = {cut.id: cut for cut in (select_cut(listed, name) for name in names)}
        cuts = sorted(selected.values(), key=lambda cut: cut.position)
        chosen = () if self.cut else context.chosen.placements
        placements = self._placements(len(cuts) + 1, chosen)
        segments = split(cuts[0].order, cuts, placements)

        model.graphs = [*segments, *_others(model)]
        name_apart(model.graphs)
        context.chosen.listed = listed
        return True

    def _placements(self, count: int, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return where each segment runs.

        Args:
            count: How many segments there are.
            chosen: What an earlier pass chose, which `places` overrides.

        Raises:
            CutError: A placement is unknown, or there are more or fewer than segments.
        """
        default = ("device",) + ("server",) * (count - 1)
        placements = self.places or chosen or default
        unknown = [placement for placement in placements if placement not in PLACES]
        if unknown:
            raise CutError(f"unknown place '{unknown[0]}'; places: {', '.join(PLACES)}")
        if len(placements) != count:
            raise CutError(f"{count} segments need {count} places, but {len(placements)} are given")
        return placements


def _others(model: Model) -> list[Graph]:
    """Return the graphs that stay beside segments: all but the entry, unless another calls it."""
    entry, *others = model.graphs
    for graph in others:
        if any(entry in node.callees for node in walk(graph)):
            return [*others, entry]
    return others


@without_collector()
def split(plan: Schedule, cuts: Sequence[Cut], places: Sequence[str]) -> list[Graph]:
    """Make the segments between cuts; the source graph stays as it is.

    Args:
        plan: A schedule of the source graph, in any order.
        cuts: The cuts by ascending position.
        places: The placement of every segment, one more than cuts.

    Returns:
        The segments in the order in which they run.

    Raises:
        CutError: The cuts are of different orders and not nested.
    """
    # One segment on each side is named for its side; of several, each has its number.
    numbered = [f"segment{index}" for index in range(len(places))]
    names = places if tuple(places) == PLACES else numbered
    graphs = [
        Graph(name, placement=place, native=plan.graph.native)
        for name, place in zip(names, places, strict=True)
    ]
    _Splitter(plan, cuts, graphs).run()
    return graphs


def parts_of(plan: Schedule, cuts: Sequence[Cut]) -> dict[Node, int]:
    """Return, for each runtime node, the number of its segment.

    That is the first cut with the node on its device side.

    Args:
        plan: A schedule of the graph, in any order.
        cuts: The cuts by ascending position.

    Raises:
        CutError: The cuts are of different orders and not nested.
    """
    segment_of = dict.fromkeys(plan.nodes, len(cuts))
    for order in dict.fromkeys(cut.order for cut in cuts):
        start = 0
        for index, cut in enumerate(cuts):
            if cut.order is not order:
                continue
            for node in order.nodes[start : cut.position]:
                segment_of[node] = min(segment_of[node], index)
            start = cut.position

    sizes = Counter(segment_of.values())
    before = 0
    for index, cut in enumerate(cuts):
        before += sizes[index]
        # A node that an earlier cut has before it, and this one has not, makes the counts differ.
        if before != cut.position:
            raise CutError(
                f"cut '{cut.id}' does not hold all that the cuts before it hold; choose cuts whose "
                "ids end alike"
            )
    return segment_of


class _Splitter:
    """Fills one graph a segment while it walks the source graph once.

    First it finds, for every value, the segment that makes it, and for every segment, what crosses
    into it and what it needs besides. Then every node is cloned into the segments that run it. The
    work is linear in what the segments hold together.
    """

    def __init__(self, plan: Schedule, cuts: Sequence[Cut], graphs: Sequence[Graph]) -> None:
        self.source = plan.graph
        self.graphs = graphs
        self.mappings: list[dict[Value, Value]] = [{} for _ in graphs]
        """For each segment, its clones by the values of the source."""
        self.segment_of = parts_of(plan, cuts)
        """For each runtime node, its segment."""
        self.made = self._makers(plan, cuts)
        """For each runtime value, the segment that makes it."""
        self.boundaries = _boundaries(cuts, self.made)
        """For each cut, the values that travel."""
        self.needed = self._needed(plan)
        """For each value that is neither made nor received, the segments that need it."""

    def _makers(self, plan: Schedule, cuts: Sequence[Cut]) -> dict[Value, int]:
        """Find the segment that makes each runtime value; the first one gets the graph inputs."""
        made: dict[Value, int] = {}
        for node, index in self.segment_of.items():
            made.update((value, index) for value in node.outputs if value is not None)

        # The device side computes a shape that travels, even when its node's turn comes later.
        for index, cut in enumerate(cuts):
            for value in cut.boundary:
                if made.get(value, 0) > index and value.producer is not None:
                    made[value] = self.segment_of[value.producer] = index

        made.update(dict.fromkeys(plan.inputs, 0))
        return made

    def _needed(self, plan: Schedule) -> dict[Value, list[int]]:
        """Find what segments need but neither make nor receive, each with these in order.

        Such values are constants, results of free nodes, and values that are computed again.
        """
        reads: list[list[Value]] = [[] for _ in self.graphs]
        for node, read, frees in zip(plan.nodes, plan.reads, plan.frees, strict=True):
            reads[self.segment_of[node]].extend((*read, *frees))
        for value in self.source.outputs:
            reads[self.made.get(value, -1)].append(value)
        for index, sent in enumerate(self.boundaries):
            reads[index].extend(sent)

        needed: dict[Value, list[int]] = {}
        for index, pending in enumerate(reads):
            seen = set(self.boundaries[index - 1] if index else ())
            while pending:
                value = pending.pop()
                if value in seen or self.made.get(value) == index:
                    continue

                seen.add(value)
                needed.setdefault(value, []).append(index)
                if value.producer is not None:
                    pending.extend(uses_with_captures(value.producer))
        return needed

    def run(self) -> None:
        """Fill the graphs: inputs, constants, what is received, nodes, what is sent, outputs."""
        for value in self.source.inputs:
            indices = (0,) if value in self.made else self.needed.get(value, ())
            for index in indices:
                self.graphs[index].inputs.append(self._cloned(index, value))
        for value in self.source.constants:
            for index in self.needed.get(value, ()):
                self.graphs[index].constants.append(self._cloned(index, value))

        for index, values in enumerate(self.boundaries):
            received = [self._cloned(index + 1, value) for value in values]
            node = Node("irsplit.recv", (), received, attributes={"boundary": index})
            self.graphs[index + 1].nodes.append(node)

        for node in self.source.nodes:
            for index in self._segments_of(node):
                self.graphs[index].nodes.append(clone_node(node, self.mappings[index]))

        for index, values in enumerate(self.boundaries):
            sent = [self.mappings[index][value] for value in values]
            node = Node("irsplit.send", sent, attributes={"boundary": index})
            self.graphs[index].nodes.append(node)

        for value in self.source.outputs:
            index = self.made.get(value, len(self.graphs) - 1)
            self.graphs[index].outputs.append(self.mappings[index][value])

    def _cloned(self, index: int, value: Value) -> Value:
        """Return the value in segment `index`, where nothing has produced it yet."""
        return self.mappings[index].setdefault(value, clone_value(value))

    def _segments_of(self, node: Node) -> Iterable[int]:
        """Return the segments that run a node, in order.

        They are the segment of a runtime node, and those that need a clone of its results. A dead
        node has none.
        """
        segments = {self.segment_of[node]} if node in self.segment_of else set[int]()
        for value in node.outputs:
            if value is not None:
                segments.update(self.needed.get(value, ()))
        return sorted(segments)


def _boundaries(cuts: Sequence[Cut], made: Mapping[Value, int]) -> list[list[Value]]:
    """Return what travels at each cut, walking from the last one to the first.

    That is the cut's own boundary, and what later boundaries need from before the cut, unless it is
    computed again behind it.
    """
    boundaries: list[list[Value]] = []
    later: list[Value] = []
    for index, cut in reversed([*enumerate(cuts)]):
        recomputed = set(cut.rematerialised)
        passing = [value for value in later if made[value] <= index and value not in recomputed]
        later = list(dict.fromkeys((*cut.boundary, *passing)))
        boundaries.append(later)
    return boundaries[::-1]
