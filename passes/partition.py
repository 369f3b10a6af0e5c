"""partition: a graph becomes k+1 segments for k cuts, joined by irsplit.send and irsplit.recv."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    """Cut the entry graph at `cut` (ids or tensor names; without any, those chosen by an earlier pass).

    `places` says where each segment runs; by default the first on the device and the others on the server. Graph
    outputs stay with the segment that produces them; a value needed further on passes through the segments between.
    """

    name: ClassVar[str] = "partition"
    cut: tuple[str, ...] = ()
    max_tensors: int = 1
    places: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        wanted = self.cut or context.chosen.cuts
        if model.segments:
            raise CutError("the model is partitioned already; give all cuts to one partition")
        if not wanted:
            raise CutError(
                "no cut is given; add partition{cut=ID} or choose-cut before it (see 'irsplit cuts')"
            )
        cuts = context.cuts(model, self.max_tensors)
        selected = {cut.id: cut for cut in (select_cut(cuts, name) for name in wanted)}
        chosen = sorted(selected.values(), key=lambda cut: cut.position)
        places = self._places(len(chosen) + 1, context.chosen.placements)
        segments = split(chosen[0].order, chosen, places)
        model.graphs = [*segments, *_others(model)]
        name_apart(model.graphs)
        context.chosen.listed = cuts
        return True

    def _places(self, count: int, chosen: tuple[str, ...]) -> tuple[str, ...]:
        places = (
            self.places
            or (chosen if not self.cut else ())
            or ("device",) + ("server",) * (count - 1)
        )
        unknown = [place for place in places if place not in PLACES]
        if unknown:
            raise CutError(f"unknown place '{unknown[0]}'; places: {', '.join(PLACES)}")
        if len(places) != count:
            raise CutError(f"{count} segments need {count} places, but {len(places)} are given")
        return places


def _others(model: Model) -> list[Graph]:
    """The graphs that stay beside segments: all but the entry, and it too where one of the others calls it."""
    entry, *others = model.graphs
    called = any(entry in node.callees for graph in others for node in walk(graph))
    return [*others, entry] if called else others


@without_collector()
def split(plan: Schedule, cuts: Sequence[Cut], places: Sequence[str]) -> list[Graph]:
    """The segments between `cuts` by ascending position; the source, of which `plan` is any order, stays as it is.

    Raises CutError for cuts of different orders that are not nested.
    """
    names = (
        places if tuple(places) == PLACES else [f"segment{index}" for index in range(len(places))]
    )
    graphs = [
        Graph(name, placement=place, native=plan.graph.native)
        for name, place in zip(names, places, strict=True)
    ]
    _Splitter(plan, cuts, graphs).run()
    return graphs


def parts_of(plan: Schedule, cuts: Sequence[Cut]) -> dict[Node, int]:
    """For each runtime node, the first of the cuts (ascending) that has it near, which is the number of its segment.

    Raises CutError for cuts of different orders that are not nested.
    """
    parts = dict.fromkeys(plan.nodes, len(cuts))
    for order in dict.fromkeys(cut.order for cut in cuts):
        start = 0
        for index, cut in enumerate(cuts):
            if cut.order is order:
                for node in order.nodes[start : cut.position]:
                    parts[node] = min(parts[node], index)
                start = cut.position
    sizes = Counter(parts.values())
    for cut, near in zip(cuts, accumulate(sizes[index] for index in range(len(cuts))), strict=True):
        # A node that an earlier cut has, and this one has not, is counted here without being one of `position`.
        if near != cut.position:
            raise CutError(
                f"cut '{cut.id}' does not hold all that the cuts before it hold; choose cuts whose ids end alike"
            )
    return parts


class _Splitter:
    """Fills one graph a segment, walking the source once: the work is linear in what the segments hold together."""

    def __init__(self, plan: Schedule, cuts: Sequence[Cut], graphs: Sequence[Graph]) -> None:
        self.source = plan.graph
        self.graphs = graphs
        self.mappings: list[dict[Value, Value]] = [{} for _ in graphs]
        self.part = parts_of(plan, cuts)
        """For each runtime node, its segment."""
        self.made: dict[Value, int] = {}
        """For each runtime value, the segment that produces it; what the caller feeds comes last."""
        for node, part in self.part.items():
            self.made.update((value, part) for value in node.outputs if value is not None)
        for index, cut in enumerate(cuts):
            # The near side computes a shape that travels, even when its node's turn comes later.
            for value in cut.boundary:
                if self.made.get(value, 0) > index and value.producer is not None:
                    self.made[value] = self.part[value.producer] = index
        self.made.update(dict.fromkeys(plan.inputs, 0))
        self.boundaries = _boundaries(cuts, self.made)
        self.needed = self._needed(plan)

    def _needed(self, plan: Schedule) -> dict[Value, list[int]]:
        """What segments neither make nor receive, each with those that need it in ascending order.

        These are constants, results of free nodes, and values that are computed again.
        """
        reads: list[list[Value]] = [[] for _ in self.graphs]
        for node, read, frees in zip(plan.nodes, plan.reads, plan.frees, strict=True):
            reads[self.part[node]].extend((*read, *frees))
        for value in self.source.outputs:
            reads[self.made.get(value, -1)].append(value)
        needed: dict[Value, list[int]] = {}
        for index, pending in enumerate(reads):
            pending.extend(self.boundaries[index] if index < len(self.boundaries) else ())
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
        for value in self.source.inputs:
            for index in (0,) if value in self.made else self.needed.get(value, ()):
                self.graphs[index].inputs.append(self._cloned(index, value))
        for value in self.source.constants:
            for index in self.needed.get(value, ()):
                self.graphs[index].constants.append(self._cloned(index, value))
        for index, values in enumerate(self.boundaries):
            received = [self._cloned(index + 1, value) for value in values]
            self.graphs[index + 1].nodes.append(
                Node("irsplit.recv", (), received, attributes={"boundary": index})
            )
        for node in self.source.nodes:
            for index in self._places_of(node):
                self.graphs[index].nodes.append(clone_node(node, self.mappings[index]))
        for index, values in enumerate(self.boundaries):
            sent = [self.mappings[index][value] for value in values]
            self.graphs[index].nodes.append(
                Node("irsplit.send", sent, attributes={"boundary": index})
            )
        for value in self.source.outputs:
            index = self.made.get(value, len(self.graphs) - 1)
            self.graphs[index].outputs.append(self.mappings[index][value])

    def _cloned(self, index: int, value: Value) -> Value:
        """The value in segment `index`, where nothing has produced it yet."""
        return self.mappings[index].setdefault(value, clone_value(value))

    def _places_of(self, node: Node) -> Iterable[int]:
        """The segment of a runtime node and those that need a clone of it; none for a dead node."""
        own = (self.part[node],) if node in self.part else ()
        cloned = [
            index
            for value in node.outputs
            if value is not None
            for index in self.needed.get(value, ())
        ]
        return sorted({*own, *cloned}) if cloned else own


def _boundaries(cuts: Sequence[Cut], made: Mapping[Value, int]) -> list[list[Value]]:
    """What travels at each cut: its boundary, and what later boundaries take from before it and nobody recomputes."""
    boundaries: list[list[Value]] = []
    later: list[Value] = []
    for index, cut in reversed([*enumerate(cuts)]):
        passed = [
            value for value in later if made[value] <= index and value not in cut.rematerialised
        ]
        later = list(dict.fromkeys((*cut.boundary, *passed)))
        boundaries.append(later)
    return boundaries[::-1]
